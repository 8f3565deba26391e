package squashfs

import (
	"encoding/binary"
	"math/bits"
)

// Values of the on-disk format; names follow the kernel's squashfs_fs.h.
const (
	magic          = 0x73717368
	compressorZstd = 6
	superblockSize = 96
	metadataSize   = 8192
	padTo          = 4096 // block devices and loop devices are read in pages

	metadataRaw = 1 << 15 // header bit of a metadata block that is not compressed
	blockRaw    = 1 << 24 // size word bit of a data block that is not compressed

	noFragment = 0xffffffff
	noXattr    = 0xffffffff
	noTable    = 0xffffffffffffffff

	flagAlwaysFragments = 0x20
	flagDuplicates      = 0x40
	flagExportable      = 0x80
	flagNoXattrs        = 0x200
	flagOptions         = 0x400

	typeDir     = 1
	typeFile    = 2
	typeSymlink = 3
	typeLongDir = 8
	typeLongReg = 9

	maxName    = 255  // Linux's NAME_MAX; the format would hold 256
	maxTarget  = 4095 // the kernel refuses a target of a page or more
	maxRun     = 256  // entries behind one directory header
	maxIndexes = 0xffff
	rootPerm   = 0o755
)

// little is the byte order of the whole format.
var little = binary.LittleEndian

// superblock holds what differs from image to image.
type superblock struct {
	inodes, fragments    uint32
	mtime                uint32
	blockSize            int
	root                 uint64 // inode reference
	used                 uint64 // bytes, without the padding at the end
	ids, export          uint64 // offsets of the tables' indexes
	inodeTable, dirTable uint64
	fragmentTable        uint64
	level                uint32
}

// encode returns the superblock and the compressor options behind it.
func (s *superblock) encode() []byte {
	b := make([]byte, 0, dataStart)
	b = little.AppendUint32(b, magic)
	b = little.AppendUint32(b, s.inodes)
	b = little.AppendUint32(b, s.mtime)
	b = little.AppendUint32(b, uint32(s.blockSize))
	b = little.AppendUint32(b, s.fragments)
	b = little.AppendUint16(b, compressorZstd)
	b = little.AppendUint16(b, uint16(bits.TrailingZeros(uint(s.blockSize))))
	b = little.AppendUint16(b, flagAlwaysFragments|flagDuplicates|flagExportable|flagNoXattrs|flagOptions)
	b = little.AppendUint16(b, 1) // ids
	b = little.AppendUint16(b, 4) // version 4.0
	b = little.AppendUint16(b, 0)
	for _, v := range []uint64{
		s.root, s.used, s.ids, noTable, s.inodeTable, s.dirTable, s.fragmentTable, s.export,
	} {
		b = little.AppendUint64(b, v)
	}
	b = little.AppendUint16(b, metadataRaw|4)
	return little.AppendUint32(b, s.level)
}

// dataStart is where the first data block lies: behind the superblock and the
// compressor options, which are a metadata block of one number.
const dataStart = superblockSize + 2 + 4

// dirIndex is one entry of a long directory's index: the header at offset
// bytes into the listing lies in the metadata block at start and its first
// entry is called name.
type dirIndex struct {
	offset, start uint32
	name          string
}

// listing says where a directory's entries lie.
type listing struct {
	start   uint32 // metadata block, from the start of the directory table
	offset  uint16 // in that block
	size    int64  // bytes
	subdirs uint32
	indexes []dirIndex
}

// appendInode appends the inode of n. list is nil except for a directory.
func appendInode(b []byte, n *node, list *listing, mtime uint32, parent uint32) []byte {
	kind := n.kind
	switch {
	case n.kind == typeDir && list.long():
		kind = typeLongDir
	case n.kind == typeFile && n.content.long(n.size):
		kind = typeLongReg
	}
	b = little.AppendUint16(b, kind)
	b = little.AppendUint16(b, n.perm)
	b = little.AppendUint32(b, 0) // indexes of uid and gid
	b = little.AppendUint32(b, mtime)
	b = little.AppendUint32(b, n.number)
	switch kind {
	case typeDir:
		b = little.AppendUint32(b, list.start)
		b = little.AppendUint32(b, 2+list.subdirs)
		b = little.AppendUint16(b, uint16(list.size+listingExtra))
		b = little.AppendUint16(b, list.offset)
		return little.AppendUint32(b, parent)
	case typeLongDir:
		return appendLongDir(b, list, parent)
	case typeSymlink:
		b = little.AppendUint32(b, 1)
		b = little.AppendUint32(b, uint32(len(n.target)))
		return append(b, n.target...)
	case typeFile:
		b = little.AppendUint32(b, uint32(n.content.start))
		b = little.AppendUint32(b, n.content.fragment)
		b = little.AppendUint32(b, n.content.offset)
		b = little.AppendUint32(b, uint32(n.size))
	case typeLongReg:
		b = little.AppendUint64(b, uint64(n.content.start))
		b = little.AppendUint64(b, uint64(n.size))
		b = little.AppendUint64(b, n.content.sparse)
		b = little.AppendUint32(b, 1)
		b = little.AppendUint32(b, n.content.fragment)
		b = little.AppendUint32(b, n.content.offset)
		b = little.AppendUint32(b, noXattr)
	}
	for _, word := range n.content.sizes {
		b = little.AppendUint32(b, word)
	}
	return b
}

func appendLongDir(b []byte, list *listing, parent uint32) []byte {
	b = little.AppendUint32(b, 2+list.subdirs)
	b = little.AppendUint32(b, uint32(list.size+listingExtra))
	b = little.AppendUint32(b, list.start)
	b = little.AppendUint32(b, parent)
	b = little.AppendUint16(b, uint16(len(list.indexes)))
	b = little.AppendUint16(b, list.offset)
	b = little.AppendUint32(b, noXattr)
	for _, x := range list.indexes {
		b = little.AppendUint32(b, x.offset)
		b = little.AppendUint32(b, x.start)
		b = little.AppendUint32(b, uint32(len(x.name)-1))
		b = append(b, x.name...)
	}
	return b
}

// listingExtra is what a directory's size counts beyond its listing: the
// kernel's room for "." and "..".
const listingExtra = 3

// long reports whether the directory needs the long inode: its size does not
// fit the short one, or it has an index to be found by.
func (l *listing) long() bool { return len(l.indexes) > 0 || l.size+listingExtra > 0xffff }
