package ext4

import (
	"fmt"
)

// BlockSize is the size of a block in bytes.
const BlockSize = 4096

// Bounds of a file system, in bytes. MaxSize is what 32 bits of block numbers
// reach.
const (
	MinSize = 32 << 20
	MaxSize = 1<<44 - BlockSize
)

const (
	groupBlocks = 8 * BlockSize // one block is the bitmap of a group
	// groupInodes gives one inode to 32 KiB.
	groupInodes = 4096
	inodeSize   = 256
	tableBlocks = groupInodes * inodeSize / BlockSize
	// groupOwn are the two bitmaps and the inode table that each group has.
	groupOwn = 2 + tableBlocks

	descSize = 64
	// lostBlocks is the size of lost+found: e2fsck must not have to find room.
	lostBlocks = 4
	dirBlocks  = 1 + lostBlocks

	firstInode   = 11 // lost+found; those before it are reserved
	rootInode    = 2
	journalInode = 8
)

// layout is where everything lies, in blocks.
type layout struct {
	blocks  uint64
	groups  uint64
	descs   uint64 // blocks of one copy of the group descriptors
	journal uint64
}

func newLayout(size int64) (layout, error) {
	if size < MinSize || size > MaxSize {
		return layout{}, fmt.Errorf("%d bytes; an ext4 file system of ours has %d to %d", size, MinSize, MaxSize)
	}
	l := layout{blocks: uint64(size) / BlockSize}
	for {
		l.groups = (l.blocks + groupBlocks - 1) / groupBlocks
		l.descs = (l.groups*descSize + BlockSize - 1) / BlockSize
		last := l.groups - 1
		// A last group that holds next to nothing but itself is left out, as
		// mke2fs does.
		if last == 0 || l.size(last) >= l.overhead(last)+64 {
			break
		}
		l.blocks = last * groupBlocks
	}
	switch {
	case l.blocks < 1<<15:
		l.journal = 1 << 10
	case l.blocks < 1<<18:
		l.journal = 1 << 12
	default:
		l.journal = 1 << 14
	}
	return l, nil
}

// first is the first block of a group.
func (l layout) first(group uint64) uint64 { return group * groupBlocks }

// size is the number of blocks of a group.
func (l layout) size(group uint64) uint64 {
	return min(l.blocks-l.first(group), groupBlocks)
}

// head is the number of blocks before a group's own: a copy of the superblock
// and of the group descriptors.
func (l layout) head(group uint64) uint64 {
	if !hasSuper(group) {
		return 0
	}
	return 1 + l.descs
}

// overhead is the number of blocks of a group that no file can have.
func (l layout) overhead(group uint64) uint64 { return l.head(group) + groupOwn }

func (l layout) blockBitmap(group uint64) uint64 { return l.first(group) + l.head(group) }
func (l layout) inodeBitmap(group uint64) uint64 { return l.blockBitmap(group) + 1 }
func (l layout) inodeTable(group uint64) uint64  { return l.blockBitmap(group) + 2 }

// The files lie in group 0 one after another.
func (l layout) rootDir() uint64      { return l.overhead(0) }
func (l layout) lostFound() uint64    { return l.rootDir() + 1 }
func (l layout) journalStart() uint64 { return l.rootDir() + dirBlocks }

// used is how many blocks of a group are taken; they are its first ones.
func (l layout) used(group uint64) uint64 {
	if group == 0 {
		return l.overhead(0) + dirBlocks + l.journal
	}
	return l.overhead(group)
}

func (l layout) free(group uint64) uint64 { return l.size(group) - l.used(group) }

func (l layout) freeBlocks() uint64 {
	var free uint64
	for g := range l.groups {
		free += l.free(g)
	}
	return free
}

// reserved is what only root may fill: the applier writes its journal as root
// while something else fills the disk. 5 %, at most 1 GiB.
func (l layout) reserved() uint64 { return min(l.blocks/20, 1<<18) }

// hasSuper says whether a group begins with copies (sparse_super): 0, 1 and the
// powers of 3, 5 and 7.
func hasSuper(group uint64) bool {
	if group <= 1 {
		return true
	}
	for _, base := range []uint64{3, 5, 7} {
		n := base
		for n < group {
			n *= base
		}
		if n == group {
			return true
		}
	}
	return false
}
