package raw

import (
	"encoding/binary"
	"fmt"
	"io"

	"xnodeos.org/imagebuild/iso"
	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/fat"
)

// Disk is an image that was taken apart.
type Disk struct {
	ESP      *fat.Volume
	Payload  *iso.Image
	GRUBBoot []byte // as UnpatchedBoot gives it
	GRUBCore []byte // as UnpatchedCore gives it
	Problems []string
}

// UnpatchedBoot gives boot.img without what the layout writes into it and
// without what an MBR has no place for, so that the file that was given and
// the one found in an image are the same. Other lengths come back as they are.
func UnpatchedBoot(boot []byte) []byte {
	if len(boot) != mbrBootImgBytes {
		return boot
	}
	b := make([]byte, mbrBootImgBytes)
	copy(b[:bootCodeSize], boot)
	clear(b[bootCoreSector : bootCoreSector+8])
	clear(b[bootDriveCheck : bootDriveCheck+2])
	return b
}

// UnpatchedCore gives core.img in whole sectors without its block list.
// Shorter input than two sectors comes back as it is.
func UnpatchedCore(core []byte) []byte {
	if len(core) < 2*sectorSize {
		return core
	}
	b := make([]byte, (len(core)+sectorSize-1)/sectorSize*sectorSize)
	copy(b, core)
	clear(b[coreListSector : coreListLength+2])
	return b
}

// Open takes the disk of size bytes apart. A disk whose parts cannot be found
// is an error; what is wrong with the tables stands in Problems.
func Open(r io.ReaderAt, size int64) (*Disk, error) {
	table, problems := disk.CheckTables(r, size)
	d := &Disk{Problems: problems}
	part := map[string]*io.SectionReader{}
	for _, p := range table.Partitions {
		if p.Last < p.First || p.Last >= uint64(size)/sectorSize {
			return nil, fmt.Errorf("read disk: partition %q lies outside", p.Name)
		}
		part[p.Name] = io.NewSectionReader(r, int64(p.First)*sectorSize, int64(p.Last-p.First+1)*sectorSize)
	}
	for _, name := range []string{bootName, ESPName, PayloadName} {
		if part[name] == nil {
			return nil, fmt.Errorf("read disk: it has no partition %s", name)
		}
	}
	var err error
	if d.ESP, err = fat.Open(part[ESPName], part[ESPName].Size()); err != nil {
		return nil, fmt.Errorf("read disk: %s: %w", ESPName, err)
	}
	if d.Payload, err = iso.Open(part[PayloadName], part[PayloadName].Size()); err != nil {
		return nil, fmt.Errorf("read disk: %s: %w", PayloadName, err)
	}
	return d, d.readGRUB(r, part[bootName])
}

func (d *Disk) readGRUB(r io.ReaderAt, boot *io.SectionReader) error {
	mbr := make([]byte, mbrBootImgBytes)
	if _, err := r.ReadAt(mbr, 0); err != nil {
		return fmt.Errorf("read disk: MBR: %w", err)
	}
	d.GRUBBoot = UnpatchedBoot(mbr)
	first := make([]byte, sectorSize)
	if _, err := boot.ReadAt(first, 0); err != nil {
		return fmt.Errorf("read disk: %s: %w", bootName, err)
	}
	sectors := 1 + int64(binary.LittleEndian.Uint16(first[coreListLength:]))
	if sectors*sectorSize > boot.Size() {
		return fmt.Errorf("read disk: %s: the core image would have %d sectors, more than the partition", bootName, sectors)
	}
	core := make([]byte, sectors*sectorSize)
	if _, err := boot.ReadAt(core, 0); err != nil {
		return fmt.Errorf("read disk: %s: %w", bootName, err)
	}
	d.GRUBCore = UnpatchedCore(core)
	return nil
}
