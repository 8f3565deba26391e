package disk

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf16"
)

// maxEntryBytes bounds what a hostile header can make a reader allocate.
const maxEntryBytes = 1 << 20

// TableCopy is one of the two copies of a table, as found on a disk.
type TableCopy struct {
	Table
	SelfLBA, OtherLBA       uint64
	FirstUsable, LastUsable uint64
	EntriesLBA              uint64
}

// ReadTable reads the copy whose header lies in that sector of a disk of size
// bytes, and checks both of its CRCs and that all it names lies on the disk.
func ReadTable(r io.ReaderAt, size int64, lba uint64) (TableCopy, error) {
	c, err := readTable(r, size, lba)
	if err != nil {
		return TableCopy{}, fmt.Errorf("read GPT at sector %d: %w", lba, err)
	}
	return c, nil
}

func readTable(r io.ReaderAt, size int64, lba uint64) (TableCopy, error) {
	c := TableCopy{}
	c.Sectors = uint64(max(size, 0)) / SectorSize
	if lba >= c.Sectors {
		return c, fmt.Errorf("the disk has %d sectors", c.Sectors)
	}
	b := make([]byte, SectorSize)
	if err := readFull(r, b, int64(lba)*SectorSize); err != nil {
		return c, err
	}
	le := binary.LittleEndian
	if string(b[:8]) != gptSignature {
		return c, errNoGPT
	}
	headerSize := le.Uint32(b[12:])
	if headerSize < gptHeaderSize || headerSize > SectorSize {
		return c, fmt.Errorf("header size %d is not within %d to %d", headerSize, gptHeaderSize, SectorSize)
	}
	want := le.Uint32(b[16:])
	clear(b[16:20])
	if got := crc32.ChecksumIEEE(b[:headerSize]); got != want {
		return c, fmt.Errorf("header CRC is %08x, the header says %08x", got, want)
	}
	c.SelfLBA, c.OtherLBA = le.Uint64(b[24:]), le.Uint64(b[32:])
	c.FirstUsable, c.LastUsable = le.Uint64(b[40:]), le.Uint64(b[48:])
	c.ID = GUID(b[56:72]).swapped()
	c.EntriesLBA = le.Uint64(b[72:])
	if c.SelfLBA != lba {
		return c, fmt.Errorf("header says that it lies at sector %d", c.SelfLBA)
	}
	return c, c.readEntries(r, le.Uint32(b[80:]), le.Uint32(b[84:]), le.Uint32(b[88:]))
}

func (c *TableCopy) readEntries(r io.ReaderAt, count, entrySize, want uint32) error {
	total := uint64(count) * uint64(entrySize)
	if entrySize < gptEntrySize || total == 0 || total > maxEntryBytes {
		return fmt.Errorf("%d entries of %d bytes are out of bounds", count, entrySize)
	}
	if c.EntriesLBA >= c.Sectors || total > (c.Sectors-c.EntriesLBA)*SectorSize {
		return fmt.Errorf("entries at sector %d lie beyond the end", c.EntriesLBA)
	}
	b := make([]byte, total)
	if err := readFull(r, b, int64(c.EntriesLBA)*SectorSize); err != nil {
		return err
	}
	if got := crc32.ChecksumIEEE(b); got != want {
		return fmt.Errorf("CRC of the entries is %08x, the header says %08x", got, want)
	}
	for e := range slices.Chunk(b, int(entrySize)) {
		p := decodePartition(e)
		if p.Type.IsZero() {
			continue
		}
		if p.First > p.Last || p.Last >= c.Sectors {
			return fmt.Errorf("partition %s: sectors %d to %d are not on the disk", p.ID, p.First, p.Last)
		}
		c.Partitions = append(c.Partitions, p)
	}
	return nil
}

func decodePartition(b []byte) Partition {
	le := binary.LittleEndian
	p := Partition{
		Type: GUID(b[:16]).swapped(), ID: GUID(b[16:32]).swapped(),
		First: le.Uint64(b[32:]), Last: le.Uint64(b[40:]), Attributes: le.Uint64(b[48:]),
	}
	var name []uint16
	for u := range slices.Chunk(b[56:gptEntrySize], 2) {
		if le.Uint16(u) == 0 {
			break
		}
		name = append(name, le.Uint16(u))
	}
	p.Name = string(utf16.Decode(name))
	return p
}

// CheckTables reads the MBR and both copies of the table of a disk of size
// bytes. Every disagreement is one line of problems; the table is the primary
// copy's, or the backup's if the primary cannot be read.
func CheckTables(r io.ReaderAt, size int64) (table Table, problems []string) {
	say := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if size < 2*SectorSize || size%SectorSize != 0 {
		say("size %d is not a number of sectors", size)
		return Table{}, problems
	}
	sectors := uint64(size) / SectorSize
	problems = append(problems, checkProtective(r, sectors)...)
	primary, err := ReadTable(r, size, 1)
	if err != nil {
		say("%v", err)
	}
	backup, backupErr := ReadTable(r, size, sectors-1)
	if backupErr != nil {
		say("%v", backupErr)
	}
	if err != nil {
		return backup.Table, problems
	}
	if primary.OtherLBA != sectors-1 {
		say("primary GPT names sector %d as its backup, the last sector is %d", primary.OtherLBA, sectors-1)
	}
	if primary.LastUsable >= sectors || primary.FirstUsable > primary.LastUsable {
		say("primary GPT: usable sectors %d to %d are not on the disk", primary.FirstUsable, primary.LastUsable)
	}
	for _, p := range primary.Partitions {
		if p.First < primary.FirstUsable || p.Last > primary.LastUsable {
			say("partition %s lies outside the usable sectors", p.ID)
		}
	}
	if backupErr == nil && (backup.ID != primary.ID || backup.OtherLBA != 1 || !slices.Equal(backup.Partitions, primary.Partitions)) {
		say("primary and backup GPT differ")
	}
	return primary.Table, problems
}

func checkProtective(r io.ReaderAt, sectors uint64) []string {
	b := make([]byte, SectorSize)
	if err := readFull(r, b, 0); err != nil {
		return []string{fmt.Sprintf("read MBR: %v", err)}
	}
	m, err := ParseMBR(b)
	if err != nil {
		return []string{err.Error()}
	}
	if !slices.Contains(m.Entries[:], ProtectiveEntry(sectors)) {
		return []string{fmt.Sprintf("MBR has no protective entry (EE) over sectors 1 to %d", sectors-1)}
	}
	return nil
}

// readFull reads all of b; a disk that ends early is an error by name.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(b), off, err)
}
