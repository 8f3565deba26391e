package nix_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/nix"
)

func paths(infos []nix.PathInfo) []string {
	var got []string
	for _, info := range infos {
		got = append(got, info.Path)
	}
	return got
}

func sortedLines(text string) []string {
	lines := strings.Fields(text)
	slices.Sort(lines)
	return lines
}

func TestClosureAgreesWithNix(t *testing.T) {
	t.Parallel()
	n := newRealNix(t)
	root := n.build(t, "b")
	want := sortedLines(n.run(t, "nix-store", "-qR", root))
	if len(want) != 5 {
		t.Fatalf("nix-store -qR gave %d paths; the expression has 5: %v", len(want), want)
	}
	infos, err := n.store.Closure(t.Context(), n.database(), root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, paths(infos)); diff != "" {
		t.Errorf("closure from the database (-nix +ours):\n%s", diff)
	}
	for _, info := range infos {
		if diff := cmp.Diff(sortedLines(n.run(t, "nix-store", "-q", "--references", info.Path)), info.References, cmpEmpty); diff != "" {
			t.Errorf("references of %s (-nix +ours):\n%s", info.Path, diff)
		}
		if got, want := info.NarHash.Base32(), n.run(t, "nix-store", "-q", "--hash", info.Path); got != want {
			t.Errorf("NAR hash of %s = %s; want %s", info.Path, got, want)
		}
	}
}

// cmpEmpty takes nil and empty for equal.
var cmpEmpty = cmp.Transformer("empty", func(s []string) []string { return append([]string{}, s...) })

// TestClosureByScanning: without the database everything is found that the
// bytes tell, and only the reference that no byte tells is not.
func TestClosureByScanning(t *testing.T) {
	t.Parallel()
	n := newRealNix(t)
	root := n.build(t, "b")
	registered, err := n.store.Closure(t.Context(), n.database(), root)
	if err != nil {
		t.Fatal(err)
	}
	hidden := func(path string) bool { return strings.HasSuffix(path, "-hidden") }
	var want []nix.PathInfo
	for _, info := range registered {
		if !hidden(info.Path) {
			info.References = slices.DeleteFunc(slices.Clone(info.References), hidden)
			want = append(want, info)
		}
	}
	var read atomic.Int64
	for _, workers := range []int{1, 4} {
		read.Store(0)
		opt := nix.ClosureOptions{Workers: workers, Progress: func(b int64) { read.Add(b) }}
		got, err := n.store.Closure(t.Context(), opt, root)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpEmpty); diff != "" {
			t.Errorf("%d workers (-registered +scanned):\n%s", workers, diff)
		}
		sum := int64(0)
		for _, info := range got {
			sum += info.NarSize
		}
		if read.Load() != sum {
			t.Errorf("Progress told of %d bytes; the NARs have %d", read.Load(), sum)
		}
	}
}

// TestUnrelatedTextStaysOut: a source that quotes the path of something else
// in the store has no reference to it, as Nix says.
func TestUnrelatedTextStaysOut(t *testing.T) {
	t.Parallel()
	n := newRealNix(t)
	n.build(t, "a")
	other := find(t, n.store, "lib-text")
	file := filepath.Join(t.TempDir(), "quotes")
	writeFile(t, file, "see "+other+"\n")
	root := n.run(t, "nix-store", "--add", file)
	for _, tt := range []struct {
		name string
		opt  nix.ClosureOptions
		want []string
	}{
		{"database", n.database(), []string{root}},
		{"scanning", nix.ClosureOptions{}, sortedLines(root + " " + other)},
		{"scanning among candidates", nix.ClosureOptions{Candidates: []nix.StorePath{nix.StorePath(root)}}, []string{root}},
	} {
		got, err := n.store.Closure(t.Context(), tt.opt, root)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, paths(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// open makes a path of the store writable for the test's own vandalism.
func open(t *testing.T, path string) {
	t.Helper()
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type()&fs.ModeSymlink == 0 {
			return os.Chmod(p, 0o700)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func find(t *testing.T, store nix.Store, name string) string {
	t.Helper()
	all, err := store.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Name() == name {
			return string(p)
		}
	}
	t.Fatalf("no store path is called %q", name)
	return ""
}

func TestMissingPath(t *testing.T) {
	t.Parallel()
	n := newRealNix(t)
	root := n.build(t, "b")
	lib, a := find(t, n.store, "lib-text"), find(t, n.store, "a")
	if err := os.Remove(n.store.Physical(lib)); err != nil {
		t.Fatal(err)
	}
	trusting := n.database()
	trusting.TrustDatabase = true
	for name, opt := range map[string]nix.ClosureOptions{"database": n.database(), "trusted": trusting, "scanning": {}} {
		_, err := n.store.Closure(t.Context(), opt, root)
		var missing *nix.MissingError
		if !errors.As(err, &missing) || string(missing.Path) != lib || string(missing.Referrer) != a {
			t.Errorf("%s: Closure = %v; want %s missing, referred to by %s", name, err, lib, a)
			continue
		}
		for _, part := range []string{lib, a, "--realise", n.store.Dir} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", name, err, part)
			}
		}
	}
}

func TestChangedPath(t *testing.T) {
	t.Parallel()
	n := newRealNix(t)
	root := n.build(t, "b")
	a := find(t, n.store, "a")
	open(t, n.store.Physical(a))
	writeFile(t, n.store.Physical(a)+"/empty", "not any more")
	_, err := n.store.Closure(t.Context(), n.database(), root)
	var changed *nix.ChangedError
	if !errors.As(err, &changed) || string(changed.Path) != a || !strings.Contains(err.Error(), "--repair-path "+a) {
		t.Errorf("Closure = %v; want a ChangedError for %s with a remedy", err, a)
	}
	trusting := n.database()
	trusting.TrustDatabase = true
	if _, err := n.store.Closure(t.Context(), trusting, root); err != nil {
		t.Errorf("Closure with TrustDatabase = %v; want no reading", err)
	}
}

func TestForeignNodeInPath(t *testing.T) {
	t.Parallel()
	n := newRealNix(t)
	root := n.build(t, "a")
	open(t, n.store.Physical(root))
	if err := os.Symlink("loop", n.store.Physical(root)+"/loop"); err != nil { // a link to itself is fine
		t.Fatal(err)
	}
	if _, err := n.store.Closure(t.Context(), nix.ClosureOptions{}, root); err != nil {
		t.Errorf("Closure with a dangling link = %v", err)
	}
	mkfifo(t, n.store.Physical(root)+"/pipe")
	_, err := n.store.Closure(t.Context(), nix.ClosureOptions{}, root)
	if err == nil || !strings.Contains(err.Error(), "named pipe") || !strings.Contains(err.Error(), root) {
		t.Errorf("Closure with a named pipe = %v; want it named", err)
	}
}

func TestUnregisteredRoot(t *testing.T) {
	t.Parallel()
	n := newRealNix(t)
	n.build(t, "a")
	none := "/nix/store/" + strings.Repeat("0", 32) + "-none"
	for name, opt := range map[string]nix.ClosureOptions{"database": n.database(), "scanning": {}} {
		_, err := n.store.Closure(t.Context(), opt, none)
		if err == nil || !strings.Contains(err.Error(), none) || !strings.Contains(err.Error(), "--realise") {
			t.Errorf("%s: Closure = %v; want the path and a remedy", name, err)
		}
	}
}

func TestNoDatabase(t *testing.T) {
	t.Parallel()
	n := newRealNix(t)
	root := n.build(t, "b")
	noProgram := nix.Database{Store: n.store, Program: "no-such-nix-store"}
	plain := nix.Store{Dir: t.TempDir()}
	copyTree(t, n.store.Physical(nix.StoreDir), plain.Physical(nix.StoreDir))
	noFile := nix.Database{Store: plain, Env: n.env}
	for name, tt := range map[string]struct {
		store nix.Store
		db    nix.Database
	}{"no program": {n.store, noProgram}, "no database file": {plain, noFile}} {
		var notes []string
		opt := nix.ClosureOptions{Database: tt.db.Closure, Note: func(text string) { notes = append(notes, text) }}
		got, err := tt.store.Closure(t.Context(), opt, root)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if len(got) != 4 {
			t.Errorf("%s: %v; want the 4 paths that scanning finds", name, paths(got))
		}
		if len(notes) != 1 || !strings.Contains(notes[0], "no Nix database") {
			t.Errorf("%s: notes = %q; want one about the database", name, notes)
		}
	}
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

func TestClosureIsCancelled(t *testing.T) {
	t.Parallel()
	n := newRealNix(t)
	root := n.build(t, "b")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for name, opt := range map[string]nix.ClosureOptions{"database": n.database(), "scanning": {}} {
		if _, err := n.store.Closure(ctx, opt, root); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Closure = %v; want context.Canceled", name, err)
		}
	}
}

// TestRegistration: a plain copy of the files plus our registration is a store
// that Nix finds nothing wrong with.
func TestRegistration(t *testing.T) {
	t.Parallel()
	n := newRealNix(t)
	root := n.build(t, "b")
	infos, err := n.store.Closure(t.Context(), n.database(), root)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	if err := nix.WriteRegistration(&text, infos); err != nil {
		t.Fatal(err)
	}
	back, err := nix.ReadRegistration(strings.NewReader(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(infos, back, cmpEmpty); diff != "" {
		t.Errorf("ReadRegistration(WriteRegistration) (-want +got):\n%s", diff)
	}

	other := newRealNix(t)
	for _, info := range infos {
		unpackFrom(t, n.store.Physical(info.Path), other.store.Physical(info.Path))
	}
	load := filepath.Join(t.TempDir(), "registration")
	writeFile(t, load, text.String())
	other.loadDB(t, load)
	other.run(t, "nix-store", "--verify", "--check-contents")
	if got, want := sortedLines(other.run(t, "nix-store", "-qR", root)), paths(infos); !slices.Equal(got, want) {
		t.Errorf("closure in the new store = %v; want %v", got, want)
	}
	again, err := other.store.Closure(t.Context(), other.database(), root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(infos, again, cmpEmpty); diff != "" {
		t.Errorf("closure of the new store (-old +new):\n%s", diff)
	}
}
