package debs

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const sumA = "3d3fdbe91d4660c873e14b092c213fe81c1da6362daa236eb25d0171eb108744"

func TestParseURIs(t *testing.T) {
	const line = "'http://deb.example.org/debian/pool/main/b/busybox/busybox-static_1.35.0-4%2bdeb12u1%2bb1_amd64.deb' " +
		"busybox-static_1%3a1.35.0-4+deb12u1+b1_amd64.deb 928188 SHA256:" + sumA
	want := map[string]Deb{"busybox-static": {File: "busybox-static_1%3a1.35.0-4+deb12u1+b1_amd64.deb", SHA256: sumA, Size: 928188}}
	got, err := parseURIs("Reading package lists...\n" + line + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("parseURIs: %s", diff)
	}
	for name, bad := range map[string]string{
		"words":     "'http://x/a_1_all.deb' a_1_all.deb 12",
		"size":      "'http://x/a_1_all.deb' a_1_all.deb many SHA256:" + sumA,
		"no size":   "'http://x/a_1_all.deb' a_1_all.deb 0 SHA256:" + sumA,
		"old hash":  "'http://x/a_1_all.deb' a_1_all.deb 12 MD5Sum:d41d8cd98f00b204e9800998ecf8427e",
		"short":     "'http://x/a_1_all.deb' a_1_all.deb 12 SHA256:abcd",
		"climbs":    "'http://x/a_1_all.deb' ../a_1_all.deb 12 SHA256:" + sumA,
		"no name":   "'http://x/a.deb' a.deb 12 SHA256:" + sumA,
		"not a deb": "'http://x/a_1_all.tar' a_1_all.tar 12 SHA256:" + sumA,
	} {
		if got, err := parseURIs(bad); err == nil {
			t.Errorf("%s: parseURIs(%q) = %v; want an error", name, bad, got)
		}
	}
}

func TestParseDepends(t *testing.T) {
	got := parseDepends("linux-image-amd64\n  Depends: linux-image-6.1.0-56-amd64\n  Suggests: x\n |Depends: y\n")
	if diff := cmp.Diff([]string{"linux-image-6.1.0-56-amd64"}, got); diff != "" {
		t.Errorf("parseDepends: %s", diff)
	}
}

func FuzzParseURIs(f *testing.F) {
	f.Add("'http://x/a_1_all.deb' a_1_all.deb 12 SHA256:" + sumA)
	f.Add("'u' ../a_1_all.deb 12 SHA256:" + sumA + "\n''\n")
	f.Fuzz(func(t *testing.T, text string) {
		files, err := parseURIs(text)
		if err != nil {
			return
		}
		for name, d := range files {
			if filepath.Join("/x", d.File) != "/x/"+d.File || len(d.SHA256) != 64 || d.Size <= 0 || strings.Contains(name, "/") {
				t.Errorf("parseURIs(%q) let %q through: %+v", text, name, d)
			}
		}
	})
}

// lines collects what is logged.
type lines struct {
	mu   sync.Mutex
	text []string
}

func (l *lines) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, line)
}

// The real apt-get and dpkg-deb, with two of the smallest packages.
func TestFetch(t *testing.T) {
	var log lines
	cache := Cache{Dir: filepath.Join(t.TempDir(), "a folder"), Log: log.add}
	names := []string{"libcap-ng0", "libcom-err2"}

	var wait sync.WaitGroup // two at once share one download
	results := make([][]Deb, 2)
	for i := range results {
		wait.Go(func() {
			var err error
			if results[i], err = cache.Fetch(t.Context(), names...); err != nil {
				t.Errorf("fetch: %v; run scripts/setup", err)
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		t.FailNow()
	}
	if diff := cmp.Diff(results[0], results[1]); diff != "" {
		t.Errorf("two fetches at once differ: %s", diff)
	}
	if n := strings.Count(strings.Join(log.text, "\n"), "fetching 2"); n != 1 {
		t.Errorf("packages were downloaded %d times; want once; log: %q", n, log.text)
	}
	for i, d := range results[0] {
		if d.Name != names[i] {
			t.Errorf("package %d is %q; want %q", i, d.Name, names[i])
		}
		var libraries int
		err := filepath.WalkDir(cache.Folder(d), func(path string, _ os.DirEntry, err error) error {
			if strings.Contains(path, ".so.") {
				libraries++
			}
			return err
		})
		if err != nil || libraries == 0 {
			t.Errorf("package %s is unpacked without its library: %v", d.Name, err)
		}
	}
	left, err := filepath.Glob(filepath.Join(cache.Dir, "*", ".part-*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}

	// a damaged file is not unpacked
	first := results[0][0]
	removeTree(cache.Folder(first))
	if err := os.WriteFile(cache.file(first), []byte("not it"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Fetch(t.Context(), names...); err != nil {
		t.Fatal(err)
	}
	if !cache.sound(first) {
		t.Error("a damaged package file was kept")
	}

	t.Run("without apt", func(t *testing.T) {
		t.Setenv("PATH", t.TempDir())
		said := len(log.text)
		got, err := cache.Fetch(t.Context(), names...)
		if err != nil || len(log.text) != said {
			t.Fatalf("apt was asked again, though its lists are the same: %v, %q", err, log.text[said:])
		}
		if diff := cmp.Diff(results[0], got); diff != "" {
			t.Errorf("packages of last time: %s", diff)
		}

		if err := cache.remember(names, results[0], "other lists"); err != nil {
			t.Fatal(err)
		}
		got, err = cache.Fetch(t.Context(), names...)
		if err != nil {
			t.Fatalf("packages of last time were not used: %v", err)
		}
		if diff := cmp.Diff(results[0], got); diff != "" {
			t.Errorf("packages of last time: %s", diff)
		}
		last := log.text[len(log.text)-1]
		if !strings.Contains(last, "those of last time") || !strings.Contains(last, "apt-get") {
			t.Errorf("nothing was said about it: %q", last)
		}

		_, err = cache.Fetch(t.Context(), "libcap-ng0")
		if err == nil || !strings.Contains(err.Error(), "Debian package apt") {
			t.Errorf("fetch of other names without apt-get = %v; want the package that brings it", err)
		}
	})
}

func TestAptStamp(t *testing.T) {
	root := t.TempDir()
	lists := filepath.Join(root, "var/lib/apt/lists")
	if err := os.MkdirAll(lists, 0o755); err != nil {
		t.Fatal(err)
	}
	before := aptStamp(root)
	if again := aptStamp(root); again != before {
		t.Errorf("aptStamp changes by itself: %q, %q", before, again)
	}
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes(lists, later, later); err != nil {
		t.Fatal(err)
	}
	if aptStamp(root) == before {
		t.Error("aptStamp does not notice new lists")
	}
}

func TestFetchUnknown(t *testing.T) {
	cache := Cache{Dir: t.TempDir(), Log: func(string) {}}
	_, err := cache.Fetch(t.Context(), "xnodeos-has-no-such-package")
	if err == nil || !strings.Contains(err.Error(), "xnodeos-has-no-such-package") || !strings.Contains(err.Error(), "apt-get update") {
		t.Errorf("Fetch = %v; want the package's name and the remedy", err)
	}
	_, err = cache.Fetch(t.Context(), "@systemd")
	if err == nil || !strings.Contains(err.Error(), "meta package") {
		t.Errorf("Fetch(@systemd) = %v; want that it is no meta package", err)
	}
}

func TestFetchCancelled(t *testing.T) {
	cache := Cache{Dir: t.TempDir(), Log: func(string) {}}
	unlock, err := cache.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithCancel(t.Context())
	waiting := Cache{Dir: cache.Dir, Log: func(string) { cancel() }}
	if _, err := waiting.Fetch(ctx, "libcap-ng0"); !errors.Is(err, context.Canceled) {
		t.Errorf("Fetch of a locked cache = %v; want context.Canceled", err)
	}
}
