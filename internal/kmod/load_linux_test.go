package kmod

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestLoadErrors(t *testing.T) {
	t.Parallel()
	m := Module{Name: "e1000", Path: "kernel/e1000.ko"}
	for errno, want := range map[syscall.Errno]string{
		syscall.ENOENT:       "wants a symbol of a module that is not loaded",
		syscall.ENOEXEC:      "not built for this kernel",
		syscall.ENODEV:       "no such device",
		syscall.EKEYREJECTED: "Secure Boot",
		syscall.ENOKEY:       "Secure Boot",
		syscall.EPERM:        "not root",
		syscall.EINVAL:       "parameter",
		syscall.ENOMEM:       "cannot allocate memory",
	} {
		err := loaded(m, errno)
		var load *LoadError
		if !errors.As(err, &load) || !errors.Is(err, errno) || !strings.Contains(err.Error(), `"e1000"`) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v; want a LoadError with %q", errno, err, want)
		}
	}
	for _, err := range []error{nil, syscall.EEXIST} {
		if got := loaded(m, err); got != nil {
			t.Errorf("%v: %v; want no error", err, got)
		}
	}
}

// TestLoadRefuses hands the kernel of this machine what no kernel takes.
func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"odd.ko", "odd.ko.xz"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("no module"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Load(os.DirFS(dir), Module{Name: "odd", Path: name}); err == nil || !strings.Contains(err.Error(), "odd") {
			t.Errorf("Load(%s) = %v; want an error that names it", name, err)
		}
	}
	if err := Load(os.DirFS(dir), Module{Name: "gone", Path: "gone.ko"}); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `"gone"`) {
		t.Errorf("Load of a missing file = %v", err)
	}
}
