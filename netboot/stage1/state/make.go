package state

import (
	"errors"
	"fmt"
	"io"
	"slices"

	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/ext4"
)

// mark is written first where a file system will be, and cleared last. It lies
// in the boot sector, which ext4 leaves alone.
const mark = "XNODE-STATE is being made; nothing here means anything yet.\n"

// partitionStart is where the partition begins, and to what its end is aligned,
// in bytes.
const partitionStart = 1 << 20

func markSector() []byte {
	b := make([]byte, disk.SectorSize)
	copy(b, mark)
	return b
}

func hasMark(r io.ReaderAt, at int64) (bool, error) {
	b := make([]byte, disk.SectorSize)
	err := readFull(r, b, at)
	return err == nil && string(b) == string(markSector()), err
}

// isBegun says whether a disk without a partition of ours is one that Make was
// cut off on: the mark, and before it at most pieces of our own table.
func isBegun(r io.ReaderAt, size int64) (bool, error) {
	if marked, err := hasMark(r, partitionStart); err != nil || !marked {
		return false, err
	}
	const tables = disk.FirstUsableLBA * disk.SectorSize
	gap, err := allZero(r, tables, partitionStart-tables)
	if err != nil || !gap {
		return false, err
	}
	sector := make([]byte, disk.SectorSize)
	if err := readFull(r, sector, 0); err != nil {
		return false, err
	}
	zero := slices.IndexFunc(sector, func(c byte) bool { return c != 0 }) < 0
	return (zero || slices.Equal(sector, protectiveMBR(size))) && !hasOtherTable(r, size), nil
}

// hasOtherTable says whether a whole copy of a partition table names anything
// but one partition of ours.
func hasOtherTable(r io.ReaderAt, size int64) bool {
	for _, lba := range []uint64{1, uint64(size)/disk.SectorSize - 1} {
		table, err := disk.ReadTable(r, size, lba)
		if err == nil && (len(table.Partitions) != 1 || table.Partitions[0].Name != PartitionName) {
			return true
		}
	}
	return false
}

func protectiveMBR(size int64) []byte {
	return disk.MBR{Entries: [4]disk.MBREntry{disk.ProtectiveEntry(uint64(size) / disk.SectorSize)}}.Encode()
}

// MakeOptions is what a new state is told: random bytes, and the time in
// seconds since 1970.
type MakeOptions struct {
	Random io.Reader
	Time   int64
}

// Make carries out a plan to make a state on its device of size bytes. After a
// power cut at any point Judge comes to a plan to make it again.
func Make(plan Plan, dev Device, size int64, o MakeOptions) error {
	var err error
	switch plan.Action {
	case MakeDisk:
		err = makeDisk(dev, size, o)
	case MakePartition:
		err = makeFileSystem(dev, 0, size, o, func() error { return nil })
	default:
		return fmt.Errorf("BUG: make a state by the plan to %q", plan.Action)
	}
	if err != nil {
		return fmt.Errorf("%s on %s: %w", plan.Action, plan.Disk, err)
	}
	return nil
}

func makeDisk(dev Device, size int64, o MakeOptions) error {
	sectors := uint64(size) / disk.SectorSize
	last := (size - disk.BackupBytes) / partitionStart * partitionStart
	last = min(last, partitionStart+ext4.MaxSize/partitionStart*partitionStart)
	var seed [32]byte
	if _, err := io.ReadFull(o.Random, seed[:]); err != nil {
		return fmt.Errorf("random number: %w", err)
	}
	linux, err := disk.ParseGUID(disk.TypeLinux)
	if err != nil {
		return err
	}
	primary, backup, err := disk.Table{
		ID: disk.DeriveGUID(seed, "disk"), Sectors: sectors,
		Partitions: []disk.Partition{{
			Type: linux, ID: disk.DeriveGUID(seed, "partition"), Name: PartitionName,
			First: partitionStart / disk.SectorSize, Last: uint64(last)/disk.SectorSize - 1,
		}},
	}.Encode()
	if err != nil {
		return err
	}
	return makeFileSystem(dev, partitionStart, last-partitionStart, o, func() error {
		if err := write(dev, backup, int64(sectors)*disk.SectorSize-disk.BackupBytes); err != nil {
			return err
		}
		return write(dev, append(protectiveMBR(size), primary...), 0)
	})
}

// makeFileSystem writes a file system at an offset, and calls finish when only
// the mark is left to be cleared.
func makeFileSystem(dev Device, at, size int64, o MakeOptions, finish func() error) error {
	var options ext4.Options
	for _, b := range [][]byte{options.UUID[:], options.HashSeed[:]} {
		if _, err := io.ReadFull(o.Random, b); err != nil {
			return fmt.Errorf("random number: %w", err)
		}
	}
	options.UUID[6] = options.UUID[6]&0x0f | 0x40 // version 4 of RFC 9562
	options.UUID[8] = options.UUID[8]&0x3f | 0x80
	options.Label, options.Time = PartitionName, o.Time
	if err := write(dev, markSector(), at); err != nil {
		return err
	}
	err := ext4.Write(io.NewOffsetWriter(dev, at), min(size, ext4.MaxSize), options)
	if err := errors.Join(err, dev.Sync()); err != nil {
		return err
	}
	if err := finish(); err != nil {
		return err
	}
	return write(dev, make([]byte, disk.SectorSize), at)
}

// write is durable when it returns.
func write(dev Device, b []byte, at int64) error {
	if _, err := dev.WriteAt(b, at); err != nil {
		return err
	}
	return dev.Sync()
}
