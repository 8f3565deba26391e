package pocket

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/testkit"
)

func sharedCache(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(cache, "xnodeos")
}

// The private store, whose builders see no folder of this machine, must hold
// the same paths with the same bytes as the usual one: nothing came from outside
// the packages. It also builds everything a second time.
func TestPrivateStore(t *testing.T) {
	opt, err := Options{Cache: sharedCache(t), Log: func(line string) { t.Log(line) }}.complete()
	if err != nil {
		t.Fatal(err)
	}
	usual, store, err := Build(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "a store")
	t.Cleanup(func() { makeWritable(dir) })
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Dir(dir), link); err != nil {
		t.Fatal(err)
	}
	site, err := privateSite(filepath.Join(link, "a store"))
	if err != nil {
		t.Fatal(err)
	}
	private, where, err := buildIn(t.Context(), opt, site)
	if err != nil {
		t.Fatal(err)
	}
	if where.Dir != dir || private != usual {
		t.Fatalf("private store %q has %s; want %s in %q", where.Dir, private, usual, dir)
	}
	if diff := cmp.Diff(closureOf(t, store, usual), closureOf(t, where, private)); diff != "" {
		t.Errorf("the same paths have other bytes in a private store: %s", diff)
	}
}

func closureOf(t *testing.T, store nix.Store, p nix.StorePath) []nix.PathInfo {
	t.Helper()
	infos, err := store.Closure(t.Context(), nix.ClosureOptions{}, string(p))
	if err != nil {
		t.Fatal(err)
	}
	return infos
}

// makeWritable lets an ordinary user delete a store.
func makeWritable(dir string) {
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			_ = os.Chmod(path, 0o755)
		}
		return nil
	})
}

func TestTwoBuildsAtOnce(t *testing.T) {
	var wait sync.WaitGroup
	found := make([]nix.StorePath, 3)
	for i := range found {
		wait.Go(func() {
			var err error
			found[i], _, err = Build(t.Context(), Options{Cache: sharedCache(t), Label: "at-once"})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if found[0] == "" || found[0] != found[1] || found[1] != found[2] {
		t.Errorf("builds at once gave %v", found)
	}
}

func TestBuildRefuses(t *testing.T) {
	cache := sharedCache(t)
	for name, test := range map[string]struct {
		opt  Options
		want []string
	}{
		"no cache":  {Options{}, []string{"cache folder"}},
		"handover":  {Options{Cache: cache, Handover: "kexec"}, []string{`"kexec"`, `"prepare-root"`}},
		"broken":    {Options{Cache: cache, Broken: "heart"}, []string{`"heart"`, `"activation"`}},
		"no agent":  {Options{Cache: cache, Broken: "agent"}, []string{`"agent"`, "needs"}},
		"program":   {Options{Cache: cache, Xnode: filepath.Join(t.TempDir(), "none")}, []string{"agent's program", "build it"}},
		"greeting":  {Options{Cache: cache, Greeting: "50%"}, []string{`"50%"`, "letters"}},
		"label":     {Options{Cache: cache, Label: "a b"}, []string{`"a b"`, "letters"}},
		"injection": {Options{Cache: cache, Label: `a";b`}, []string{"label"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Build(t.Context(), test.opt)
			if err == nil {
				t.Fatal("it was built")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Build: %v; want %q in it", err, want)
				}
			}
		})
	}
}

func TestBuildCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Build(ctx, Options{Cache: sharedCache(t)}); !errors.Is(err, context.Canceled) {
		t.Errorf("Build = %v; want context.Canceled", err)
	}
}

// What was built by the same call is there without asking Nix again; anything
// else needs nix-build, and the error names the package that brings it.
func TestBuildWithoutNix(t *testing.T) {
	cache := sharedCache(t)
	first, _, err := Build(t.Context(), Options{Cache: cache})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", t.TempDir())
	if again, _, err := Build(t.Context(), Options{Cache: cache}); err != nil || again != first {
		t.Errorf("Build once more = %q, %v; want %q", again, err, first)
	}
	_, _, err = Build(t.Context(), Options{Cache: cache, Files: map[string]string{"motd": t.Name() + t.TempDir()}})
	if err == nil || !strings.Contains(err.Error(), "Debian package nix-bin") {
		t.Errorf("Build of something else without nix-build = %v; want the package that brings it", err)
	}
}

// TestBuiltNeedsThePath removes what a remembered call made.
func TestBuiltNeedsThePath(t *testing.T) {
	dir := t.TempDir()
	store, link, call := nix.Store{Dir: dir}, filepath.Join(dir, "link"), callOf([]string{"a", "b"})
	path := "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-x"
	if err := os.MkdirAll(store.Physical(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(callFile(link), call, 0o644); err != nil {
		t.Fatal(err)
	}
	if got, ok := built(store, link, call); !ok || string(got) != path {
		t.Errorf("built = %q, %t; want %q", got, ok, path)
	}
	if _, ok := built(store, link, callOf([]string{"a", "c"})); ok {
		t.Error("another call counts as the same")
	}
	if err := os.Remove(store.Physical(path)); err != nil {
		t.Fatal(err)
	}
	if _, ok := built(store, link, call); ok {
		t.Error("a path that is gone counts as built")
	}
}

func TestChooseStore(t *testing.T) {
	root := t.TempDir()
	sub := func(names ...string) string { return filepath.Join(append([]string{root}, names...)...) }
	if !canWriteNix(sub("nix")) {
		t.Error("a store that can be made counts as one that cannot be written")
	}
	if err := os.MkdirAll(sub("file"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(sub("file", "store"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ file, value, want string }{
		"allowed":    {"kernel/unprivileged_userns_clone", "1\n", ""},
		"debian":     {"kernel/unprivileged_userns_clone", "0\n", "kernel.unprivileged_userns_clone is 0"},
		"none":       {"user/max_user_namespaces", "0\n", "user.max_user_namespaces is 0"},
		"apparmor":   {"kernel/apparmor_restrict_unprivileged_userns", "1\n", "kernel.apparmor_restrict_unprivileged_userns is 1"},
		"no kernels": {"other", "0\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			proc := t.TempDir()
			path := filepath.Join(proc, test.file)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(test.value), 0o644); err != nil {
				t.Fatal(err)
			}
			if got := noUserNamespaces(proc); got != test.want {
				t.Errorf("noUserNamespaces = %q; want %q", got, test.want)
			}
		})
	}
}

func TestExplain(t *testing.T) {
	cause := errors.New("nix-build: cloning builder process: Operation not permitted")
	if got := (site{}).explain(cause); !errors.Is(got, cause) || strings.Contains(got.Error(), "scripts/setup") {
		t.Errorf("explain in /nix = %v", got)
	}
	private, err := privateSite(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	got := private.explain(cause)
	if !errors.Is(got, cause) || !strings.Contains(got.Error(), "scripts/setup") {
		t.Errorf("explain in a private store = %v; want the remedy", got)
	}
}

func TestPackageNames(t *testing.T) {
	names := PackageNames()
	seen := make(map[string]bool)
	for _, name := range names {
		if seen[name] {
			t.Errorf("packages.txt names %s twice", name)
		}
		seen[name] = true
	}
	if !seen["@linux-image-amd64"] || !seen["systemd"] || len(names) < 50 {
		t.Errorf("packages.txt gives %d packages: %v", len(names), names)
	}
}

func TestBuilding(t *testing.T) {
	line := "building '/nix/store/05diaijy8zynnsrammpmmv4abzmxlkqj-pocket-certificates.drv'..."
	if name, ok := building(line); !ok || name != "pocket-certificates" {
		t.Errorf("building(%q) = %q, %t", line, name, ok)
	}
	if name, ok := building("these 2 derivations will be built:"); ok {
		t.Errorf("building took another line for one: %q", name)
	}
}

// The scripts run as busybox's sh, in the build and on the node.
func TestScripts(t *testing.T) {
	var scripts []string
	err := eachFile(func(name string, _ []byte) error {
		if strings.HasSuffix(name, ".sh") {
			scripts = append(scripts, name)
		}
		return nil
	})
	if err != nil || len(scripts) < 10 {
		t.Fatalf("embedded scripts: %q, %v", scripts, err)
	}
	// SC2154: builders get their variables from the derivation
	testkit.RunTool(t, "shellcheck", append([]string{"--shell=sh", "--exclude=SC2154"}, scripts...)...)
}
