package squashfs_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"xnodeos.org/imagebuild/squashfs"
)

// TestRandomTrees extracts images of random trees and compares every name,
// mode, link and byte.
func TestRandomTrees(t *testing.T) {
	t.Parallel()
	seeds := 12
	if full() {
		seeds = 60
	}
	sizes := []int{4 << 10, 8 << 10, 64 << 10, 128 << 10, 1 << 20}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			populate(t, dir, uint64(seed), 40+13*(seed%40))
			image, _ := write(t, tree(t, dir), squashfs.Options{BlockSize: sizes[seed%len(sizes)], Workers: 1 + seed%4})
			checkExtracted(t, image, dir)
		})
	}
}

// grower makes random trees.
type grower struct {
	t     *testing.T
	rand  *rand.Rand
	left  int // entries to be made
	known [][]byte
}

// populate fills dir with about that many random entries.
func populate(t *testing.T, dir string, seed uint64, entries int) {
	t.Helper()
	g := &grower{t: t, rand: rand.New(rand.NewPCG(seed, 17)), left: entries}
	t.Cleanup(func() { makeRemovable(dir) })
	for g.left > 0 {
		g.fill(dir, 0)
	}
}

// fill adds a random number of entries to dir: sometimes very many.
func (g *grower) fill(dir string, depth int) {
	count := g.rand.IntN(12)
	if g.rand.IntN(8) == 0 {
		count = 300 + g.rand.IntN(300)
	}
	for range min(count, g.left) {
		path := dir + "/" + g.name()
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		g.left--
		switch g.rand.IntN(10) {
		case 0, 1:
			g.must(os.Mkdir(path, 0o755))
			if depth < 40 {
				g.fill(path, depth+1)
			}
			g.must(os.Chmod(path, []os.FileMode{0o555, 0o755, 0o700, 0o755 | os.ModeSticky}[g.rand.IntN(4)]))
		case 2:
			g.must(os.Symlink(g.name(), path))
		default:
			g.must(os.WriteFile(path, g.content(), 0o600))
			g.must(os.Chmod(path, []os.FileMode{0o444, 0o555, 0o644, 0o400}[g.rand.IntN(4)]))
		}
	}
}

// name returns a file name of any bytes that Linux allows.
func (g *grower) name() string {
	length := 1 + g.rand.IntN(12)
	if g.rand.IntN(30) == 0 {
		length = 255
	}
	name := make([]byte, length)
	for i := range name {
		for name[i] == 0 || name[i] == '/' {
			name[i] = byte(g.rand.IntN(256))
		}
	}
	if s := string(name); s != "." && s != ".." {
		return s
	}
	return "dots"
}

// content returns a file's bytes: of a length that is often near the border of
// a block, random, repetitive, zero in part, or seen before.
func (g *grower) content() []byte {
	if len(g.known) > 0 && g.rand.IntN(5) == 0 {
		again := slices.Clone(g.known[g.rand.IntN(len(g.known))])
		if len(again) > 0 && g.rand.IntN(3) == 0 {
			again[g.rand.IntN(len(again))] ^= 1 // as long, but different
		}
		return again
	}
	size := g.rand.IntN(3000)
	switch g.rand.IntN(6) {
	case 0:
		size = 0
	case 1:
		size = (4<<10)<<g.rand.IntN(7)*(1+g.rand.IntN(3)) + g.rand.IntN(3) - 1
	}
	data := make([]byte, size)
	switch g.rand.IntN(4) {
	case 0: // zeros
	case 1:
		copy(data, noise(g.rand.Uint64(), size))
	case 2:
		copy(data, bytes.Repeat(noise(g.rand.Uint64(), 1+g.rand.IntN(50)), size))
	case 3:
		copy(data[size/2:], noise(g.rand.Uint64(), size/3))
	}
	g.known = append(g.known, data)
	return data
}

func (g *grower) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

// TestDeepNesting writes a chain of folders as deep as a path can name.
func TestDeepNesting(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := dir
	for len(path) < 4000 {
		path += "/d"
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "leaf"), []byte("deep\n"), 0o444); err != nil {
		t.Fatal(err)
	}
	image, stats := write(t, tree(t, dir), squashfs.Options{})
	inside := path[len(dir)+1:] + "/leaf"
	if got := unsquashfs(t, "-cat", image, inside); string(got) != "deep\n" {
		t.Errorf("file below %d folders reads %q", stats.Dirs-1, got)
	}
}
