package squashfs

import (
	"fmt"
	"math"
)

// Bytes that the fixed parts of the largest inodes take.
const (
	dirInodeSize     = 40
	fileInodeSize    = 56
	symlinkInodeSize = 24
	indexSize        = 12
)

// checkLimits returns an error if the format cannot hold the tree: its offsets
// into the inode and directory tables have 32 bits. Sizes are estimated from
// above, as if nothing could be compressed.
func checkLimits(t *tree, blockSize int) error {
	if int64(t.nodes) > math.MaxUint32-1 {
		return fmt.Errorf("the source has %d files, folders and links; squashfs holds %d", t.nodes, uint32(math.MaxUint32-1))
	}
	var inodes, dirs int64
	for _, n := range t.files {
		size := fileInodeSize + 4*(n.size/int64(blockSize))
		if inodes += size; tableSize(inodes) > math.MaxUint32 {
			return fmt.Errorf("the list of blocks of %q (%d bytes) and the files before it is beyond the 4 GiB that squashfs holds; use larger blocks than %d bytes or less content", n.path(), n.size, blockSize)
		}
	}
	inodes += int64(t.links)*symlinkInodeSize + int64(t.dirs)*dirInodeSize
	err := eachDir(t.root, func(dir *node) error {
		listing := int64(0)
		for _, c := range dir.children {
			listing += headerSize + entrySize + int64(len(c.name))
			inodes += int64(len(c.target))
		}
		inodes += listing / metadataSize * (indexSize + maxName)
		if dirs += listing; listing+listingExtra > math.MaxUint32 {
			return fmt.Errorf("folder %q: a listing of %d names is beyond the 4 GiB that squashfs holds", dir.path(), len(dir.children))
		}
		return nil
	})
	if err != nil {
		return err
	}
	for name, size := range map[string]int64{"inode": inodes, "directory": dirs} {
		if tableSize(size) > math.MaxUint32 {
			return fmt.Errorf("the source needs an %s table of %d bytes; squashfs holds 4 GiB", name, size)
		}
	}
	return nil
}

// tableSize returns the space of size bytes of metadata that do not shrink.
func tableSize(size int64) int64 { return size + 2*(size/metadataSize+1) }

// eachDir calls visit for dir and every folder below it.
func eachDir(dir *node, visit func(*node) error) error {
	if err := visit(dir); err != nil {
		return err
	}
	for _, c := range dir.children {
		if c.kind == typeDir {
			if err := eachDir(c, visit); err != nil {
				return err
			}
		}
	}
	return nil
}
