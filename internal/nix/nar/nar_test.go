package nar_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/nix/nar"
)

// makeTree writes a tree with everything that a store may hold.
func makeTree(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "tree")
	for _, dir := range []string{"", "empty", "a", "a/b", "a/b/c"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	big := strings.Repeat("0123456789abcdef", 70000) // more than a buffer
	for name, f := range map[string]struct {
		text string
		perm fs.FileMode
	}{
		"a/empty": {"", 0o644}, "a/1": {"1", 0o600}, "a/7": {"1234567", 0o640}, "a/8": {"12345678", 0o755}, "a/9": {"123456789", 0o711},
		"a/b/big": {big, 0o644}, "a/b/c/program": {big[:262143], 0o700}, "a/exact": {big[:262144], 0o644}, "a.b": {"sorts after a by bytes", 0o644},
		"A": {"capital", 0o644}, "a\xff\n": {"no UTF-8", 0o644}, "ü": {"umlaut", 0o644},
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(f.text), f.perm); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"a/link": "../A", "dangling": "/no/such/file", "a/dir": "b"} {
		if err := os.Symlink(target, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func run(t *testing.T, stdin []byte, name string, args ...string) []byte {
	t.Helper()
	conf := t.TempDir()
	out, err := command.Output(t.Context(), command.Cmd{
		Name: name, Args: args, Stdin: bytes.NewReader(stdin), Package: "nix-bin",
		AddEnv: []string{"NIX_CONF_DIR=" + conf, "NIX_STORE_DIR=" + conf, "NIX_STATE_DIR=" + conf, "NIX_LOG_DIR=" + conf, "NIX_REMOTE="},
	})
	if err != nil {
		t.Fatalf("%v (without Nix, run scripts/setup)", err)
	}
	return out
}

func write(t *testing.T, path string) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := nar.Write(&out, path); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestWriteAgreesWithNix(t *testing.T) {
	t.Parallel()
	tree := makeTree(t)
	for _, below := range []string{"", "empty", "A", "a/8", "a/empty", "a/link", "a/b/big", "a/exact"} {
		path := filepath.Join(tree, below)
		if !bytes.Equal(write(t, path), run(t, nil, "nix-store", "--dump", path)) {
			t.Errorf("the NAR of %q differs from that of nix-store --dump", below)
		}
	}
}

// state is what a store keeps of a node.
type state struct {
	Mode    fs.FileMode
	ModTime int64
	Content string
}

func states(t *testing.T, root string) map[string]state {
	t.Helper()
	all := map[string]state{}
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := os.Lstat(path)
		if err != nil {
			return err
		}
		s := state{Mode: st.Mode(), ModTime: st.ModTime().Unix()}
		switch {
		case st.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			s.Content = string(data)
		case st.Mode()&fs.ModeSymlink != 0:
			if s.Content, err = os.Readlink(path); err != nil {
				return err
			}
		}
		all[strings.TrimPrefix(path, root)] = s
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func dest(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "dest")
	t.Cleanup(func() {
		if err := nar.RemoveTree(path); err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestUnpackAgreesWithNix(t *testing.T) {
	t.Parallel()
	tree := makeTree(t)
	for _, below := range []string{"", "empty", "A", "a/8", "a/link"} {
		archive := run(t, nil, "nix-store", "--dump", filepath.Join(tree, below))
		ours, theirs := dest(t), dest(t)
		if err := nar.Unpack(bytes.NewReader(archive), ours); err != nil {
			t.Fatal(err)
		}
		run(t, archive, "nix-store", "--restore", theirs)
		want := states(t, theirs)
		for name, s := range want { // --restore leaves permissions and times as they come; a store has these
			s.ModTime = 1
			switch {
			case s.Mode.IsDir() || s.Mode.IsRegular() && s.Mode&0o100 != 0:
				s.Mode = s.Mode&^fs.ModePerm | 0o555
			case s.Mode.IsRegular():
				s.Mode = 0o444
			}
			want[name] = s
		}
		if diff := cmp.Diff(want, states(t, ours)); diff != "" {
			t.Errorf("%q (-nix +ours):\n%s", below, diff)
		}
		if !bytes.Equal(write(t, ours), archive) {
			t.Errorf("%q: the unpacked tree has another NAR", below)
		}
	}
}

func TestReaderEvents(t *testing.T) {
	t.Parallel()
	tree := filepath.Join(makeTree(t), "a")
	var told []nar.Header
	var archive bytes.Buffer
	err := nar.WriteFunc(&archive, tree, func(h nar.Header) error {
		told = append(told, h)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	r := nar.NewReader(&archive)
	var got []nar.Header
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, *h)
		switch h.Path {
		case "7":
			data, err := io.ReadAll(r)
			if err != nil || string(data) != "1234567" {
				t.Errorf("content of 7 = %q, %v", data, err)
			}
		case "b/big": // a part only: Next skips the rest
			if _, err := io.CopyN(io.Discard, r, 100); err != nil {
				t.Error(err)
			}
		}
	}
	if diff := cmp.Diff(told, got); diff != "" {
		t.Errorf("nodes (-written +read):\n%s", diff)
	}
	if _, err := r.Next(); !errors.Is(err, io.EOF) {
		t.Errorf("Next after the end = %v; want io.EOF", err)
	}
	want := []string{"", "1", "7", "8", "9", "b", "b/big", "b/c", "b/c/program", "dir", "empty", "exact", "link"}
	var names []string
	for _, h := range got {
		names = append(names, h.Path)
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("names (-want +got):\n%s", diff)
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                        "this is a named pipe",
		"/dev/null":                "this is a device",
		filepath.Join(dir, "none"): "no such file",
	} {
		err := nar.Write(io.Discard, path)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Write(%q) = %v; want %q", path, err, want)
		}
	}
	// The clock of /proc/uptime: a file that says it is empty and is not.
	if err := nar.Write(io.Discard, "/proc/uptime"); err == nil || !strings.Contains(err.Error(), "changed while it was read") {
		t.Errorf("Write of a file with more bytes than its size = %v; want an error", err)
	}
	stop := errors.New("stop")
	if err := nar.WriteFunc(io.Discard, dir, func(nar.Header) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("WriteFunc = %v; want the callback's error", err)
	}
}

// TestFileThatShrinks: what was promised in the length cannot be written.
func TestFileThatShrinks(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1000, 600000} {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
			t.Fatal(err)
		}
		err := nar.WriteFunc(io.Discard, path, func(nar.Header) error { return os.Truncate(path, int64(size/2)) })
		if err == nil || !strings.Contains(err.Error(), "changed while it was read") {
			t.Errorf("Write of a file cut from %d bytes = %v; want an error", size, err)
		}
	}
}

func TestUnpackNeedsAFreeName(t *testing.T) {
	t.Parallel()
	archive := write(t, makeTree(t))
	target := t.TempDir()
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{target, link} {
		if err := nar.Unpack(bytes.NewReader(archive), path); !errors.Is(err, fs.ErrExist) {
			t.Errorf("Unpack over %q = %v; want fs.ErrExist", path, err)
		}
	}
	if left, err := os.ReadDir(target); err != nil || len(left) != 0 {
		t.Errorf("%v was written through the link (%v)", left, err)
	}
}

func TestUnpackFailureLeavesNothing(t *testing.T) {
	t.Parallel()
	archive := write(t, makeTree(t))
	for _, cut := range []int{0, 8, 100, len(archive) / 2, len(archive) - 1} {
		path := dest(t)
		err := nar.Unpack(bytes.NewReader(archive[:cut]), path)
		if !errors.Is(err, nar.ErrFormat) {
			t.Errorf("Unpack of the first %d bytes = %v; want ErrFormat", cut, err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("cut at %d: something is left at %q", cut, path)
		}
	}
	path := dest(t)
	if err := nar.Unpack(bytes.NewReader(append(bytes.Clone(archive), 0)), path); !errors.Is(err, nar.ErrFormat) {
		t.Errorf("Unpack with a byte after the end = %v; want ErrFormat", err)
	}
}

func TestUnpackSetsTimesOfLinks(t *testing.T) {
	t.Parallel()
	path := dest(t)
	if err := nar.Unpack(bytes.NewReader(write(t, filepath.Join(makeTree(t), "dangling"))), path); err != nil {
		t.Fatal(err)
	}
	st, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if !st.ModTime().Equal(time.Unix(1, 0)) {
		t.Errorf("time of the link = %v; want 1 s", st.ModTime())
	}
}
