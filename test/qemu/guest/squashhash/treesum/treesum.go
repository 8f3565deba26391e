// Package treesum describes a file tree by one hash, so that a guest and its
// host can tell whether they see the same one. It covers names, types,
// permissions, link targets and content; not owners and times, which an image
// changes on purpose.
package treesum

import (
	"crypto/sha256"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// sampled is the size from which only parts of a file are read: its begin, its
// end, and what lies around 4 GiB, where 32 bits end.
const (
	sampled    = 64 << 20
	sampleSize = 1 << 20
)

// Sum describes a tree.
type Sum struct {
	Hash    string // SHA-256, in hex, of one line an entry
	Entries int    // without the tree's own root
	Bytes   int64  // of all files
}

// String returns the sum as the guest prints it.
func (s Sum) String() string {
	return fmt.Sprintf("%s entries=%d bytes=%d", s.Hash, s.Entries, s.Bytes)
}

// Of returns the sum of what is below dir. Each entry is looked up by its name,
// and visit is called with what was found; it may be nil.
func Of(dir string, visit func(path string, info fs.FileInfo) error) (Sum, error) {
	var sum Sum
	lines := sha256.New()
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := os.Lstat(path)
		if err != nil {
			return err
		}
		if visit != nil {
			if err := visit(path, info); err != nil {
				return err
			}
		}
		content, err := describe(path, info)
		if err != nil {
			return err
		}
		sum.Entries++
		if info.Mode().IsRegular() {
			sum.Bytes += info.Size()
		}
		_, err = fmt.Fprintf(lines, "%q %v %s\n", path[len(dir)+1:], info.Mode(), content)
		return err
	})
	sum.Hash = fmt.Sprintf("%x", lines.Sum(nil))
	return sum, err
}

// describe returns a link's target, or a file's size and hash.
func describe(path string, info fs.FileInfo) (string, error) {
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(path)
		return fmt.Sprintf("%q", target), err
	case !info.Mode().IsRegular():
		return "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	err = read(h, f, info.Size())
	if e := f.Close(); err == nil {
		err = e
	}
	return fmt.Sprintf("%d %x", info.Size(), h.Sum(nil)), err
}

func read(h hash.Hash, f *os.File, size int64) error {
	if size < sampled {
		_, err := io.Copy(h, f)
		return err
	}
	for _, at := range []int64{0, 4<<30 - sampleSize/2, size - sampleSize} {
		if _, err := io.Copy(h, io.NewSectionReader(f, at, sampleSize)); err != nil {
			return err
		}
	}
	return nil
}
