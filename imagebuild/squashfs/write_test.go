package squashfs_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/imagebuild/squashfs"
)

// noise returns n bytes that do not compress, different for each seed.
func noise(seed uint64, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		seed = seed*6364136223846793005 + 1442695040888963407
		b[i] = byte(seed >> 56)
	}
	return b
}

// sample makes a small tree with one of everything.
func sample(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	put(t, dir, "store/a-prog/bin/prog", bytes.Repeat([]byte("code "), 60000), 0o555)
	put(t, dir, "store/a-prog/share/empty", nil, 0o444)
	put(t, dir, "store/a-prog/share/doc", []byte("the same text\n"), 0o444)
	put(t, dir, "store/b-prog/share/doc", []byte("the same text\n"), 0o444)
	put(t, dir, "store/b-prog/bin/prog", bytes.Repeat([]byte("code "), 60000), 0o555)
	put(t, dir, "store/suid", []byte("x"), 0o755|fs.ModeSetuid)
	put(t, dir, "zeros", make([]byte, 3*128<<10+5), 0o644)
	put(t, dir, "noise", noise(1, 300000), 0o644)
	for name, target := range map[string]string{"store/link": "a-prog/bin/prog", "store/dangling": "/nowhere/\xff"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "void"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"store/b-prog/share", "void"} {
		if err := os.Chmod(filepath.Join(dir, name), 0o555); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { makeRemovable(dir) })
	return dir
}

func TestListing(t *testing.T) {
	image, stats := write(t, append(tree(t, sample(t)),
		squashfs.Entry{Name: "registration", Data: []byte("in memory\n")},
		squashfs.Entry{Name: "script", Data: []byte("#!/bin/sh\n"), Mode: 0o755}), squashfs.Options{})
	want := strings.TrimPrefix(`
drwxr-xr-x 0/0 100 1970-01-01 00:00
-rw-r--r-- 0/0 300000 1970-01-01 00:00 /noise
-r--r--r-- 0/0 10 1970-01-01 00:00 /registration
-rwxr-xr-x 0/0 10 1970-01-01 00:00 /script
drwxr-xr-x 0/0 83 1970-01-01 00:00 /store
drwxr-xr-x 0/0 39 1970-01-01 00:00 /store/a-prog
drwxr-xr-x 0/0 27 1970-01-01 00:00 /store/a-prog/bin
-r-xr-xr-x 0/0 300000 1970-01-01 00:00 /store/a-prog/bin/prog
drwxr-xr-x 0/0 39 1970-01-01 00:00 /store/a-prog/share
-r--r--r-- 0/0 14 1970-01-01 00:00 /store/a-prog/share/doc
-r--r--r-- 0/0 0 1970-01-01 00:00 /store/a-prog/share/empty
drwxr-xr-x 0/0 39 1970-01-01 00:00 /store/b-prog
drwxr-xr-x 0/0 27 1970-01-01 00:00 /store/b-prog/bin
-r-xr-xr-x 0/0 300000 1970-01-01 00:00 /store/b-prog/bin/prog
dr-xr-xr-x 0/0 26 1970-01-01 00:00 /store/b-prog/share
-r--r--r-- 0/0 14 1970-01-01 00:00 /store/b-prog/share/doc
lrwxrwxrwx 0/0 10 1970-01-01 00:00 /store/dangling -> /nowhere/`+"\xff"+`
lrwxrwxrwx 0/0 15 1970-01-01 00:00 /store/link -> a-prog/bin/prog
-rwsr-xr-x 0/0 1 1970-01-01 00:00 /store/suid
dr-xr-xr-x 0/0 3 1970-01-01 00:00 /void
-rw-r--r-- 0/0 393221 1970-01-01 00:00 /zeros
`, "\n")
	var got strings.Builder
	for line := range strings.Lines(string(unsquashfs(t, "-llnumeric", "-dest", "", image))) {
		got.WriteString(strings.Join(strings.Fields(line), " ") + "\n")
	}
	if diff := cmp.Diff(want, got.String()); diff != "" {
		t.Errorf("listing differs (-want +got):\n%s", diff)
	}
	wantStats := squashfs.Stats{
		Size: stats.Size, Inodes: 21, Files: 10, Dirs: 9, Symlinks: 2,
		ContentBytes: 1293270, Duplicates: 2, DuplicateBytes: 300014, Blocks: 5, Fragments: 1,
	}
	if diff := cmp.Diff(wantStats, stats); diff != "" {
		t.Errorf("Stats differ (-want +got):\n%s", diff)
	}
}

func TestExtract(t *testing.T) {
	dir := sample(t)
	for _, level := range []squashfs.Level{squashfs.LevelDefault, squashfs.LevelFastest, squashfs.LevelBetter, squashfs.LevelBest} {
		for _, size := range []int{0, squashfs.MinBlockSize, squashfs.MaxBlockSize} {
			t.Run(fmt.Sprintf("%v/%d", level, size), func(t *testing.T) {
				image, _ := write(t, tree(t, dir), squashfs.Options{Level: level, BlockSize: size})
				checkExtracted(t, image, dir)
			})
		}
	}
}

func TestSmallTrees(t *testing.T) {
	for name, src := range map[string]squashfs.Source{
		"nothing":        {},
		"one empty file": {{Name: "empty"}},
		"one byte":       {{Name: "byte", Data: []byte("x")}},
		"no tail":        {{Name: "block", Data: noise(2, 128<<10)}},
		"zeros only":     {{Name: "zeros", Data: make([]byte, 256<<10)}},
	} {
		t.Run(name, func(t *testing.T) {
			image, _ := write(t, src, squashfs.Options{})
			dir := extract(t, image)
			if got := len(snapshot(t, dir)); got != len(src) {
				t.Fatalf("image has %d entries, want %d", got, len(src))
			}
			for _, e := range src {
				if data, err := os.ReadFile(filepath.Join(dir, e.Name)); err != nil || !bytes.Equal(data, e.Data) {
					t.Errorf("%s: got %d bytes, %v; want %d", e.Name, len(data), err, len(e.Data))
				}
			}
		})
	}
}

func TestIdenticalFilesOnce(t *testing.T) {
	body := noise(3, 2<<20) // too large to be read ahead
	dir := t.TempDir()
	for _, name := range []string{"a", "b", "sub/c"} {
		put(t, dir, name, body, 0o444)
	}
	other := slices.Clone(body)
	other[len(other)-1]++ // as long, and different at its end
	put(t, dir, "d", other, 0o444)
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "linked")); err != nil {
		t.Fatal(err)
	}
	src := append(tree(t, dir), squashfs.Entry{Name: "z", Data: body})
	image, stats := write(t, src, squashfs.Options{})
	if stats.Duplicates != 4 || stats.DuplicateBytes != 4*int64(len(body)) {
		t.Errorf("Duplicates = %d (%d bytes), want 4 (%d)", stats.Duplicates, stats.DuplicateBytes, 4*len(body))
	}
	if limit := int64(2*len(body) + 64<<10); stats.Size > limit {
		t.Errorf("image has %d bytes, want at most %d", stats.Size, limit)
	}
	put(t, dir, "z", body, 0o444)
	checkExtracted(t, image, dir)
}

func TestDeterministic(t *testing.T) {
	dir := t.TempDir()
	populate(t, dir, 11, 250)
	want := hashOf(t.Context(), t, tree(t, dir), squashfs.Options{Workers: 1})
	for _, workers := range []int{1, 2, 3, 16} {
		if got := hashOf(t.Context(), t, tree(t, dir), squashfs.Options{Workers: workers}); got != want {
			t.Errorf("%d workers write another image than one", workers)
		}
	}
	old := runtime.GOMAXPROCS(1)
	got := hashOf(t.Context(), t, tree(t, dir), squashfs.Options{})
	runtime.GOMAXPROCS(old)
	if got != want {
		t.Error("GOMAXPROCS=1 gives another image")
	}
	backwards := tree(t, dir)
	slices.Reverse(backwards)
	if hashOf(t.Context(), t, backwards, squashfs.Options{}) != want {
		t.Error("the order of the source changes the image")
	}
	if hashOf(t.Context(), t, tree(t, copyBackwards(t, dir)), squashfs.Options{}) != want {
		t.Error("a copy of the tree, made in another order, gives another image")
	}
	if hashOf(t.Context(), t, tree(t, dir), squashfs.Options{MTime: 2}) == want {
		t.Error("MTime does not change the image")
	}
}

// copyBackwards copies a tree, the last name first, so that the copy's folders
// list their names in another order and its files have other times.
func copyBackwards(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	var paths []string
	if err := filepath.WalkDir(from, func(path string, _ fs.DirEntry, err error) error {
		paths = append(paths, path)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var err error
	note := func(e error) {
		if err == nil {
			err = e
		}
	}
	t.Cleanup(func() { makeRemovable(to) })
	var dirs []string
	for _, path := range slices.Backward(paths) {
		info, e := os.Lstat(path)
		note(e)
		dest := to + strings.TrimPrefix(path, from)
		note(os.MkdirAll(filepath.Dir(dest), 0o755))
		switch {
		case info.IsDir():
			note(os.MkdirAll(dest, 0o755))
			dirs = append(dirs, path)
		case info.Mode().IsRegular():
			data, e := os.ReadFile(path)
			note(e)
			note(os.WriteFile(dest, data, 0o644))
			note(os.Chmod(dest, info.Mode()))
		default:
			target, e := os.Readlink(path)
			note(e)
			note(os.Symlink(target, dest))
		}
	}
	for _, path := range dirs {
		info, e := os.Stat(path)
		note(e)
		note(os.Chmod(to+strings.TrimPrefix(path, from), info.Mode()))
	}
	if err != nil {
		t.Fatal(err)
	}
	return to
}
