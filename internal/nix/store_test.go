package nix_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/nix"
)

func storePath(char, name string) string {
	return nix.StoreDir + "/" + strings.Repeat(char, nix.HashLen) + "-" + name
}

func symlink(t *testing.T, target, path string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// newStore has a path with a file, one that links to it in every way, and
// links from outside.
func newStore(t *testing.T) (s nix.Store, dir, a, b string) {
	t.Helper()
	dir = t.TempDir()
	s = nix.Store{Dir: filepath.Join(dir, "root")}
	a, b = storePath("0", "a"), storePath("1", "b")
	writeFile(t, s.Physical(a+"/bin/tool"), "tool")
	writeFile(t, s.Physical(a+"/lib/x/y"), "y")
	symlink(t, a+"/bin", s.Physical(b+"/bin"))
	symlink(t, "../"+filepath.Base(a)+"/lib", s.Physical(b+"/relative"))
	symlink(t, b, s.Physical(storePath("2", "whole")))
	symlink(t, "/etc/passwd", s.Physical(b+"/out"))
	symlink(t, "../../../etc/passwd", s.Physical(b+"/relative-out"))
	symlink(t, a+"/none", s.Physical(b+"/dangling"))
	symlink(t, "loop", s.Physical(b+"/loop"))
	symlink(t, nix.StoreDir, s.Physical(b+"/store"))
	return s, dir, a, b
}

func TestFollow(t *testing.T) {
	t.Parallel()
	s, _, a, b := newStore(t)
	for path, want := range map[string]string{
		a:                                a,
		a + "/":                          a,
		b + "/bin/tool":                  a + "/bin/tool",
		b + "/bin/../lib/x":              a + "/lib/x",
		b + "/relative/x/y":              a + "/lib/x/y",
		storePath("2", "whole") + "/bin": a + "/bin",
	} {
		if got, err := s.Follow(path); err != nil || got != want {
			t.Errorf("Follow(%q) = %q, %v; want %q", path, got, err, want)
		}
	}
	for path, want := range map[string]string{
		b + "/out":          "leads out of the store",
		b + "/relative-out": "leads out of the store",
		b + "/../../x":      "leads out of the store",
		b + "/store":        "leads out of the store",
		b + "/loop":         "more than 40 symlinks",
		b + "/dangling":     "no such file",
		a + "/none/x":       "no such file",
		"/etc/passwd":       "not a store path",
		"relative":          "not a store path",
	} {
		if got, err := s.Follow(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Follow(%q) = %q, %v; want %q", path, got, err, want)
		}
	}
}

func TestReadFile(t *testing.T) {
	t.Parallel()
	s, _, a, b := newStore(t)
	if data, err := s.ReadFile(b+"/bin/tool", 4); err != nil || string(data) != "tool" {
		t.Errorf("ReadFile = %q, %v", data, err)
	}
	if _, err := s.ReadFile(b+"/bin/tool", 3); err == nil || !strings.Contains(err.Error(), "longer than 3 bytes") {
		t.Errorf("ReadFile over the limit = %v", err)
	}
	if _, err := s.ReadFile(a+"/bin", 100); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("ReadFile of a folder = %v", err)
	}
	if _, err := s.ReadFile(b+"/dangling", 100); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("ReadFile of a dangling link = %v; want fs.ErrNotExist", err)
	}
}

func TestFS(t *testing.T) {
	t.Parallel()
	s, _, a, b := newStore(t)
	if err := fstest.TestFS(s.FS(a), "bin/tool", "lib/x/y"); err != nil {
		t.Error(err)
	}
	if data, err := fs.ReadFile(s.FS(b), "bin/tool"); err != nil || string(data) != "tool" {
		t.Errorf("ReadFile through an absolute link = %q, %v", data, err)
	}
	for _, name := range []string{"../" + filepath.Base(a) + "/bin/tool", "/etc/passwd", ""} {
		if _, err := s.FS(b).Open(name); !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Open(%q) = %v; want fs.ErrInvalid", name, err)
		}
	}
	if _, err := s.FS(b).Open("out"); err == nil {
		t.Error("a link led out of the store")
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	s, dir, a, b := newStore(t)
	symlink(t, b, filepath.Join(dir, "result"))
	symlink(t, "system-2-link", filepath.Join(dir, "profiles", "system"))
	symlink(t, a, filepath.Join(dir, "profiles", "system-2-link"))
	symlink(t, s.Physical(a), filepath.Join(dir, "physical"))
	symlink(t, dir, filepath.Join(dir, "elsewhere"))
	symlink(t, storePath("9", "gone"), filepath.Join(dir, "stale"))
	symlink(t, "round", filepath.Join(dir, "round"))
	writeFile(t, filepath.Join(dir, "plain"), "")
	for path, want := range map[string]string{
		a:                                a,
		a + "/bin/tool":                  a,
		s.Physical(b):                    b,
		s.Physical(b) + "/bin":           b,
		dir + "/result":                  b,
		dir + "/result/":                 b,
		dir + "/profiles/system":         a,
		dir + "/physical":                a,
		dir + "/elsewhere/result":        b,
		dir + "/elsewhere" + "/root" + a: a,
		dir + "/profiles/../result":      b,
		storePath("2", "whole"):          storePath("2", "whole"),
	} {
		if got, err := s.Resolve(path); err != nil || string(got) != want {
			t.Errorf("Resolve(%q) = %q, %v; want %q", path, got, err, want)
		}
	}
	for path, want := range map[string]string{
		"":                        "it is empty",
		dir:                       "it is no link to one",
		dir + "/plain":            "it is no link to one",
		dir + "/none":             "it does not exist",
		dir + "/round":            "more than 40 symlinks",
		nix.StoreDir:              "it is no link to one",
		nix.StoreDir + "/.links":  "not a store path",
		dir + "/root/nix/store/x": "not a store path",
	} {
		got, err := s.Resolve(path)
		if !errors.Is(err, nix.ErrNotStorePath) || !strings.Contains(err.Error(), want) {
			t.Errorf("Resolve(%q) = %q, %v; want ErrNotStorePath, %q", path, got, err, want)
		}
	}
	for _, path := range []string{dir + "/stale", storePath("9", "gone")} {
		_, err := s.Resolve(path)
		var missing *nix.MissingError
		if !errors.As(err, &missing) || string(missing.Path) != storePath("9", "gone") || !strings.Contains(err.Error(), "--realise") {
			t.Errorf("Resolve(%q) = %v; want a MissingError with a remedy", path, err)
		}
	}
}

func TestList(t *testing.T) {
	t.Parallel()
	s := nix.Store{Dir: t.TempDir()}
	if _, err := s.List(); err == nil || !strings.Contains(err.Error(), "--store") {
		t.Errorf("List without a store = %v; want a remedy", err)
	}
	a := storePath("0", "a")
	writeFile(t, s.Physical(a), "a")
	writeFile(t, s.Physical(a+".lock"), "")
	writeFile(t, s.Physical(storePath("1", "flake.lock")), "{}")
	writeFile(t, s.Physical(nix.StoreDir+"/.links/x"), "")
	got, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	want := []nix.StorePath{nix.StorePath(a), nix.StorePath(storePath("1", "flake.lock"))}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
}

// TestTemporarySiblings: what Nix makes beside a path while it builds is not
// taken for the path, and two real paths with one hash are refused.
func TestTemporarySiblings(t *testing.T) {
	t.Parallel()
	s := nix.Store{Dir: t.TempDir()}
	a, b := storePath("0", "a"), storePath("1", "b")
	writeFile(t, s.Physical(a), "a")
	writeFile(t, s.Physical(a+".check"), "half")
	writeFile(t, s.Physical(b), a)
	got, err := s.Closure(t.Context(), nix.ClosureOptions{}, b)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{a, b}, paths(got)); diff != "" {
		t.Errorf("closure (-want +got):\n%s", diff)
	}
	writeFile(t, s.Physical(storePath("0", "other")), "")
	if _, err := s.Closure(t.Context(), nix.ClosureOptions{}, b); err == nil || !strings.Contains(err.Error(), "the same hash") {
		t.Errorf("Closure with two paths of one hash = %v", err)
	}
}

const helperEnv = "XNODE_TEST_NIX_DIR"

// TestUnreadablePath runs itself again in a user namespace, where root's
// files are closed to root too when their permissions say so.
func TestUnreadablePath(t *testing.T) {
	t.Parallel()
	a, b := storePath("0", "a"), storePath("1", "b")
	if dir := os.Getenv(helperEnv); dir != "" {
		s := nix.Store{Dir: dir}
		_, err := s.Closure(t.Context(), nix.ClosureOptions{}, b)
		var missing *nix.MissingError
		if !errors.As(err, &missing) || string(missing.Path) != a || string(missing.Referrer) != b || !errors.Is(err, fs.ErrPermission) {
			t.Fatalf("Closure = %v; want that %s, which %s refers to, cannot be read", err, a, b)
		}
		for _, part := range []string{s.Physical(a) + "/secret", "make it readable", "--verify"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
		return
	}
	s := nix.Store{Dir: t.TempDir()}
	writeFile(t, s.Physical(b), a)
	writeFile(t, s.Physical(a)+"/secret", "x")
	if err := os.Chmod(s.Physical(a)+"/secret", 0); err != nil {
		t.Fatal(err)
	}
	out, err := command.Output(t.Context(), command.Cmd{
		Name: "unshare", Args: []string{"--user", os.Args[0], "-test.run=^TestUnreadablePath$", "-test.v"},
		AddEnv: []string{helperEnv + "=" + s.Dir}, Package: "util-linux",
	})
	if err != nil || !strings.Contains(string(out), "--- PASS: TestUnreadablePath") {
		t.Errorf("in a user namespace (run scripts/setup if there are none): %v\n%s", err, out)
	}
}
