package atomicfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestEveryWriteExplainsDiskFull uses /dev/full, which every user has.
func TestEveryWriteExplainsDiskFull(t *testing.T) {
	t.Parallel()
	writes := map[string]func(f *File) error{
		"Write":    func(f *File) error { _, err := f.Write([]byte("x")); return err },
		"WriteAt":  func(f *File) error { _, err := f.WriteAt([]byte("x"), 0); return err },
		"ReadFrom": func(f *File) error { _, err := f.ReadFrom(strings.NewReader("x")); return err },
	}
	for name, write := range writes {
		dir := t.TempDir()
		f, err := Create(filepath.Join(dir, "f"), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.file.Close(); err != nil {
			t.Fatal(err)
		}
		f.file, f.want = full, 1<<60
		err = write(f)
		var space *SpaceError
		if !errors.As(err, &space) || !errors.Is(err, unix.ENOSPC) {
			t.Fatalf("%s = %v; want a SpaceError", name, err)
		}
		if space.Folder != dir || space.Missing == 0 || strings.Contains(err.Error(), f.temp) {
			t.Errorf("%s = %v; want folder, missing bytes and not the temporary name", name, err)
		}
		if err := f.Abort(); err != nil {
			t.Error(err)
		}
	}
}

func TestExplain(t *testing.T) {
	t.Parallel()
	tests := []struct {
		err  error
		want string
	}{
		{unix.EACCES, `create "/d/f": permission denied: folder "/d" is not writable by this user; choose another folder or change its owner`},
		{unix.EROFS, `create "/d/f": read-only file system: folder "/d" is on a read-only file system; choose another folder`},
		{unix.EIO, `create "/d/f": input/output error`},
	}
	for _, tt := range tests {
		err := explain("create", "/d/f", 0, &fs.PathError{Op: "open", Path: "/d/.f.tmp", Err: tt.err})
		if err.Error() != tt.want {
			t.Errorf("explain(%v) = %q; want %q", tt.err, err, tt.want)
		}
		if !errors.Is(err, tt.err) {
			t.Errorf("explain(%v) hides its cause", tt.err)
		}
	}
}
