package squashfs

import (
	"strings"
	"testing"
)

func TestLimits(t *testing.T) {
	root := func(children ...*node) *tree {
		tr := &tree{root: &node{kind: typeDir, number: 1}, nodes: 1, sizes: map[int64]int{}}
		for _, c := range children {
			c.parent = tr.root
			if c.host == "" {
				c.host = "/src/" + c.name
			}
		}
		tr.root.children = children
		tr.number(tr.root)
		return tr
	}
	crowd := make([]*node, 16_000_000)
	same := &node{name: strings.Repeat("n", 255), kind: typeSymlink}
	for i := range crowd {
		crowd[i] = same
	}
	for _, c := range []struct {
		name      string
		tree      *tree
		blockSize int
		want      string // in the error; "" for none
	}{
		{"a large file", root(&node{name: "f", kind: typeFile, size: 64 << 40}), DefaultBlockSize, ""},
		{"too many small blocks", root(&node{name: "f", kind: typeFile, size: 8 << 40}), MinBlockSize, `"/src/f"`},
		{"two files together", root(&node{name: "f", kind: typeFile, size: 3 << 40}, &node{name: "g", kind: typeFile, size: 3 << 40}), MinBlockSize, `"/src/g"`},
		{"too long a listing", &tree{root: &node{kind: typeDir, children: crowd}, nodes: 2}, DefaultBlockSize, "listing of 16000000 names"},
		{"too many inodes", &tree{root: &node{kind: typeDir}, nodes: 1 << 32}, DefaultBlockSize, "4294967296 files"},
		{"too many targets", &tree{root: &node{kind: typeDir, children: []*node{{kind: typeSymlink, target: "t"}}}, nodes: 2, links: 200_000_000}, DefaultBlockSize, "inode table"},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := checkLimits(c.tree, c.blockSize)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("checkLimits = %v; want %q", err, c.want)
			}
		})
	}
}
