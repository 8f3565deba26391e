// Package raw lays out a disk image that BIOS and UEFI boot: GUID partition
// table, a BIOS boot partition with GRUB's core image, an EFI system partition
// with room to grow, and a partition with the payload.
//
// The payload partition is a plain ISO 9660 volume with the same names as the
// ISO, so the first stage finds it as it finds any medium. The layout is pure;
// the image is written in one pass, its free space as zeros that a caller may
// leave out as holes. The same spec gives the same bytes. The image may lie on
// a larger disk.
//
// It does not make the files and does not install anything.
package raw

import (
	"encoding/binary"
	"fmt"

	"xnodeos.org/imagebuild/iso"
	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/fat"
)

// Names that the first stage, the installer and people look for.
const (
	ESPName     = "XNODE-ESP"
	PayloadName = "XNODE-PAYLOAD"
	bootName    = "XNODE-BOOT"
)

// ESPSize is the least size of the EFI system partition in bytes: an installed
// node keeps several kernels there.
const ESPSize = 512 << 20

const (
	sectorSize = disk.SectorSize
	// alignment of partitions, in bytes, as partition tools have it.
	alignment = 1 << 20
	// bootSize is the BIOS boot partition.
	bootSize = 1 << 20
)

// Places in GRUB's images (grub-core/boot/i386/pc/boot.S and diskboot.S in
// GRUB 2.06): where boot.img finds the core image, the jump that it leaves out
// on hard disks, and the first block list entry of the core image.
const (
	bootCodeSize    = 440
	bootCoreSector  = 0x5c
	bootDriveCheck  = 0x66
	coreListSector  = 0x1f4
	coreListLength  = 0x1fc
	maxCore         = bootSize
	nop             = 0x90
	mbrBootImgBytes = 512
)

// Spec says what the image holds.
type Spec struct {
	Time     int64 // Unix seconds, for every date
	IDs      IDs
	GRUBBoot []byte // boot.img, 512 bytes
	GRUBCore []byte // core.img, for the BIOS boot partition
	ESP      []disk.File
	ESPSize  int64 // least size; 0 means ESPSize
	VolumeID string
	Payload  []disk.File // of the payload volume
}

// IDs are the identifiers in the image that are not names.
type IDs struct {
	Disk, Boot, ESP, Payload disk.GUID
	MBR, FAT                 uint32
}

// DeriveIDs makes identifiers from a hash that the caller computes over what
// is built.
func DeriveIDs(seed [32]byte) IDs {
	word := func(purpose string) uint32 {
		g := disk.DeriveGUID(seed, purpose)
		return binary.LittleEndian.Uint32(g[:4])
	}
	return IDs{
		Disk: disk.DeriveGUID(seed, "disk"), Boot: disk.DeriveGUID(seed, "boot"),
		ESP: disk.DeriveGUID(seed, "esp"), Payload: disk.DeriveGUID(seed, "payload"),
		MBR: word("mbr"), FAT: word("fat"),
	}
}

// New computes the layout; it opens no file.
func New(spec Spec) (*disk.Image, error) {
	image, err := layout(spec)
	if err != nil {
		return nil, fmt.Errorf("lay out disk: %w", err)
	}
	return image, image.Validate()
}

func layout(spec Spec) (*disk.Image, error) {
	if spec.ESPSize == 0 {
		spec.ESPSize = ESPSize
	}
	esp, err := fat.New(fat.Spec{
		Label: ESPName, Serial: spec.IDs.FAT, Time: spec.Time, Files: spec.ESP, MinSize: spec.ESPSize,
	})
	if err != nil {
		return nil, err
	}
	payload, err := iso.NewVolume(spec.VolumeID, spec.Time, spec.Payload)
	if err != nil {
		return nil, err
	}
	b := &builder{spec: &spec, next: alignment}
	core, err := b.core(b.next)
	if err != nil {
		return nil, err
	}
	if err := b.partition(disk.TypeBIOSBoot, spec.IDs.Boot, bootName, disk.Image{
		Size: bootSize, Segments: []disk.Segment{{File: disk.Bytes("GRUB core", core)}},
	}); err != nil {
		return nil, err
	}
	if err := b.partition(disk.TypeESP, spec.IDs.ESP, ESPName, esp.Image); err != nil {
		return nil, err
	}
	if err := b.partition(disk.TypeLinux, spec.IDs.Payload, PayloadName, payload.Image); err != nil {
		return nil, err
	}
	return b.finish()
}

// builder appends partitions.
type builder struct {
	spec       *Spec
	next       int64 // first free byte, aligned
	partitions []disk.Partition
	segments   []disk.Segment
}

func (b *builder) partition(kind string, id disk.GUID, name string, content disk.Image) error {
	typ, err := disk.ParseGUID(kind)
	if err != nil {
		return err
	}
	size := (content.Size + alignment - 1) / alignment * alignment
	b.partitions = append(b.partitions, disk.Partition{
		Type: typ, ID: id, Name: name,
		First: uint64(b.next) / sectorSize, Last: uint64(b.next+size)/sectorSize - 1,
	})
	for _, s := range content.Segments {
		s.Offset += b.next
		b.segments = append(b.segments, s)
	}
	b.next += size
	return nil
}

// core is the core image with its block list: all of it follows its own first
// sector.
func (b *builder) core(at int64) ([]byte, error) {
	core := make([]byte, (len(b.spec.GRUBCore)+sectorSize-1)/sectorSize*sectorSize)
	if copy(core, b.spec.GRUBCore) < 2*sectorSize || len(core) > maxCore {
		return nil, fmt.Errorf("GRUB core image has %d bytes; want %d to %d: run scripts/setup again", len(b.spec.GRUBCore), 2*sectorSize, maxCore)
	}
	binary.LittleEndian.PutUint64(core[coreListSector:], uint64(at)/sectorSize+1)
	binary.LittleEndian.PutUint16(core[coreListLength:], uint16(len(core)/sectorSize-1))
	return core, nil
}

// mbr is GRUB's boot.img, told where the core image is.
func (b *builder) mbr(sectors uint64) ([]byte, error) {
	if len(b.spec.GRUBBoot) != mbrBootImgBytes {
		return nil, fmt.Errorf("GRUB boot image has %d bytes, not %d: run scripts/setup again", len(b.spec.GRUBBoot), mbrBootImgBytes)
	}
	m := disk.MBR{Signature: b.spec.IDs.MBR}
	copy(m.Code[:bootCodeSize], b.spec.GRUBBoot)
	binary.LittleEndian.PutUint64(m.Code[bootCoreSector:], b.partitions[0].First)
	// Without the jump boot.img believes the BIOS about the drive it booted
	// from, which grub-install also chooses for hard disks.
	m.Code[bootDriveCheck], m.Code[bootDriveCheck+1] = nop, nop
	m.Entries[0] = disk.ProtectiveEntry(sectors)
	return m.Encode(), nil
}

// finish adds the tables.
func (b *builder) finish() (*disk.Image, error) {
	size := (b.next + disk.BackupBytes + alignment - 1) / alignment * alignment
	table := disk.Table{ID: b.spec.IDs.Disk, Sectors: uint64(size) / sectorSize, Partitions: b.partitions}
	primary, backup, err := table.Encode()
	if err != nil {
		return nil, err
	}
	mbr, err := b.mbr(table.Sectors)
	if err != nil {
		return nil, err
	}
	generated := func(name string, at int64, data []byte) disk.Segment {
		return disk.Segment{File: disk.Bytes(name, data), Offset: at, Generated: true}
	}
	head := []disk.Segment{generated("MBR", 0, mbr), generated("GPT", sectorSize, primary)}
	return &disk.Image{
		Size:     size,
		Segments: append(append(head, b.segments...), generated("GPT backup", size-int64(len(backup)), backup)),
	}, nil
}
