package ext4

import (
	"fmt"
	"io"
)

const (
	superOffset = 1024
	superSize   = 1024
	magic       = 0xef53

	stateClean  = 1
	stateErrors = 2

	compatJournal  = 0x4
	compatXattr    = 0x8
	compatDirIndex = 0x20

	incompatFileType = 0x2
	incompatRecover  = 0x4
	incompatExtents  = 0x40
	incompat64Bit    = 0x80

	roSparseSuper = 0x1
	roLargeFile   = 0x2
	roHugeFile    = 0x8
	roDirNlink    = 0x20
	roExtraIsize  = 0x40
	roChecksum    = 0x400
)

// heads writes the group descriptors and superblocks, those of group 0 last.
func (m *maker) heads() error {
	l := m.layout
	descs := m.descriptors()
	for n := range l.groups {
		group := l.groups - 1 - n
		if !hasSuper(group) {
			continue
		}
		if err := m.put(l.first(group)+1, descs); err != nil {
			return err
		}
		at := int64(l.first(group)) * BlockSize
		if group == 0 {
			at = superOffset
		}
		if _, err := m.w.WriteAt(m.super(group), at); err != nil {
			return err
		}
	}
	return nil
}

func (m *maker) descriptors() []byte {
	l := m.layout
	all := make([]byte, l.descs*BlockSize)
	for g := range l.groups {
		m.describe(all[g*descSize:][:descSize], g)
	}
	return all
}

func (m *maker) describe(b []byte, group uint64) {
	const inodesUnused, blocksUnused, tableZeroed = 1, 2, 4
	l := m.layout
	put32 := func(lo, hi int, n uint64) {
		le.PutUint32(b[lo:], uint32(n))
		le.PutUint32(b[hi:], uint32(n>>32))
	}
	put16 := func(lo, hi int, n uint32) {
		le.PutUint16(b[lo:], uint16(n))
		le.PutUint16(b[hi:], uint16(n>>16))
	}
	put32(0x0, 0x20, l.blockBitmap(group))
	put32(0x4, 0x24, l.inodeBitmap(group))
	put32(0x8, 0x28, l.inodeTable(group))
	put16(0xc, 0x2c, uint32(l.free(group)))
	inodes, dirs, flags := uint32(groupInodes), uint32(0), uint16(inodesUnused|blocksUnused)
	var blockSum, inodeSum uint32
	switch group {
	case 0:
		inodes, dirs, flags = groupInodes-firstInode, 2, tableZeroed
		blockSum, inodeSum = m.firstBlocks, m.firstInodes
	case l.groups - 1:
		flags, blockSum = inodesUnused, m.lastBlocks
	}
	put16(0xe, 0x2e, inodes)
	put16(0x10, 0x30, dirs)
	le.PutUint16(b[0x12:], flags)
	put16(0x18, 0x38, blockSum)
	put16(0x1a, 0x3a, inodeSum)
	put16(0x1c, 0x32, inodes) // never used: all at the table's end
	le.PutUint16(b[0x1e:], uint16(crc(crc32le(m.seed, uint32(group)), b)))
}

func (m *maker) super(group uint64) []byte {
	l, o := m.layout, m.options
	b := make([]byte, superSize)
	now := uint32(o.Time)
	put32 := func(at int, n uint32) { le.PutUint32(b[at:], n) }
	put64 := func(lo, hi int, n uint64) {
		put32(lo, uint32(n))
		put32(hi, uint32(n>>32))
	}
	inodes := uint32(l.groups * groupInodes)
	put32(0x0, inodes)
	put64(0x4, 0x150, l.blocks)
	put64(0x8, 0x154, l.reserved())
	put64(0xc, 0x158, l.freeBlocks())
	put32(0x10, inodes-firstInode)
	put32(0x18, 2) // block size, 1024 << 2
	put32(0x1c, 2)
	put32(0x20, groupBlocks)
	put32(0x24, groupBlocks)
	put32(0x28, groupInodes)
	put32(0x30, now)
	le.PutUint16(b[0x36:], 0xffff) // no check by number of mounts
	le.PutUint16(b[0x38:], magic)
	le.PutUint16(b[0x3a:], stateClean)
	// After an error read-only, so that the damage does not grow.
	le.PutUint16(b[0x3c:], 2)
	put32(0x40, now)
	m.dynamic(b, group)
	put32(0x3fc, crc(^uint32(0), b[:0x3fc]))
	return b
}

// dynamic are the fields that came with revision 1.
func (m *maker) dynamic(b []byte, group uint64) {
	l, o := m.layout, m.options
	put32 := func(at int, n uint32) { le.PutUint32(b[at:], n) }
	put32(0x4c, 1) // revision
	put32(0x54, firstInode)
	le.PutUint16(b[0x58:], inodeSize)
	le.PutUint16(b[0x5a:], uint16(group))
	put32(0x5c, compatJournal|compatXattr|compatDirIndex)
	put32(0x60, incompatFileType|incompatExtents|incompat64Bit)
	put32(0x64, roSparseSuper|roLargeFile|roHugeFile|roDirNlink|roExtraIsize|roChecksum)
	copy(b[0x68:], o.UUID[:])
	copy(b[0x78:0x88], o.Label)
	put32(0xe0, journalInode)
	copy(b[0xec:], o.HashSeed[:])
	b[0xfc] = 1                      // half MD4
	b[0xfd] = 1                      // what follows at 0x10c is a copy of the journal's inode
	le.PutUint16(b[0xfe:], descSize) // of a group descriptor
	put32(0x100, 0xc)                // mount with user_xattr and acl
	put32(0x108, uint32(o.Time))
	journal := inode{start: l.journalStart(), blocks: l.journal}
	copy(b[0x10c:], journal.extent())
	put32(0x10c+16*4, uint32(l.journal*BlockSize))
	le.PutUint16(b[0x15c:], 32)
	le.PutUint16(b[0x15e:], 32)
	put32(0x160, 1) // the hash takes char as signed
	b[0x175] = 1    // checksums are crc32c
}

// Head is what the superblock says of a file system.
type Head struct {
	UUID  [16]byte
	Label string
	Size  int64 // bytes
	// Journal says that there is one; without it the file system may be ext2.
	Journal bool
	// Unclean says that the journal has to be replayed.
	Unclean bool
	// Errors says that the kernel has found something wrong with it.
	Errors bool
}

// ReadHead reads the primary superblock. The second result is false where there
// is none, or where it has a checksum that is wrong; the error is one of reading.
func ReadHead(r io.ReaderAt) (Head, bool, error) {
	b := make([]byte, superSize)
	if n, err := r.ReadAt(b, superOffset); n < len(b) {
		if err == nil || err == io.EOF {
			return Head{}, false, nil
		}
		return Head{}, false, fmt.Errorf("read ext4 superblock: %w", err)
	}
	h, ok := parseHead(b)
	return h, ok, nil
}

func parseHead(b []byte) (Head, bool) {
	logSize := le.Uint32(b[0x18:])
	if le.Uint16(b[0x38:]) != magic || logSize > 6 {
		return Head{}, false
	}
	if le.Uint32(b[0x64:])&roChecksum != 0 && le.Uint32(b[0x3fc:]) != crc(^uint32(0), b[:0x3fc]) {
		return Head{}, false
	}
	blocks := uint64(le.Uint32(b[0x4:]))
	incompat := le.Uint32(b[0x60:])
	if incompat&incompat64Bit != 0 {
		blocks |= uint64(le.Uint32(b[0x150:])) << 32
	}
	if blocks > 1<<46 {
		return Head{}, false
	}
	h := Head{
		Size:    int64(blocks << (10 + logSize)),
		Journal: le.Uint32(b[0x5c:])&compatJournal != 0,
		Unclean: incompat&incompatRecover != 0,
		Errors:  le.Uint16(b[0x3a:])&stateErrors != 0,
	}
	copy(h.UUID[:], b[0x68:])
	label := b[0x78:0x88]
	for len(label) > 0 && label[len(label)-1] == 0 {
		label = label[:len(label)-1]
	}
	h.Label = string(label)
	return h, true
}
