package iso

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"xnodeos.org/internal/disk"
)

// File is content with a slash-separated name below the root of the volume.
type File = disk.File

// Bytes is a File whose content is in memory.
func Bytes(name string, data []byte) File { return disk.Bytes(name, data) }

// Spec says what an image holds. Data lies on the medium in the order: Loader,
// Files before the ESP, the ESP with its files in their order, the other Files.
type Spec struct {
	VolumeID string // 1 to 11 of A-Z 0-9 _ ; also the label of the ESP
	Time     int64  // Unix seconds, for every date in the image
	IDs      IDs

	Loader File   // isolinux.bin; its boot information table is filled in
	MBR    []byte // isohdpfx.bin, 432 bytes

	// First are files that lie before the ESP, such as what the BIOS loader
	// reads; Files lie behind it.
	First, Files []File
	// ESPName is the ISO name of the EFI system partition, ESP are its files.
	ESPName string
	ESP     []File
	// Shared are further ISO names for files of the ESP, stored once.
	Shared []Shared
}

// Shared gives the ESP's file its ISO name.
type Shared struct{ Name, ESP string }

// IDs are the identifiers in the image that are not names.
type IDs struct {
	Disk, Partition disk.GUID
	MBR, FAT        uint32
}

// DeriveIDs makes identifiers from a hash that the caller computes over what
// is built, so that different images differ and equal ones are equal.
func DeriveIDs(seed [32]byte) IDs {
	mbr, fat := disk.DeriveGUID(seed, "mbr"), disk.DeriveGUID(seed, "fat")
	return IDs{
		Disk:      disk.DeriveGUID(seed, "disk"),
		Partition: disk.DeriveGUID(seed, "esp"),
		MBR:       le.Uint32(mbr[:4]),
		FAT:       le.Uint32(fat[:4]),
	}
}

// maxLoader bounds what is held in memory; isolinux.bin is 38 KiB.
const maxLoader = 1 << 20

func (s *Spec) validate() error {
	if s.IDs.Disk.IsZero() || s.IDs.Partition.IsZero() {
		return fmt.Errorf("identifiers are zero; use DeriveIDs")
	}
	if len(s.MBR) != mbrCodeSize {
		return fmt.Errorf("MBR code has %d bytes; isohdpfx.bin of isolinux has %d", len(s.MBR), mbrCodeSize)
	}
	if s.Loader.Size < bootInfoEnd || s.Loader.Size > maxLoader {
		return fmt.Errorf("loader %q has %d bytes; want isolinux.bin", s.Loader.Name, s.Loader.Size)
	}
	return s.validateFiles()
}

// validateFiles checks what every volume has.
func (s *Spec) validateFiles() error {
	if err := checkVolumeID(s.VolumeID); err != nil {
		return err
	}
	if year := time.Unix(s.Time, 0).UTC().Year(); s.Time < 0 || year > 2155 {
		return fmt.Errorf("time %d: want a Unix time from 1970 to 2155", s.Time)
	}
	for _, f := range s.plainFiles() {
		if f.Size < 0 || f.Size > maxExtents*maxExtent {
			return fmt.Errorf("file %q: size %d is not within 0 to %d", f.Name, f.Size, int64(maxExtents*maxExtent))
		}
	}
	return nil
}

func (s *Spec) plainFiles() []File {
	if s.Loader.Name == "" {
		return s.Files // a plain volume
	}
	return slices.Concat([]File{s.Loader}, s.First, s.Files)
}

func checkVolumeID(id string) error {
	if id == "" || len(id) > 11 {
		return fmt.Errorf("volume id %q: want 1 to 11 characters", id)
	}
	for _, c := range []byte(id) {
		if strings.IndexByte("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_", c) < 0 {
			return fmt.Errorf("volume id %q: character %q; allowed are A-Z 0-9 _", id, c)
		}
	}
	return nil
}
