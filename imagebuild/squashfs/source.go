package squashfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Source lists what lies in a folder of the image, the root first. Its order
// does not matter.
type Source []Entry

// Entry is one name in a folder: a path of the host, or a file or folder that
// is given in memory.
type Entry struct {
	// Name is the entry's name: one path component.
	Name string
	// Folder is what lies in a folder that no path of the host stands for; nil
	// means that the entry is not one.
	Folder Source
	// Path is the file, symbolic link or folder on the host that becomes the
	// entry; a folder is taken with all that is below it. A symbolic link is
	// stored, not followed.
	Path string
	// Data is the content of a file in memory; it counts only if Path is "".
	// It must not change while Write runs.
	Data []byte
	// Mode holds the permission bits of a file in memory; 0 means 0444. Host
	// paths keep their own.
	Mode fs.FileMode
}

// Tree returns the Source whose root folder holds what dir holds.
func Tree(dir string) (Source, error) {
	names, err := readNames(dir)
	if err != nil {
		return nil, err
	}
	src := make(Source, 0, len(names))
	for _, name := range names {
		src = append(src, Entry{Name: name, Path: filepath.Join(dir, name)})
	}
	return src, nil
}

// node is one inode of the image.
type node struct {
	name     string
	host     string // where the content is, for a child of the root
	parent   *node
	kind     uint16 // typeDir, typeFile or typeSymlink
	perm     uint16
	inMemory bool
	number   uint32
	size     int64
	children []*node // of a directory, sorted by name
	target   string  // of a symbolic link
	data     []byte  // of a file in memory
	content  *content
	ref      uint64 // where the inode lies in the inode table
}

// path returns where the host keeps the node, or its name in the image if it
// is in memory.
func (n *node) path() string {
	if n.host != "" || n.parent == nil || n.inMemory {
		return n.host
	}
	parts := []string{}
	for ; n.host == ""; n = n.parent {
		parts = append(parts, n.name)
	}
	parts = append(parts, n.host)
	slices.Reverse(parts)
	return strings.Join(parts, "/")
}

// list fills in the children of the folder n.
func (n *node) list() error {
	path := n.path()
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }() // only read from
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("list folder: %w", err)
	}
	slices.Sort(names)
	nodes := make([]node, len(names))
	n.children = make([]*node, len(names))
	for i, name := range names {
		c := &nodes[i]
		c.name, c.parent = name, n
		if err := c.stat(int(dir.Fd()), name); err != nil {
			return err
		}
		n.children[i] = c
	}
	return nil
}

// stat fills in type, size and permissions of n, which dirfd knows as name.
func (n *node) stat(dirfd int, name string) error {
	var st unix.Stat_t
	err := retry(func() error { return unix.Fstatat(dirfd, name, &st, unix.AT_SYMLINK_NOFOLLOW) })
	if err != nil {
		return &fs.PathError{Op: "lstat", Path: n.path(), Err: err}
	}
	n.perm = uint16(st.Mode & 0o7777)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		n.kind = typeDir
	case unix.S_IFREG:
		n.kind, n.size = typeFile, st.Size
	case unix.S_IFLNK:
		n.kind, n.perm = typeSymlink, 0o777
		return n.readlink(dirfd, name)
	default:
		return fmt.Errorf("%q is a %s: only files, folders and symbolic links can go into the image; remove it from the tree",
			n.path(), special(st.Mode))
	}
	return nil
}

func (n *node) readlink(dirfd int, name string) error {
	buf := make([]byte, maxTarget+1)
	var length int
	err := retry(func() (err error) {
		length, err = unix.Readlinkat(dirfd, name, buf)
		return err
	})
	if err != nil {
		return &fs.PathError{Op: "readlink", Path: n.path(), Err: err}
	}
	if length > maxTarget {
		return fmt.Errorf("target of symbolic link %q is longer than %d bytes, which the kernel cannot read from squashfs", n.path(), maxTarget)
	}
	n.target = string(buf[:length])
	return nil
}

// special names a type of file that has no place in the image.
func special(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFCHR:
		return "character device"
	case unix.S_IFBLK:
		return "block device"
	case unix.S_IFIFO:
		return "fifo"
	case unix.S_IFSOCK:
		return "socket"
	}
	return fmt.Sprintf("file of unknown type (mode %#o)", mode)
}

func checkName(name string) error {
	switch {
	case name == "", name == ".", name == "..", strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("entry name %q: want one path component", name)
	case len(name) > maxName:
		return fmt.Errorf("entry name %q is %d bytes long; squashfs holds %d", name, len(name), maxName)
	}
	return nil
}

// readNames returns the sorted names in dir.
func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("list folder: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

// retry runs call until no signal interrupts it.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
