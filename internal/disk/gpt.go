package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"unicode/utf16"
)

const (
	gptSignature  = "EFI PART"
	gptRevision   = 0x00010000
	gptHeaderSize = 92
	gptEntrySize  = 128
	gptEntries    = 128
	// gptSectors is one copy: the header and 32 sectors of entries.
	gptSectors = 1 + gptEntries*gptEntrySize/SectorSize
	// FirstUsableLBA is the first sector that a partition may have.
	FirstUsableLBA = 1 + gptSectors
	// BackupBytes is the room that the backup copy needs at the end of a disk.
	BackupBytes = gptSectors * SectorSize
)

// Partition is one entry; First and Last are sectors of 512 bytes, both inside.
type Partition struct {
	Type, ID    GUID
	Name        string
	First, Last uint64
	Attributes  uint64
}

// Table is a GUID partition table of a disk of that many sectors of 512 bytes.
type Table struct {
	ID         GUID
	Sectors    uint64
	Partitions []Partition
}

// Encode gives the primary copy, to be written at LBA 1, and the backup copy,
// the last BackupBytes of the disk.
func (t Table) Encode() (primary, backup []byte, err error) {
	if err := t.validate(); err != nil {
		return nil, nil, fmt.Errorf("encode GPT: %w", err)
	}
	entries := make([]byte, gptEntries*gptEntrySize)
	for i, p := range t.Partitions {
		p.encode(entries[i*gptEntrySize:])
	}
	last := t.Sectors - 1
	primary = append(t.header(1, last, 2, entries), entries...)
	backup = append(entries[:len(entries):len(entries)], t.header(last, 1, last-(gptSectors-1), entries)...)
	return primary, backup, nil
}

func (t Table) validate() error {
	if t.Sectors < 2*gptSectors+2 {
		return fmt.Errorf("a disk of %d sectors has no room for two tables", t.Sectors)
	}
	if len(t.Partitions) > gptEntries {
		return fmt.Errorf("%d partitions; the table holds %d", len(t.Partitions), gptEntries)
	}
	lastUsable := t.Sectors - gptSectors - 1
	for i, p := range t.Partitions {
		switch {
		case p.Type.IsZero() || p.ID.IsZero():
			return fmt.Errorf("partition %d: type or id is zero", i+1)
		case p.First < FirstUsableLBA || p.Last > lastUsable || p.First > p.Last:
			return fmt.Errorf("partition %d: sectors %d to %d are not within %d to %d", i+1, p.First, p.Last, FirstUsableLBA, lastUsable)
		case len(utf16.Encode([]rune(p.Name))) > 36:
			return fmt.Errorf("partition %d: name %q is longer than 36 UTF-16 units", i+1, p.Name)
		}
		for j, q := range t.Partitions[:i] {
			if p.First <= q.Last && q.First <= p.Last {
				return fmt.Errorf("partitions %d and %d overlap", j+1, i+1)
			}
		}
	}
	return nil
}

func (p Partition) encode(b []byte) {
	typ, id := p.Type.swapped(), p.ID.swapped()
	copy(b, typ[:])
	copy(b[16:], id[:])
	binary.LittleEndian.PutUint64(b[32:], p.First)
	binary.LittleEndian.PutUint64(b[40:], p.Last)
	binary.LittleEndian.PutUint64(b[48:], p.Attributes)
	for i, u := range utf16.Encode([]rune(p.Name)) {
		binary.LittleEndian.PutUint16(b[56+2*i:], u)
	}
}

func (t Table) header(self, other, entriesLBA uint64, entries []byte) []byte {
	b := make([]byte, SectorSize)
	le := binary.LittleEndian
	copy(b, gptSignature)
	le.PutUint32(b[8:], gptRevision)
	le.PutUint32(b[12:], gptHeaderSize)
	le.PutUint64(b[24:], self)
	le.PutUint64(b[32:], other)
	le.PutUint64(b[40:], FirstUsableLBA)
	le.PutUint64(b[48:], t.Sectors-gptSectors-1)
	id := t.ID.swapped()
	copy(b[56:], id[:])
	le.PutUint64(b[72:], entriesLBA)
	le.PutUint32(b[80:], gptEntries)
	le.PutUint32(b[84:], gptEntrySize)
	le.PutUint32(b[88:], crc32.ChecksumIEEE(entries))
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:gptHeaderSize]))
	return b
}

// errNoGPT says that a sector does not begin with the signature of a GPT.
var errNoGPT = errors.New("no signature \"EFI PART\"")
