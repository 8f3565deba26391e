package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// Options are what a new file system is told. UUID and HashSeed are random in
// use; Time is in seconds since 1970.
type Options struct {
	UUID     [16]byte
	HashSeed [16]byte
	Label    string // at most 16 bytes
	Time     int64
}

// Write makes an empty file system of size bytes in w, which begins at offset 0
// there. What is read back later as free space is not written: w may hold
// anything. The primary superblock comes last; whoever calls makes it durable.
func Write(w io.WriterAt, size int64, o Options) error {
	l, err := newLayout(size)
	if err == nil && (len(o.Label) > 16 || o.Time < 0 || o.UUID == [16]byte{}) {
		err = errors.New("a label has up to 16 bytes, a time is not before 1970, a UUID is not zero")
	}
	if err != nil {
		return fmt.Errorf("make ext4: %w", err)
	}
	m := maker{w: w, layout: l, options: o, seed: crc(^uint32(0), o.UUID[:])}
	steps := []func() error{m.bitmaps, m.inodes, m.directories, m.writeJournal, m.heads}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("make ext4: %w", err)
		}
	}
	return nil
}

type maker struct {
	w       io.WriterAt
	layout  layout
	options Options
	seed    uint32 // of all checksums but the superblock's
	// The checksums of the bitmaps that are written.
	firstBlocks, lastBlocks, firstInodes uint32
}

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	le         = binary.LittleEndian
	be         = binary.BigEndian
)

// crc is the kernel's crc32c: no inversion before and after.
func crc(sum uint32, b []byte) uint32 { return ^crc32.Update(^sum, castagnoli, b) }

func crc32le(sum, n uint32) uint32 { return crc(sum, le.AppendUint32(nil, n)) }

func (m *maker) put(block uint64, data []byte) error {
	_, err := m.w.WriteAt(data, int64(block)*BlockSize)
	return err
}

// zero clears blocks.
func (m *maker) zero(block, count uint64) error {
	buf := make([]byte, min(count, 256)*BlockSize)
	for count > 0 {
		n := min(count, 256)
		if err := m.put(block, buf[:n*BlockSize]); err != nil {
			return err
		}
		block, count = block+n, count-n
	}
	return nil
}

// bitmaps writes those of the first group and the blocks of the last: every
// other is made by the kernel when it comes to the group.
func (m *maker) bitmaps() error {
	l := m.layout
	last := l.groups - 1
	inodes := bitmap(firstInode, groupInodes)
	m.firstInodes = crc(m.seed, inodes[:groupInodes/8])
	first := bitmap(l.used(0), l.size(0))
	m.firstBlocks = crc(m.seed, first)
	err := errors.Join(m.put(l.inodeBitmap(0), inodes), m.put(l.blockBitmap(0), first))
	if last > 0 {
		bits := bitmap(l.used(last), l.size(last))
		m.lastBlocks = crc(m.seed, bits)
		err = errors.Join(err, m.put(l.blockBitmap(last), bits))
	}
	return err
}

// bitmap has the first used bits set, and all from size on, which stand for
// nothing.
func bitmap(used, size uint64) []byte {
	b := make([]byte, BlockSize)
	for i := range uint64(groupBlocks) {
		if i < used || i >= size {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return b
}

// inodes writes the inode table of the first group, all of it.
func (m *maker) inodes() error {
	l := m.layout
	if err := m.zero(l.inodeTable(0), tableBlocks); err != nil {
		return err
	}
	const dir, file = 0o040000, 0o100000
	table := make([]byte, BlockSize) // 16 inodes are enough
	for number, i := range map[uint32]inode{
		rootInode:    {mode: dir | 0o755, links: 3, start: l.rootDir(), blocks: 1},
		journalInode: {mode: file | 0o600, links: 1, start: l.journalStart(), blocks: l.journal},
		firstInode:   {mode: dir | 0o700, links: 2, start: l.lostFound(), blocks: lostBlocks},
	} {
		copy(table[(number-1)*inodeSize:], m.encode(number, i))
	}
	return m.put(l.inodeTable(0), table)
}

// inode is a file in one piece.
type inode struct {
	mode, links   uint16
	start, blocks uint64
}

func (m *maker) encode(number uint32, i inode) []byte {
	const hasExtents = 0x80000
	b := make([]byte, inodeSize)
	now := uint32(m.options.Time)
	le.PutUint16(b[0:], i.mode)
	le.PutUint32(b[4:], uint32(i.blocks*BlockSize))
	for _, at := range []int{0x8, 0xc, 0x10, 0x90} { // access, change, write, creation
		le.PutUint32(b[at:], now)
	}
	le.PutUint16(b[0x1a:], i.links)
	le.PutUint32(b[0x1c:], uint32(i.blocks*BlockSize/512))
	le.PutUint32(b[0x20:], hasExtents)
	copy(b[0x28:], i.extent())
	le.PutUint16(b[0x80:], 32) // of the fields behind the first 128 bytes
	sum := crc(crc32le(crc32le(m.seed, number), 0), b)
	le.PutUint16(b[0x7c:], uint16(sum))
	le.PutUint16(b[0x82:], uint16(sum>>16))
	return b
}

// extent is the block map of an inode: one extent from its first block on.
func (i inode) extent() []byte {
	b := make([]byte, 60)
	le.PutUint16(b[0:], 0xf30a)
	le.PutUint16(b[2:], 1) // of
	le.PutUint16(b[4:], 4) // extents
	le.PutUint16(b[16:], uint16(i.blocks))
	le.PutUint16(b[18:], uint16(i.start>>32))
	le.PutUint32(b[20:], uint32(i.start))
	return b
}

const (
	dirTail = 12
	typeDir = 2
)

// dirEntry is an entry of a folder; the last of a block takes all its room.
type dirEntry struct {
	inode uint32
	name  string
}

func (m *maker) directories() error {
	l := m.layout
	err := m.put(l.rootDir(), m.dirBlock(rootInode,
		dirEntry{rootInode, "."}, dirEntry{rootInode, ".."}, dirEntry{firstInode, "lost+found"}))
	err = errors.Join(err, m.put(l.lostFound(), m.dirBlock(firstInode, dirEntry{firstInode, "."}, dirEntry{rootInode, ".."})))
	for n := range uint64(lostBlocks - 1) {
		err = errors.Join(err, m.put(l.lostFound()+1+n, m.dirBlock(firstInode, dirEntry{})))
	}
	return err
}

func (m *maker) dirBlock(owner uint32, entries ...dirEntry) []byte {
	b := make([]byte, BlockSize)
	at := 0
	for n, e := range entries {
		length := (8 + len(e.name) + 3) &^ 3
		if n == len(entries)-1 {
			length = BlockSize - dirTail - at
		}
		le.PutUint32(b[at:], e.inode)
		le.PutUint16(b[at+4:], uint16(length))
		b[at+6] = byte(len(e.name))
		if e.inode != 0 {
			b[at+7] = typeDir
		}
		copy(b[at+8:], e.name)
		at += length
	}
	tail := b[BlockSize-dirTail:]
	le.PutUint16(tail[4:], dirTail)
	tail[7] = 0xde
	le.PutUint32(tail[8:], crc(crc32le(crc32le(m.seed, owner), 0), b[:BlockSize-dirTail]))
	return b
}

// writeJournal makes an empty journal. It is cleared whole: what an older one
// left there must never be replayed.
func (m *maker) writeJournal() error {
	l := m.layout
	if err := m.zero(l.journalStart(), l.journal); err != nil {
		return err
	}
	b := make([]byte, BlockSize)
	be.PutUint32(b[0x0:], 0xc03b3998)
	be.PutUint32(b[0x4:], 4) // superblock, version 2
	be.PutUint32(b[0xc:], BlockSize)
	be.PutUint32(b[0x10:], uint32(l.journal))
	be.PutUint32(b[0x14:], 1) // first block of the log
	be.PutUint32(b[0x18:], 1) // first commit to expect
	be.PutUint32(b[0x40:], 1) // file systems that use it
	return m.put(l.journalStart(), b)
}
