package iso

import (
	"fmt"
	"slices"
	"strings"
)

const (
	maxDepth = 8   // ECMA-119 6.8.2.1
	maxName  = 100 // a record of 255 bytes holds no more beside Rock Ridge's fields
	maxPlain = 30  // level 2: name and extension together (7.5.1)
)

// extent is a run of bytes that starts at a sector.
type extent struct {
	sector uint32
	size   uint32
}

// entry is a folder or a file of the volume being laid out.
type entry struct {
	name     string // Rock Ridge
	plain    string // ISO 9660, with ";1" for a file
	parent   *entry
	children []*entry // sorted by plain; nil for a file
	dir      bool
	size     int64 // of a file
	number   int   // of a folder, in the path table
	extents  []extent
}

// newTree makes the folders for names; every name becomes a file entry.
func newTree(names []string) (*entry, map[string]*entry, error) {
	root := &entry{dir: true, plain: "\x00"}
	root.parent = root
	files := map[string]*entry{}
	for _, name := range names {
		e, err := root.add(strings.Split(name, "/"), 1)
		if err != nil {
			return nil, nil, fmt.Errorf("file %q: %w", name, err)
		}
		files[name] = e
	}
	return root, files, nil
}

func (e *entry) add(parts []string, depth int) (*entry, error) {
	name, isDir := parts[0], len(parts) > 1
	plain, err := plainName(name, isDir)
	if err != nil {
		return nil, err
	}
	if isDir && depth >= maxDepth {
		return nil, fmt.Errorf("more than %d folders deep", maxDepth)
	}
	i, found := slices.BinarySearchFunc(e.children, plain, func(c *entry, plain string) int { return comparePlain(c.plain, plain) })
	if found {
		c := e.children[i]
		if c.name != name || !c.dir || !isDir {
			return nil, fmt.Errorf("%q and %q have the same ISO 9660 name %q", c.name, name, plain)
		}
		return c.add(parts[1:], depth+1)
	}
	c := &entry{name: name, plain: plain, parent: e, dir: isDir}
	e.children = slices.Insert(e.children, i, c)
	if isDir {
		return c.add(parts[1:], depth+1)
	}
	return c, nil
}

// plainName is the name in plain ISO 9660 level 2: upper case, digits, "_",
// one dot.
func plainName(name string, isDir bool) (string, error) {
	if name == "" || name == "." || name == ".." || len(name) > maxName {
		return "", fmt.Errorf("name %q: want 1 to %d bytes and no dot name", name, maxName)
	}
	dot := -1
	if !isDir {
		dot = strings.LastIndexByte(name, '.')
	}
	out := []byte(strings.ToUpper(name))
	if len(out) > maxPlain+1 || dot < 0 && len(out) > maxPlain {
		return "", fmt.Errorf("name %q: longer than the %d characters of ISO 9660 level 2", name, maxPlain)
	}
	for i, c := range out {
		switch {
		case c < 0x20 || c > 0x7e:
			return "", fmt.Errorf("name %q: only printable ASCII is allowed", name)
		case 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || i == dot:
		default:
			out[i] = '_'
		}
	}
	if isDir {
		return string(out), nil
	}
	if dot < 0 {
		out = append(out, '.')
	}
	return string(out) + ";1", nil
}

// comparePlain is the order of ECMA-119 9.3: name, then extension, each as if
// padded with spaces.
func comparePlain(a, b string) int {
	aName, aExt, _ := strings.Cut(strings.TrimSuffix(a, ";1"), ".")
	bName, bExt, _ := strings.Cut(strings.TrimSuffix(b, ";1"), ".")
	if c := comparePadded(aName, bName); c != 0 {
		return c
	}
	return comparePadded(aExt, bExt)
}

func comparePadded(a, b string) int {
	n := max(len(a), len(b))
	return strings.Compare(fmt.Sprintf("%-*s", n, a), fmt.Sprintf("%-*s", n, b))
}

// dirs gives all folders in the order of the path table (ECMA-119 6.9.1):
// by depth, then by the parent's number, then by name. It numbers them.
func (e *entry) dirs() []*entry {
	out := []*entry{e}
	for i := 0; i < len(out); i++ {
		out[i].number = i + 1
		for _, c := range out[i].children {
			if c.dir {
				out = append(out, c)
			}
		}
	}
	return out
}

// split cuts size bytes at a sector into extents that a record can hold.
func split(at uint32, size int64) []extent {
	var out []extent
	for size > maxExtent {
		out = append(out, extent{at, maxExtent})
		at += maxExtent / sector
		size -= maxExtent
	}
	return append(out, extent{at, uint32(size)})
}
