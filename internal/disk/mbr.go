package disk

import (
	"encoding/binary"
	"errors"
	"math"
)

// Partition types of an MBR that this package knows.
const (
	// MBREmpty is an unused entry.
	MBREmpty byte = 0x00
	// MBRProtective covers a disk that has a GPT (UEFI 2.10 section 5.2.3).
	MBRProtective byte = 0xEE
)

const mbrEntriesOffset = 446

// MBREntry is one of the four partition entries; sectors are of 512 bytes.
type MBREntry struct {
	Active  bool
	Type    byte
	First   uint32
	Sectors uint32
}

// MBR is sector 0 of a disk: code, disk signature and four entries.
type MBR struct {
	Code      [440]byte
	Signature uint32
	Entries   [4]MBREntry
}

// ProtectiveEntry covers a disk of that many sectors, as far as 32 bits reach.
func ProtectiveEntry(sectors uint64) MBREntry {
	return MBREntry{Type: MBRProtective, First: 1, Sectors: uint32(min(sectors-1, math.MaxUint32))}
}

// Encode gives the 512 bytes of sector 0.
func (m MBR) Encode() []byte {
	b := make([]byte, SectorSize)
	copy(b, m.Code[:])
	binary.LittleEndian.PutUint32(b[440:], m.Signature)
	for i, e := range m.Entries {
		p := b[mbrEntriesOffset+16*i:]
		if e.Active {
			p[0] = 0x80
		}
		p[4] = e.Type
		if e.Type != MBREmpty {
			// CHS: sector 2 of the disk for LBA 1, and "beyond CHS" as the end.
			p[2] = byte(e.First + 1)
			p[5], p[6], p[7] = 0xFF, 0xFF, 0xFF
			if e.First != 1 {
				p[1], p[2], p[3] = 0xFE, 0xFF, 0xFF
			}
		}
		binary.LittleEndian.PutUint32(p[8:], e.First)
		binary.LittleEndian.PutUint32(p[12:], e.Sectors)
	}
	b[510], b[511] = 0x55, 0xAA
	return b
}

// ParseMBR reads the first 512 bytes of b.
func ParseMBR(b []byte) (MBR, error) {
	var m MBR
	if len(b) < SectorSize {
		return m, errors.New("parse MBR: less than 512 bytes")
	}
	if b[510] != 0x55 || b[511] != 0xAA {
		return m, errors.New("parse MBR: no signature 55 AA at byte 510")
	}
	copy(m.Code[:], b)
	m.Signature = binary.LittleEndian.Uint32(b[440:])
	for i := range m.Entries {
		p := b[mbrEntriesOffset+16*i:]
		m.Entries[i] = MBREntry{
			Active:  p[0]&0x80 != 0,
			Type:    p[4],
			First:   binary.LittleEndian.Uint32(p[8:]),
			Sectors: binary.LittleEndian.Uint32(p[12:]),
		}
	}
	return m, nil
}
