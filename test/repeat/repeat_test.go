package repeat

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/testkit"
)

// A small system would do for the bytes of the formats; pocket also has Nix's
// part in it: its store paths must mean the same everywhere.
func TestBuildsAreIdentical(t *testing.T) {
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	if err := openToOthers(work); err != nil {
		t.Fatal(err)
	}
	program := testkit.Programs(t)
	config := filepath.Join(work, "node")
	if err := os.Mkdir(config, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(config, "hostname"), []byte("same\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	b := Builder{
		Program: program, Cache: filepath.Join(cache, "xnodeos"), Work: work,
		Args: []string{"--system", "pocket", "--format", "iso,netboot", "--embed-payload", "--node-config", config},
	}
	// The first build also fetches what the others take from the cache.
	if err := os.MkdirAll(b.Cache, 0o755); err != nil {
		t.Fatal(err)
	}
	first, _, err := b.Build(t.Context(), Circumstance{Name: "first"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := RemoveAll(filepath.Dir(first)); err != nil {
			t.Error(err)
		}
	})
	want, err := Sums(first)
	if err != nil {
		t.Fatal(err)
	}
	if len(want) < 5 {
		t.Fatalf("the build made %d files; want the ISO and the netboot tree", len(want))
	}
	for _, c := range Circumstances() {
		t.Run(c.Name, func(t *testing.T) {
			dir, took, err := b.Build(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Sums(dir)
			if err != nil {
				t.Fatal(err)
			}
			if names := Differing(want, got); len(names) > 0 {
				t.Errorf("built %s in %.1f s: other bytes in %v", c.Name, took.Seconds(), names)
			}
			if err := RemoveAll(filepath.Dir(dir)); err != nil {
				t.Error(err)
			}
		})
	}
}

// openToOthers lets another user enter a test's folder and those above it.
func openToOthers(dir string) error {
	for dir != filepath.Clean(os.TempDir()) && dir != "/" {
		if err := os.Chmod(dir, 0o755); err != nil {
			return err
		}
		dir = filepath.Dir(dir)
	}
	return nil
}

func TestRemoveAllOfAStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "build")
	item := filepath.Join(dir, "cache", "store", "item")
	if err := os.MkdirAll(item, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(item, "file"), nil, 0o444); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(item, 0o555); err != nil {
		t.Fatal(err)
	}
	if err := RemoveAll(dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("the folder is still there")
	}
}

func TestDiffering(t *testing.T) {
	a := map[string]string{"same": "1", "other": "1", "gone": "1"}
	b := map[string]string{"same": "1", "other": "2", "new": "1"}
	if diff := cmp.Diff([]string{"gone", "new", "other"}, Differing(a, b)); diff != "" {
		t.Errorf("Differing (-want +got):\n%s", diff)
	}
}

func TestSums(t *testing.T) {
	dir := t.TempDir()
	if _, err := Sums(dir); err == nil {
		t.Error("Sums of an empty folder: no error; want one, nothing would be compared")
	}
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "sub", "abc"), []byte("abc"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := Sums(dir)
	if err != nil {
		t.Fatal(err)
	}
	// FIPS 180-2, appendix B.1.
	want := map[string]string{"sub/abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Sums (-want +got):\n%s", diff)
	}
}
