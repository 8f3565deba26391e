package atomicfile_test

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"xnodeos.org/internal/atomicfile"
)

// names lists what lies below dir, hidden names included.
func names(t *testing.T, dir string) []string {
	t.Helper()
	got := []string{}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if path != dir {
			got = append(got, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWriteReplacesWhole(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "out.iso")
	for _, text := range []string{"first", "the second, longer", "3"} {
		err := atomicfile.Write(path, 0o640, func(w io.Writer) error {
			if old, err := os.ReadFile(path); err == nil && text == "first" {
				t.Errorf("%q has its final name while it is written", old)
			}
			_, err := io.Copy(w, strings.NewReader(text))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := read(t, path); got != text {
			t.Errorf("content = %q; want %q", got, text)
		}
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm()&^0o640 != 0 {
		t.Errorf("mode = %v, %v; want no more than 0640", st.Mode(), err)
	}
	if diff := cmp.Diff([]string{"out.iso"}, names(t, dir)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
}

func TestFailureLeavesTheOldFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := atomicfile.WriteBytes(path, 0o600, []byte("old")); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("source is broken")
	err := atomicfile.Write(path, 0o600, func(w io.Writer) error {
		if _, err := w.Write([]byte("half")); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Errorf("Write = %v; want %v", err, broken)
	}
	if got := read(t, path); got != "old" {
		t.Errorf("content = %q; want the old one", got)
	}
	if diff := cmp.Diff([]string{"f"}, names(t, dir)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
}

func TestFileRandomAccess(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "f")
	f, err := atomicfile.Create(path, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Abort() // after Commit it does nothing
	if err := f.Expect(12); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("world"), 6); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write([]byte("hello,")); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(12); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Seek(4, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 3)
	if _, err := io.ReadFull(f, buf); err != nil || string(buf) != "o,w" {
		t.Errorf("Read = %q, %v", buf, err)
	}
	if got := read(t, f.TempPath()); got != "hello,world\x00" {
		t.Errorf("temporary content = %q", got)
	}
	if err := f.Commit(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, path); got != "hello,world\x00" {
		t.Errorf("content = %q", got)
	}
	if err := f.Abort(); err != nil {
		t.Errorf("Abort after Commit = %v", err)
	}
	if got := read(t, path); got == "" {
		t.Error("Abort after Commit removed the file")
	}
}

func TestCreateRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, d := range []string{"folder", "closed"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, path, want string
		is               error
	}{
		{"no folder", "none/f", "does not exist; create it first", fs.ErrNotExist},
		{"folder is a file", "file/f", "is a file; choose another folder", unix.ENOTDIR},
		{"target is a folder", "folder", "it is a folder", nil},
		{"target is a fifo", "fifo", "refusing to replace a device, pipe or socket", nil},
	}
	for _, tt := range tests {
		path := filepath.Join(dir, tt.path)
		_, err := atomicfile.Create(path, 0o600)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: Create = %v; want it to say %q and name the path", tt.name, err, tt.want)
		}
		if tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("%s: Create = %v; want it to be %v", tt.name, err, tt.is)
		}
		if err != nil && strings.Contains(err.Error(), ".tmp") {
			t.Errorf("%s: Create = %v; names the temporary file", tt.name, err)
		}
	}
}

func TestLongName(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), strings.Repeat("n", 255))
	if err := atomicfile.WriteBytes(path, 0o600, []byte("x")); err != nil {
		t.Errorf("a name of 255 bytes: %v", err)
	}
}

func TestSet(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	out := filepath.Join(base, "a", "b")
	write := func(s *atomicfile.Set) {
		t.Helper()
		if err := s.MkdirAll(filepath.Join(out, "netboot"), 0o755); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"x.iso", "netboot/vmlinuz"} {
			f, err := s.Create(filepath.Join(out, name), 0o644)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.Write([]byte(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	var aborted atomicfile.Set
	write(&aborted)
	if err := aborted.Abort(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{}, names(t, base)); diff != "" {
		t.Errorf("after Abort (-want +got):\n%s", diff)
	}

	var s atomicfile.Set
	write(&s)
	if _, err := os.Stat(filepath.Join(out, "x.iso")); err == nil {
		t.Error("x.iso has its name before Commit")
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := s.Abort(); err != nil {
		t.Errorf("Abort after Commit = %v", err)
	}
	want := []string{"a", "a/b", "a/b/netboot", "a/b/netboot/vmlinuz", "a/b/x.iso"}
	if diff := cmp.Diff(want, names(t, base)); diff != "" {
		t.Errorf("after Commit (-want +got):\n%s", diff)
	}

	var blocked atomicfile.Set
	if err := blocked.MkdirAll(filepath.Join(out, "x.iso", "d"), 0o755); err == nil || !strings.Contains(err.Error(), "x.iso") {
		t.Errorf("MkdirAll below a file = %v; want it named", err)
	}
}

func TestDir(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	path := filepath.Join(base, "tree")
	make1 := func() *atomicfile.Dir {
		t.Helper()
		d, err := atomicfile.CreateDir(path, 0o755)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d.TempPath(), "f"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		return d
	}
	aborted, winner, loser := make1(), make1(), make1()
	if err := aborted.Abort(); err != nil {
		t.Fatal(err)
	}
	if err := winner.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := loser.Commit(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second Commit = %v; want fs.ErrExist", err)
	}
	if _, err := atomicfile.CreateDir(path, 0o755); !errors.Is(err, fs.ErrExist) {
		t.Errorf("CreateDir over a folder = %v; want fs.ErrExist", err)
	}
	if diff := cmp.Diff([]string{"tree", "tree/f"}, names(t, base)); diff != "" {
		t.Errorf("folder (-want +got):\n%s", diff)
	}
}

const helperEnv = "XNODE_TEST_ATOMICFILE_DIR"

// TestRealFileSystems runs the cases of inNamespace again in a mount namespace
// of its own, where it may mount a tiny tmpfs and read-only folders, as root
// and as an ordinary user alike.
func TestRealFileSystems(t *testing.T) {
	if dir := os.Getenv(helperEnv); dir != "" {
		inNamespace(t, dir)
		return
	}
	unshare := []string{"unshare", "--mount"}
	if os.Geteuid() != 0 {
		unshare = append(unshare, "--map-root-user")
	}
	cmd := exec.CommandContext(t.Context(), unshare[0], append(unshare[1:], os.Args[0], "-test.run=^TestRealFileSystems$", "-test.v")...)
	cmd.Env = append(os.Environ(), helperEnv+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v (needs util-linux and, for an ordinary user, user namespaces; run scripts/setup)\n%s", cmd.Args, err, out)
	}
	if !strings.Contains(string(out), "--- PASS: TestRealFileSystems/disk_full") {
		t.Errorf("the cases did not run:\n%s", out)
	}
}

// mount mounts a tmpfs of 256 KiB below dir for one test.
func mount(t *testing.T, dir string, flags uintptr) string {
	t.Helper()
	at := filepath.Join(dir, strings.ReplaceAll(t.Name(), "/", "-"))
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", at, "tmpfs", flags, "size=256k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(at, 0); err != nil {
			t.Error(err)
		}
	})
	return at
}

func inNamespace(t *testing.T, dir string) {
	t.Helper()
	t.Run("disk full", func(t *testing.T) {
		at := mount(t, dir, 0)
		path := filepath.Join(at, "big")
		err := atomicfile.Write(path, 0o600, func(w io.Writer) error {
			for range 100 {
				if _, err := w.Write(make([]byte, 8192)); err != nil {
					return fmt.Errorf("write payload: %w", err)
				}
			}
			return nil
		})
		var space *atomicfile.SpaceError
		if !errors.As(err, &space) || !errors.Is(err, unix.ENOSPC) || space.Folder != at || space.Path != path {
			t.Errorf("Write = %v; want a SpaceError for %q", err, at)
		}
		if got := names(t, at); len(got) != 0 {
			t.Errorf("left behind: %v", got)
		}
	})
	t.Run("refused early", func(t *testing.T) {
		at := mount(t, dir, 0)
		f, err := atomicfile.Create(filepath.Join(at, "big"), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		err = f.Expect(300 << 10)
		var space *atomicfile.SpaceError
		if !errors.As(err, &space) || space.Free+space.Missing != 300<<10 {
			t.Errorf("Expect(300 KiB) on a disk of 256 KiB = %v", err)
		}
		if err := f.Expect(200 << 10); err != nil {
			t.Errorf("Expect(200 KiB) = %v", err)
		}
		if err := f.Abort(); err != nil {
			t.Error(err)
		}
	})
	t.Run("read-only", func(t *testing.T) {
		at := mount(t, dir, unix.MS_RDONLY)
		_, err := atomicfile.Create(filepath.Join(at, "f"), 0o600)
		if !errors.Is(err, unix.EROFS) || !strings.Contains(err.Error(), "read-only file system; choose another folder") {
			t.Errorf("Create = %v; want EROFS with a remedy", err)
		}
	})
}
