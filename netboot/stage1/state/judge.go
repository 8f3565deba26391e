package state

import (
	"errors"
	"fmt"
	"io"

	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/ext4"
)

// Action is what has to be done with a disk.
type Action string

// The actions. Each is preceded by the one question whether data would be lost
// that is not ours.
const (
	// Open mounts the file system that is there.
	Open Action = "open"
	// MakePartition writes a file system over a partition, or over what was
	// found on it of ours.
	MakePartition Action = "make the file system"
	// MakeDisk writes a partition table and a file system.
	MakeDisk Action = "make the partition and the file system"
)

// Plan says what to do with which device.
type Plan struct {
	Action Action
	Disk   Disk
	// Begun says that an earlier boot was cut off while it made this one.
	Begun bool
	// Unclean says that the journal will be replayed, Damaged that the kernel
	// has found errors before.
	Unclean, Damaged bool
}

// ForeignError says that a disk holds something that is not ours.
type ForeignError struct {
	Disk Disk
	What string
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s holds %s; it is not touched: name a blank disk (wipe it with wipefs -a and blkdiscard, or dd if=/dev/zero), "+
		"or give it a partition named %s", e.Disk, e.What, PartitionName)
}

// minBytes is the smallest disk or partition that makes sense.
const minBytes = 64 << 20

// Device is an open block device.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Judge decides what to do with the disk that was asked for. all is what
// ListDisks returned; read opens a device for reading and closes it again.
func Judge(all []Disk, d Disk, discard bool, read func(Disk, func(io.ReaderAt) error) error) (Plan, error) {
	ours := d
	if d.Parent == "" {
		var parts []Disk
		for _, p := range all {
			if p.Parent == d.Name && p.Label == PartitionName {
				parts = append(parts, p)
			}
		}
		if len(parts) > 1 {
			return Plan{}, fmt.Errorf("%s has %d partitions named %s; name the one that is meant, or rename the others", d, len(parts), PartitionName)
		}
		if len(parts) == 1 {
			ours = parts[0]
		}
	}
	if ours.ReadOnly {
		return Plan{}, fmt.Errorf("%s can only be read; take its write protection off, or name another disk", ours)
	}
	if ours.Sectors*512 < minBytes {
		return Plan{}, fmt.Errorf("%s has %d MiB; at least %d are needed", ours, ours.Sectors*512>>20, minBytes>>20)
	}
	plan := Plan{Disk: ours}
	err := read(ours, func(r io.ReaderAt) (err error) {
		plan, err = judgeContent(ours, discard, r)
		return err
	})
	return plan, err
}

func judgeContent(d Disk, discard bool, r io.ReaderAt) (Plan, error) {
	size := d.Sectors * 512
	make := Plan{Action: MakePartition, Disk: d}
	if begun, err := hasMark(r, 0); err != nil || begun {
		make.Begun = true
		return make, err
	}
	head, isExt4, err := ext4.ReadHead(r)
	if err != nil {
		return Plan{}, err
	}
	if isExt4 && head.Label == PartitionName {
		if discard {
			return make, nil
		}
		if head.Size > size {
			return Plan{}, fmt.Errorf("the file system on %s has %d bytes and its place %d; restore the partition table, or begin anew with xnode.state=new:DISK",
				d, head.Size, size)
		}
		return Plan{Action: Open, Disk: d, Unclean: head.Unclean, Damaged: head.Errors}, nil
	}
	blank, err := isBlank(r, size)
	if err != nil {
		return Plan{}, err
	}
	what := ""
	if !blank {
		if what, err = identify(r, size); err != nil {
			return Plan{}, err
		}
	}
	if d.Parent != "" {
		// The partition's name says whose it is, as long as nothing else does.
		damaged := d.Label == PartitionName && what == unknownData
		switch {
		case blank, damaged && discard:
			return make, nil
		case damaged:
			return Plan{}, fmt.Errorf("%s is named %s and has no file system that can be read; it is not touched: have it looked at, or begin anew with xnode.state=new:DISK",
				d, PartitionName)
		}
		return Plan{}, &ForeignError{d, what}
	}
	make.Action = MakeDisk
	if !blank {
		begun, err := isBegun(r, size)
		if err != nil || !begun {
			return Plan{}, errorsFirst(err, &ForeignError{d, what})
		}
		make.Begun = true
	}
	if d.SectorSize != disk.SectorSize {
		return Plan{}, fmt.Errorf("%s has sectors of %d bytes, for which no partition table can be made here; give it a partition named %s (sgdisk -n 1:0:0 -c 1:%s)",
			d, d.SectorSize, PartitionName, PartitionName)
	}
	return make, nil
}

func errorsFirst(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// blankHead and blankTail are where partition tables and file systems have
// their first bytes, and some of them a copy.
const (
	blankHead = 2 << 20
	blankTail = 1 << 20
)

func isBlank(r io.ReaderAt, size int64) (bool, error) {
	head, err := allZero(r, 0, min(blankHead, size))
	if err != nil || !head {
		return false, err
	}
	from := max(0, size-blankTail)
	return allZero(r, from, size-from)
}

func allZero(r io.ReaderAt, from, count int64) (bool, error) {
	buf := make([]byte, 64<<10)
	for count > 0 {
		b := buf[:min(count, int64(len(buf)))]
		if err := readFull(r, b, from); err != nil {
			return false, err
		}
		for _, c := range b {
			if c != 0 {
				return false, nil
			}
		}
		from, count = from+int64(len(b)), count-int64(len(b))
	}
	return true, nil
}

func readFull(r io.ReaderAt, b []byte, at int64) error {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read %d bytes at %d: %w", len(b), at, err)
}

// PartitionTable is what a ForeignError calls a GPT.
const PartitionTable = "a partition table (GPT)"

// unknownData is what is said of bytes that mean nothing to us.
const unknownData = "data of an unknown kind"

type signature struct {
	at    int64 // from the end if negative
	bytes string
	what  string
}

// signatures are those of blkid that matter to a person who named the wrong
// disk; whatever they miss is refused all the same.
var signatures = []signature{
	{512, "EFI PART", PartitionTable},
	{0, "LUKS\xba\xbe", "an encrypted volume (LUKS)"},
	{0, "XFSB", "an XFS file system"},
	{0x10040, "_BHRfS_M", "a btrfs file system"},
	{0x438, "\x53\xef", "an ext file system"},
	{512, "LABELONE", "an LVM volume"},
	{0x1000, "\xfc\x4e\x2b\xa9", "a RAID member"},
	{0, "\xfc\x4e\x2b\xa9", "a RAID member"},
	{4086, "SWAPSPACE2", "swap space"},
	{0x8001, "CD001", "an ISO 9660 image"},
	{3, "NTFS    ", "an NTFS file system"},
	{54, "FAT1", "a FAT file system"},
	{82, "FAT32", "a FAT file system"},
	{0, "hsqs", "a squashfs"},
	{510, "\x55\xaa", "a partition table (MBR)"},
	{-512, "EFI PART", "the backup of a partition table (GPT)"},
}

func identify(r io.ReaderAt, size int64) (string, error) {
	for _, s := range signatures {
		at := s.at
		if at < 0 {
			at += size
		}
		if at < 0 || at+int64(len(s.bytes)) > size {
			continue
		}
		b := make([]byte, len(s.bytes))
		if err := readFull(r, b, at); err != nil {
			return "", err
		}
		if string(b) == s.bytes {
			return s.what, nil
		}
	}
	return unknownData, nil
}
