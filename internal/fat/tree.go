package fat

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"xnodeos.org/internal/disk"
)

const (
	attrVolume = 0x08
	attrDir    = 0x10
	attrFile   = 0x20
	attrLong   = 0x0F
)

// node is a folder or a file of the volume being laid out.
type node struct {
	name     string
	parent   *node
	children []*node // sorted by name; nil for a file
	file     *disk.File
	short    [11]byte
	exact    bool // the short name says it all
	first    uint32
	clusters uint32
}

func buildTree(spec Spec) (*node, error) {
	root := &node{}
	for i := range spec.Files {
		f := &spec.Files[i]
		if f.Size < 0 || f.Size > maxFileSize {
			return nil, fmt.Errorf("file %q: size %d is not within 0 to 4 GiB - 1", f.Name, f.Size)
		}
		if err := root.add(strings.Split(f.Name, "/"), f); err != nil {
			return nil, fmt.Errorf("file %q: %w", f.Name, err)
		}
	}
	for _, d := range root.walk() {
		taken := map[[11]byte]bool{}
		for _, c := range d.children {
			var err error
			if c.short, c.exact, err = shortName(c.name, taken); err != nil {
				return nil, err
			}
		}
		if d.size(d == root) > 65535*direntSize {
			return nil, fmt.Errorf("folder %q: too many entries", d.path())
		}
	}
	return root, nil
}

func (n *node) add(parts []string, f *disk.File) error {
	name := parts[0]
	if err := checkName(name); err != nil {
		return err
	}
	i, found := slices.BinarySearchFunc(n.children, name, func(c *node, name string) int { return strings.Compare(c.name, name) })
	if !found {
		for _, c := range n.children {
			if strings.EqualFold(c.name, name) {
				return fmt.Errorf("name %q differs from %q in case only", name, c.name)
			}
		}
		n.children = slices.Insert(n.children, i, &node{name: name, parent: n})
	}
	c := n.children[i]
	switch {
	case len(parts) > 1 && c.file == nil:
		return c.add(parts[1:], f)
	case !found && len(parts) == 1:
		c.file = f
		return nil
	}
	return fmt.Errorf("%q is named twice, or is both file and folder", name)
}

// walk gives the folder and all below it, parents first.
func (n *node) walk() []*node {
	out := []*node{n}
	for _, c := range n.children {
		if c.file == nil {
			out = append(out, c.walk()...)
		}
	}
	return out
}

// files gives the file nodes in the order of the spec.
func (n *node) files(order []disk.File) []*node {
	byName := map[string]*node{}
	for _, d := range n.walk() {
		for _, c := range d.children {
			if c.file != nil {
				byName[c.file.Name] = c
			}
		}
	}
	out := make([]*node, len(order))
	for i, f := range order {
		out[i] = byName[f.Name]
	}
	return out
}

func (n *node) path() string {
	if n.parent == nil || n.parent.parent == nil {
		return n.name
	}
	return n.parent.path() + "/" + n.name
}

// size is the length of the folder's entries in bytes: label or dots, and
// the children with their long entries.
func (n *node) size(isRoot bool) int64 {
	count := 2
	if isRoot {
		count = 1
	}
	for _, c := range n.children {
		count++
		if !c.exact {
			count += (len(utf16.Encode([]rune(c.name))) + lfnUnits - 1) / lfnUnits
		}
	}
	return int64(count) * direntSize
}

func (n *node) encode(spec Spec) []byte {
	var out []byte
	if n.parent == nil {
		var label [11]byte
		copy(label[:], fmt.Sprintf("%-11s", spec.Label))
		out = append(out, entry(label, attrVolume, 0, 0, spec.Time)...)
	} else {
		up := n.parent.first
		if n.parent.parent == nil {
			up = 0 // the root is named by 0, in FAT32 too
		}
		out = append(out, entry(pad83(".", ""), attrDir, n.first, 0, spec.Time)...)
		out = append(out, entry(pad83("..", ""), attrDir, up, 0, spec.Time)...)
	}
	for _, c := range n.children {
		if !c.exact {
			out = append(out, longEntries(c.name, c.short)...)
		}
		if c.file == nil {
			out = append(out, entry(c.short, attrDir, c.first, 0, spec.Time)...)
			continue
		}
		out = append(out, entry(c.short, attrFile, c.first, uint32(c.file.Size), spec.Time)...)
	}
	return out
}

func entry(short [11]byte, attr byte, first, size uint32, unix int64) []byte {
	e := make([]byte, direntSize)
	le := binary.LittleEndian
	copy(e, short[:])
	e[11] = attr
	date, clock := stamp(unix)
	le.PutUint16(e[14:], clock)
	le.PutUint16(e[16:], date)
	le.PutUint16(e[18:], date)
	le.PutUint16(e[20:], uint16(first>>16))
	le.PutUint16(e[22:], clock)
	le.PutUint16(e[24:], date)
	le.PutUint16(e[26:], uint16(first))
	le.PutUint32(e[28:], size)
	return e
}
