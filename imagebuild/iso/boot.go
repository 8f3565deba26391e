package iso

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"

	"xnodeos.org/internal/disk"
)

const (
	mbrCodeSize   = 432 // isohdpfx.bin; the loader's place follows
	bootInfoStart = 8   // the table of isolinux.bin lies at bytes 8 to 63
	bootInfoEnd   = 64
	loadSectors   = 4 // of 512 bytes: what the BIOS loads of isolinux.bin
	platformEFI   = 0xEF
	elToritoID    = "EL TORITO SPECIFICATION"
	bootable      = 0x88
	lastSection   = 0x91
)

// patchLoader fills in isolinux.bin's boot information table (isolinux'
// "-boot-info-table"): PVD, own place, own length, sum of what follows.
func patchLoader(b []byte, at uint32) []byte {
	b = bytes.Clone(b)
	clear(b[bootInfoStart:bootInfoEnd])
	var sum uint32
	words := append(bytes.Clone(b[bootInfoEnd:]), 0, 0, 0)
	for i := 0; i+4 <= len(words); i += 4 {
		sum += le.Uint32(words[i:])
	}
	le.PutUint32(b[8:], pvdSector)
	le.PutUint32(b[12:], at)
	le.PutUint32(b[16:], uint32(len(b)))
	le.PutUint32(b[20:], sum)
	return b
}

// UnpatchedLoader gives isolinux.bin without its boot information table (zeros
// in its place), so that the file of an image and the one that was given can
// be compared or hashed. Shorter input comes back as it is.
func UnpatchedLoader(b []byte) []byte {
	b = bytes.Clone(b)
	if len(b) >= bootInfoEnd {
		clear(b[bootInfoStart:bootInfoEnd])
	}
	return b
}

func readAll(f File) (data []byte, err error) {
	r, err := f.Open()
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", f.Name, err)
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	data, err = io.ReadAll(io.LimitReader(r, f.Size+1))
	if err == nil && int64(len(data)) != f.Size {
		err = fmt.Errorf("got %d bytes, expected %d", len(data), f.Size)
	}
	if err != nil {
		return nil, fmt.Errorf("read %q: %w", f.Name, err)
	}
	return data, nil
}

// bootRecord is the volume descriptor that names the boot catalog.
func bootRecord(catalog uint32) []byte {
	b := descriptor(0)
	copy(b[7:], elToritoID)
	le.PutUint32(b[71:], catalog)
	return b
}

// bootCatalog has the BIOS entry first and the EFI entry in a section of its
// own (El Torito 1.0 section 2, UEFI 2.10 section 13.3.2).
func bootCatalog(loader, esp uint32, espSize int64) []byte {
	b := make([]byte, sector)
	b[0] = 1 // validation entry, platform x86
	copy(b[4:28], volumeMaker)
	b[30], b[31] = 0x55, 0xAA
	var sum uint16
	for i := 0; i < 32; i += 2 {
		sum += le.Uint16(b[i:])
	}
	le.PutUint16(b[28:], -sum)
	bootEntry(b[32:], loader, loadSectors)
	b[64], b[65] = lastSection, platformEFI
	le.PutUint16(b[66:], 1)
	copy(b[68:96], "EFI")
	bootEntry(b[96:], esp, espLoadSize(espSize))
	return b
}

// espLoadSize counts sectors of 512 bytes. Where 16 bits do not reach, 0 says
// "up to the end of the medium" (UEFI 2.10 section 13.3.2.1).
func espLoadSize(size int64) uint16 {
	if n := size / disk.SectorSize; n <= math.MaxUint16 {
		return uint16(n)
	}
	return 0
}

func bootEntry(b []byte, at uint32, sectors uint16) {
	b[0] = bootable
	le.PutUint16(b[6:], sectors)
	le.PutUint32(b[8:], at)
}

// hybridMBR boots the loader from a disk. The protective entry comes first;
// the empty active one is for BIOSes that boot nothing without it.
func hybridMBR(spec *Spec, loader uint32, size int64) []byte {
	m := disk.MBR{Signature: spec.IDs.MBR}
	copy(m.Code[:], spec.MBR)
	le.PutUint64(m.Code[mbrCodeSize:], uint64(loader)*sector/disk.SectorSize)
	m.Entries[0] = disk.ProtectiveEntry(uint64(size) / disk.SectorSize)
	m.Entries[1] = disk.MBREntry{Active: true, Sectors: 1}
	return m.Encode()
}

// partitionTable names the ESP; the ISO file system itself is no partition.
func partitionTable(spec *Spec, esp extentBytes, size int64) (primary, backup []byte, err error) {
	typ, err := disk.ParseGUID(disk.TypeESP)
	if err != nil {
		return nil, nil, err
	}
	return disk.Table{
		ID:      spec.IDs.Disk,
		Sectors: uint64(size) / disk.SectorSize,
		Partitions: []disk.Partition{{
			Type: typ, ID: spec.IDs.Partition, Name: "EFI system partition",
			First: uint64(esp.offset) / disk.SectorSize,
			Last:  uint64(esp.offset+esp.size)/disk.SectorSize - 1,
		}},
	}.Encode()
}

type extentBytes struct{ offset, size int64 }
