package substitute_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/cache"
	"xnodeos.org/internal/nix/substitute"
	"xnodeos.org/internal/testkit/nixstore"
)

// run brings the closure and checks that the store has it as it should be.
func run(t *testing.T, o *origin, n *node, opt substitute.Options) *substitute.Result {
	t.Helper()
	result, err := substitute.Run(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { result.Close() })
	got, err := n.store.List(t.Context(), "system")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(o.list, got); diff != "" {
		t.Errorf("what the store has (-want +got):\n%s", diff)
	}
	if err := n.store.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	return result
}

// TestSubstitute: from a folder and over HTTP, everything, then nothing, then
// only what is missing.
func TestSubstitute(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	for name, c := range map[string]*cache.Cache{"folder": o.folder(t), "http": o.serve(t, nil)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t, o.key)
			opt := o.options(t, n, c)
			var last substitute.Progress
			opt.Progress = func(p substitute.Progress) { last = p }
			result := run(t, o, n, opt)
			if result.Missing != len(o.list.Paths) || result.Bytes != o.list.NarSize() {
				t.Errorf("Run = %+v", result)
			}
			if want := (substitute.Progress{Paths: result.Missing, TotalPaths: result.Missing, Bytes: result.Bytes, TotalBytes: result.Bytes}); last != want {
				t.Errorf("Progress = %+v; want %+v", last, want)
			}
			n.store.MustRun(t, "nix-store", "--gc") // the result holds it all
			if again := run(t, o, n, opt); again.Missing != 0 {
				t.Errorf("the second time %d paths were missing", again.Missing)
			} else {
				again.Close()
			}
			result.Close()
			n.store.MustRun(t, "nix-store", "--delete", nixstore.PathOf("system"))
			if again := run(t, o, n, opt); again.Missing != 1 {
				t.Errorf("%d paths were missing; want 1", again.Missing)
			}
		})
	}
}

// TestCompressions: caches that Nix itself wrote, in every compression that we read.
func TestCompressions(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	secret := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(secret, o.key.Secret(), 0o600); err != nil {
		t.Fatal(err)
	}
	lists := filepath.Join(o.dir, "closures")
	for _, kind := range []string{"none", "xz", "zstd", "zstd&compression-level=19", "zstd&parallel-compression=true"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "cache")
			o.store.MustRun(t, "nix", "copy", "--to", "file://"+dir+"?secret-key="+secret+"&compression="+kind, nixstore.PathOf("system"))
			if err := os.CopyFS(filepath.Join(dir, "closures"), os.DirFS(lists)); err != nil {
				t.Fatal(err)
			}
			c, err := cache.Open(dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			n := newNode(t, o.key)
			run(t, o, n, o.options(t, n, c))
		})
	}
}

// TestRoot: the indirect root holds the closure after the connection is gone,
// until the symlink is.
func TestRoot(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	n := newNode(t, o.key)
	opt := o.options(t, n, o.folder(t))
	opt.Root = filepath.Join(t.TempDir(), "candidate")
	for range 2 { // the second time the symlink is there already
		run(t, o, n, opt).Close()
		n.store.MustRun(t, "nix-store", "--gc")
		if !n.valid(t, "lib") || !n.valid(t, "system") {
			t.Error("the root did not hold")
		}
	}
	if err := os.Remove(opt.Root); err != nil {
		t.Fatal(err)
	}
	n.store.MustRun(t, "nix-store", "--gc")
	if n.valid(t, "lib") {
		t.Error("the closure outlived its root")
	}
}

// TestKeep: what was fetched is kept as a cache of its own, from which another
// store, the next boot's, gets everything without a network; pruning keeps what
// the lists need.
func TestKeep(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	keep := filepath.Join(t.TempDir(), "keep")
	first := newNode(t, o.key)
	opt := o.options(t, first, o.serve(t, nil))
	opt.Keep = keep
	if result := run(t, o, first, opt); result.KeepErr != nil {
		t.Fatal(result.KeepErr)
	}
	second := newNode(t, o.key)
	opt = o.options(t, second) // no caches
	opt.Keep = keep
	run(t, o, second, opt)
	third := nixstore.New(t, "") // Nix reads it as well
	third.MustRun(t, "nix", "copy", "--from", "file://"+keep, "--option", "trusted-public-keys", o.key.Public(), nixstore.PathOf("system"))

	if err := os.WriteFile(filepath.Join(keep, "nar", ".left.tmp"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if freed, err := cache.Prune(keep, o.list); freed != 1 || err != nil {
		t.Errorf("Prune freed %d bytes, %v; want only the file of a killed writer", freed, err)
	}
	small, err := nix.NewClosureList([]nix.PathInfo{o.want("lib")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Prune(keep, small); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(keep, "*", "*"))
	if err != nil || len(names) != 1 {
		t.Errorf("after pruning to one path there are %q, %v", names, err)
	}
}

// TestKeepFailure: a folder that cannot keep is told, and stops nothing.
func TestKeepFailure(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	n := newNode(t, o.key)
	opt := o.options(t, n, o.folder(t))
	opt.Keep = filepath.Join(t.TempDir(), "keep")
	if err := os.MkdirAll(filepath.Join(opt.Keep, "nar"), 0o755); err != nil {
		t.Fatal(err)
	}
	sum := o.want("big").NarHash
	if err := os.Mkdir(filepath.Join(opt.Keep, "nar", nix.EncodeBase32(sum[:])+".nar.zst"), 0o755); err != nil { // in the way
		t.Fatal(err)
	}
	if result := run(t, o, n, opt); result.KeepErr == nil || !strings.Contains(result.KeepErr.Error(), "big") {
		t.Errorf("KeepErr = %v; want one about the path that could not be kept", result.KeepErr)
	}
}

// TestResume: a server that cuts every connection after some bytes serves a
// large NAR all the same, at whatever byte it cuts.
func TestResume(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	var cuts, ranges atomic.Int32
	c := o.serve(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/nar/") {
			return false
		}
		if r.Header.Get("Range") != "" {
			ranges.Add(1)
		}
		http.ServeFile(&cutter{ResponseWriter: w, left: 70001 + 13*int(cuts.Add(1))}, r, filepath.Join(o.dir, r.URL.Path))
		return true
	})
	n := newNode(t, o.key)
	run(t, o, n, o.options(t, n, c))
	if ranges.Load() < 5 {
		t.Errorf("%d requests with Range", ranges.Load())
	}
}

// cutter breaks the connection after so many bytes of a body.
type cutter struct {
	http.ResponseWriter

	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	n, err := c.ResponseWriter.Write(p[:min(len(p), c.left)])
	if c.left -= n; c.left == 0 {
		panic(http.ErrAbortHandler)
	}
	return n, err
}

// TestAnotherCacheContinues: a NAR that one cache begins and never ends is
// continued by the next one, in another compression.
func TestAnotherCacheContinues(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	broken := o.serve(t, func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, ".nar") || r.Header.Get("Range") == "" && !strings.HasPrefix(r.URL.Path, "/nar/") {
			return false
		}
		if r.Header.Get("Range") != "" {
			http.Error(w, "later", http.StatusServiceUnavailable)
			return true
		}
		http.ServeFile(&cutter{ResponseWriter: w, left: 200000}, r, filepath.Join(o.dir, r.URL.Path))
		return true
	})
	dir := filepath.Join(t.TempDir(), "plain")
	secret := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(secret, o.key.Secret(), 0o600); err != nil {
		t.Fatal(err)
	}
	o.store.MustRun(t, "nix", "copy", "--to", "file://"+dir+"?secret-key="+secret+"&compression=none", nixstore.PathOf("system"))
	plain := &origin{store: o.store, list: o.list, key: o.key, dir: dir}
	n := newNode(t, o.key)
	result := run(t, o, n, o.options(t, n, broken, plain.serve(t, nil)))
	if text := fmt.Sprint(result.Reports); !strings.Contains(text, "busy") || strings.Contains(text, "wrong bytes") {
		t.Errorf("Reports = %s", text)
	}
}

func TestNoRoom(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	n := newNode(t, o.key)
	var nars atomic.Int32
	opt := o.options(t, n, o.serve(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasPrefix(r.URL.Path, "/nar/") {
			nars.Add(1)
		}
		return false
	}))
	opt.Free = func() (int64, error) { return o.list.NarSize(), nil }
	_, err := substitute.Run(t.Context(), opt)
	var space *substitute.SpaceError
	if !errors.As(err, &space) || space.Need <= o.list.NarSize() || space.Paths != len(o.list.Paths) || !strings.Contains(err.Error(), "nix-collect-garbage") {
		t.Errorf("Run = %v; want a *SpaceError", err)
	}
	if nars.Load() > 0 {
		t.Errorf("%d NARs were asked for", nars.Load())
	}
}

// TestStoreHasOtherBytes: a path that was built here with another result is
// told, not taken for the release's.
func TestStoreHasOtherBytes(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	n := newNode(t, o.key)
	if err := n.store.Add(t.Context(), nixstore.Path{Name: "lib", Files: map[string]string{"": "built here\n"}}); err != nil {
		t.Fatal(err)
	}
	_, err := substitute.Run(t.Context(), o.options(t, n, o.folder(t)))
	var different *substitute.DifferentError
	if !errors.As(err, &different) || string(different.Path) != nixstore.PathOf("lib") {
		t.Errorf("Run = %v; want a *DifferentError", err)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	o := newOrigin(t)
	n := newNode(t, o.key)
	ctx, cancel := context.WithCancel(t.Context())
	opt := o.options(t, n, o.serve(t, func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.HasPrefix(r.URL.Path, "/nar/") {
			return false
		}
		cancel()
		<-r.Context().Done()
		return true
	}))
	if _, err := substitute.Run(ctx, opt); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v; want context.Canceled", err)
	}
}

// TestMany: a wide and deep closure, many more paths than work at a time.
func TestMany(t *testing.T) {
	t.Parallel()
	var paths []nixstore.Path
	var names []string
	for i := range 150 {
		p := nixstore.Path{Name: fmt.Sprintf("p%d", i), Files: map[string]string{"x": strings.Repeat(fmt.Sprint(i), 1+i*i%5000)}}
		if i > 0 {
			p.Refs = []string{fmt.Sprintf("p%d", i/2)}
		}
		if i > 100 {
			p.Refs = append(p.Refs, fmt.Sprintf("p%d", i-1)) // a chain
		}
		names = append(names, p.Name)
		paths = append(paths, p)
	}
	o := newOrigin(t, append(paths, nixstore.Path{Name: "system", Files: map[string]string{"x": "y"}, Refs: names})...)
	n := newNode(t, o.key)
	run(t, o, n, o.options(t, n, o.serve(t, nil)))
}
