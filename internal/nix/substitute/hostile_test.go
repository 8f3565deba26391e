package substitute_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"xnodeos.org/internal/mirror"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/cache"
	"xnodeos.org/internal/nix/narinfo"
	"xnodeos.org/internal/nix/substitute"
	"xnodeos.org/internal/testkit/nixstore"
)

// TestHostile: every attack alone ends in an error that names the cache and its
// fault, with nothing of the lie registered; with an honest cache behind it the
// closure arrives whole. The table is printed.
func TestHostile(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, nixstore.Sample(300<<10)...)
	lines := make([]string, len(attacks()))
	t.Cleanup(func() { // after the subtests
		var out strings.Builder
		w := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "attack\tfound\talone\twith an honest cache behind it")
		for _, line := range lines {
			fmt.Fprintln(w, line)
		}
		w.Flush()
		t.Logf("what a cache tried, and what came of it:\n%s", out.String())
	})
	slots := make(chan struct{}, 4)
	for i, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			t.Parallel()
			slots <- struct{}{}
			defer func() { <-slots }()
			evil := o.serve(t, a.twist(t, o))
			lines[i] = strings.Join([]string{a.name, string(a.kind), a.alone(t, o, evil), a.followed(t, o, evil)}, "\t")
		})
	}
}

// options are those of a test that has not all day.
func (a attack) options(t *testing.T, o *origin, n *node, caches ...*cache.Cache) (substitute.Options, func() map[string]bool) {
	opt := o.options(t, n, caches...)
	opt.Read.Tries = 2
	if a.kind == mirror.Stalled {
		opt.Read.StallTimeout = 1500 * time.Millisecond
	}
	var lock sync.Mutex
	seen := map[string]bool{}
	opt.Read.OnFault = func(name string, f mirror.Fault) {
		lock.Lock()
		defer lock.Unlock()
		seen[name+" "+string(f.Kind)] = true
	}
	return opt, func() map[string]bool { return seen }
}

func (a attack) alone(t *testing.T, o *origin, evil *cache.Cache) string {
	n := newNode(t, o.key)
	opt, seen := a.options(t, o, n, evil)
	_, err := substitute.Run(t.Context(), opt)
	var all *cache.Error
	if !errors.As(err, &all) || !strings.Contains(err.Error(), string(a.kind)) || !strings.Contains(err.Error(), evil.String()) {
		t.Errorf("alone: %v; want a *cache.Error that names the cache and %q", err, a.kind)
	}
	if !seen()[evil.String()+" "+string(a.kind)] {
		t.Errorf("alone: OnFault was told %v; want %q", seen(), a.kind)
	}
	for _, name := range []string{"big", "system"} {
		if n.valid(t, name) {
			t.Errorf("alone: %s is in the store", name)
			return "REGISTERED"
		}
	}
	if err := n.store.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	return "refused, nothing registered"
}

func (a attack) followed(t *testing.T, o *origin, evil *cache.Cache) string {
	n := newNode(t, o.key)
	opt, seen := a.options(t, o, n, evil, o.folder(t))
	run(t, o, n, opt)
	if !seen()[evil.String()+" "+string(a.kind)] {
		t.Errorf("followed: OnFault was told %v; want %q", seen(), a.kind)
	}
	if t.Failed() {
		return "FAILED"
	}
	return "whole, from the honest one"
}

// TestDaemonIsTheSecondCheck: with the first check of signatures left out, the
// daemon refuses what is unsigned from a user without rights, and the next
// cache is asked.
func TestDaemonIsTheSecondCheck(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, nixstore.Sample(1000)...)
	evil := o.serve(t, says(o, t, nil, func(i *narinfo.Info) { i.Sigs = nil }))
	n := newNode(t, o.key)
	opt := o.options(t, n, evil)
	opt.Read.Keys = nil
	_, err := substitute.Run(t.Context(), opt)
	if err == nil || !strings.Contains(err.Error(), string(cache.Unsigned)) || n.valid(t, "big") {
		t.Errorf("Run = %v; want the daemon's refusal", err)
	}
	opt.Caches = append(opt.Caches, o.folder(t))
	run(t, o, n, opt)
}

// TestReleaseIsWrong: what the release itself names badly is nobody's fault but
// its own, and brings nothing in.
func TestReleaseIsWrong(t *testing.T) {
	t.Parallel()
	o := newOrigin(t, nixstore.Sample(1000)...)
	n := newNode(t, o.key)
	opt := o.options(t, n, o.folder(t))
	opt.System = nix.StorePath(nixstore.PathOf("other"))
	if _, err := substitute.Run(t.Context(), opt); !errors.Is(err, substitute.ErrNoSystem) {
		t.Errorf("a list without the system: %v; want ErrNoSystem", err)
	}

	circle := []nix.PathInfo{o.want("lib"), o.want("tool"), o.want("system")}
	circle[0].References = []string{circle[1].Path}
	circle[1].References = []string{circle[0].Path}
	circle[2].References = []string{}
	o.putList(t, circle)
	opt = o.options(t, n, o.folder(t))
	if _, err := substitute.Run(t.Context(), opt); err == nil || !strings.Contains(err.Error(), "circle") {
		t.Errorf("a list with a circle: %v", err)
	}

	// A NAR that leads out of its path, named and signed by the release.
	data := append(word("nix-archive-1"), bytes.Join([][]byte{
		word("("), word("type"), word("directory"), word("entry"), word("("), word("name"), word("../../escaped"), word("node"),
		word("("), word("type"), word("regular"), word("contents"), word("x"), word(")"), word(")"), word(")"),
	}, nil)...)
	bad := nix.PathInfo{Path: nixstore.PathOf("system"), NarHash: nix.HashOf(data), NarSize: int64(len(data)), References: []string{}}
	info := &narinfo.Info{
		Path: nix.StorePath(bad.Path), URL: "nar/escape.nar", Compression: narinfo.None, NarHash: bad.NarHash, NarSize: bad.NarSize,
		Sigs: []narinfo.Signature{narinfo.Sign(bad, o.key)},
	}
	for name, text := range map[string][]byte{"nar/escape.nar": data, narinfo.Name(info.Path): info.Encode()} {
		if err := os.WriteFile(filepath.Join(o.dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	o.putList(t, []nix.PathInfo{bad})
	if _, err := substitute.Run(t.Context(), o.options(t, n, o.folder(t))); err == nil || n.valid(t, "system") {
		t.Errorf("a NAR that leads out of its path: %v", err)
	}
	for _, dir := range []string{n.store.Physical("/nix/store"), n.store.Physical("/nix"), n.store.Physical("/")} {
		if _, err := os.Lstat(filepath.Join(dir, "escaped")); err == nil {
			t.Errorf("it was written to %s", dir)
		}
	}
}

// putList makes a list the one that the release names.
func (o *origin) putList(t *testing.T, infos []nix.PathInfo) {
	t.Helper()
	list, err := nix.NewClosureList(infos)
	if err != nil {
		t.Fatal(err)
	}
	o.list = list
	digest, err := nix.ParseHash(list.Digest())
	if err == nil {
		err = os.WriteFile(filepath.Join(o.dir, cache.ListName(digest)), list.Encode(), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
