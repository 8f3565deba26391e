package squashfs

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// tree is the walked source, ready to be written.
type tree struct {
	root  *node
	nodes int
	files []*node // in the order in which their content is stored
	dirs  int
	links int
	bytes int64         // sum of the files' sizes
	sizes map[int64]int // how many files have a size
}

// walk reads the names, types and sizes of everything in src.
func walk(ctx context.Context, src Source, workers int) (*tree, error) {
	t := &tree{root: &node{kind: typeDir, perm: rootPerm, number: 1}, nodes: 1, sizes: map[int64]int{}}
	if err := t.root.take(src); err != nil {
		return nil, err
	}
	for level := t.root.unlisted(nil); len(level) > 0; {
		if err := listAll(ctx, level, workers); err != nil {
			return nil, err
		}
		var below []*node
		for _, dir := range level {
			below = dir.unlisted(below)
		}
		level = below
	}
	t.number(t.root)
	return t, nil
}

// take makes the entries of src the children of n.
func (n *node) take(src Source) error {
	for _, e := range src {
		c, err := e.node(n)
		if err != nil {
			return err
		}
		n.children = append(n.children, c)
	}
	slices.SortFunc(n.children, func(a, b *node) int { return strings.Compare(a.name, b.name) })
	for i, c := range n.children {
		if i > 0 && c.name == n.children[i-1].name {
			return fmt.Errorf("two entries of the source are named %q", c.name)
		}
	}
	return nil
}

// node returns what e becomes in the folder parent.
func (e Entry) node(parent *node) (*node, error) {
	if err := checkName(e.Name); err != nil {
		return nil, err
	}
	n := &node{name: e.Name, parent: parent}
	if e.Folder != nil {
		n.kind, n.perm, n.inMemory, n.host = typeDir, rootPerm, true, e.Name
		return n, n.take(e.Folder)
	}
	if e.Path != "" {
		n.host = filepath.Clean(e.Path)
		return n, n.stat(unix.AT_FDCWD, n.host)
	}
	n.kind, n.perm, n.inMemory = typeFile, uint16(e.Mode.Perm()), true
	n.host, n.data, n.size = e.Name, e.Data, int64(len(e.Data))
	if n.perm == 0 {
		n.perm = 0o444
	}
	return n, nil
}

// unlisted appends to list the folders in n whose content the host knows.
func (n *node) unlisted(list []*node) []*node {
	for _, c := range n.children {
		switch {
		case c.kind != typeDir:
		case c.inMemory:
			list = c.unlisted(list)
		default:
			list = append(list, c)
		}
	}
	return list
}

// listAll fills in the children of each folder, several at a time: on a tree
// in the page cache, walking with one core takes as long as it takes two to
// compress a twentieth of it.
func listAll(ctx context.Context, dirs []*node, workers int) error {
	group, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(workers, len(dirs)) {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(dirs) {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := dirs[i].list(); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// number numbers and counts what is below dir. The inodes of a folder get
// neighbouring numbers, as one header of its listing wants them, and its files
// come one after another, so that their tails share fragment blocks.
func (t *tree) number(dir *node) {
	t.dirs++
	for _, c := range dir.children {
		t.nodes++
		c.number = uint32(t.nodes)
		switch c.kind {
		case typeFile:
			t.files = append(t.files, c)
			t.bytes += c.size
			t.sizes[c.size]++
		case typeSymlink:
			t.links++
		}
	}
	for _, c := range dir.children {
		if c.kind == typeDir {
			t.number(c)
		}
	}
}
