package stage1

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// MediumLabel is the ISO 9660 volume id of a medium that carries a payload.
const MediumLabel = "XNODEOS"

// VolumeKind is the file system that a label was read from.
type VolumeKind string

// The two kinds that are looked at.
const (
	VolumeISO VolumeKind = "iso9660"
	VolumeFAT VolumeKind = "vfat"
)

// ReadLabel says whether r begins with a FAT or ISO 9660 file system, and what
// it is called. Kind is "" for anything else; the error is one of reading. An
// ISO that also begins with a FAT boot sector counts as ISO.
func ReadLabel(r io.ReaderAt) (kind VolumeKind, label string, err error) {
	label, err = isoLabel(r)
	if err != nil || label != "" {
		return VolumeISO, label, err
	}
	label, err = fatLabel(r)
	if err != nil || label == "" {
		return "", "", err
	}
	return VolumeFAT, label, nil
}

// ISO 9660 (ECMA-119) 8.4: the primary volume descriptor is sector 16, or one
// that follows before the terminator; boot records may come first.
const (
	isoSector      = 2048
	isoFirstSector = 16
	isoMaxSectors  = 16
)

func isoLabel(r io.ReaderAt) (string, error) {
	buf := make([]byte, isoSector)
	for i := range int64(isoMaxSectors) {
		if err := readAt(r, buf, (isoFirstSector+i)*isoSector); err != nil {
			return "", err
		}
		if !bytes.Equal(buf[1:6], []byte("CD001")) || buf[0] == 255 {
			return "", nil
		}
		if buf[0] == 1 {
			return strings.TrimRight(string(buf[40:72]), " \x00"), nil
		}
	}
	return "", nil
}

// fatLayout is what the boot sector says of where the root folder is.
type fatLayout struct {
	label      string // of the boot sector
	rootOffset int64
	rootBytes  int
}

// fatLabel prefers the entry in the root folder over the boot sector, as blkid
// does: Windows and macOS write only there.
func fatLabel(r io.ReaderAt) (string, error) {
	boot := make([]byte, 512)
	if err := readAt(r, boot, 0); err != nil {
		return "", err
	}
	layout, ok := parseFATBoot(boot)
	if !ok {
		return "", nil
	}
	root := make([]byte, layout.rootBytes)
	if err := readAt(r, root, layout.rootOffset); err != nil {
		return "", err
	}
	if label := fatRootLabel(root); label != "" {
		return label, nil
	}
	return layout.label, nil
}

// maxRootBytes bounds what is read of a root folder: the label is nearly always
// its first entry.
const maxRootBytes = 16 << 10

func parseFATBoot(b []byte) (fatLayout, bool) {
	bytesPerSector := int64(binary.LittleEndian.Uint16(b[11:]))
	sectorsPerCluster := int64(b[13])
	reserved := int64(binary.LittleEndian.Uint16(b[14:]))
	fats := int64(b[16])
	entries := int64(binary.LittleEndian.Uint16(b[17:]))
	fatSectors := int64(binary.LittleEndian.Uint16(b[22:]))
	if b[510] != 0x55 || b[511] != 0xaa || sectorsPerCluster == 0 || reserved == 0 || fats == 0 || fats > 4 ||
		bytesPerSector < 512 || bytesPerSector > 4096 || bytesPerSector&(bytesPerSector-1) != 0 {
		return fatLayout{}, false
	}
	l := fatLayout{}
	switch {
	case bytes.HasPrefix(b[82:], []byte("FAT32")):
		fatSectors = int64(binary.LittleEndian.Uint32(b[36:]))
		cluster := int64(binary.LittleEndian.Uint32(b[44:]))
		if cluster < 2 {
			return fatLayout{}, false
		}
		l.label = fatName(b[71:82])
		l.rootOffset = (reserved + fats*fatSectors + (cluster-2)*sectorsPerCluster) * bytesPerSector
		l.rootBytes = int(min(sectorsPerCluster*bytesPerSector, maxRootBytes))
	case bytes.HasPrefix(b[54:], []byte("FAT1")):
		l.label = fatName(b[43:54])
		l.rootOffset = (reserved + fats*fatSectors) * bytesPerSector
		l.rootBytes = int(min(entries*32, maxRootBytes))
	default:
		return fatLayout{}, false
	}
	return l, true
}

// fatRootLabel returns the name of the volume entry of a root folder.
func fatRootLabel(root []byte) string {
	for ; len(root) >= 32; root = root[32:] {
		const volumeID, longName = 0x08, 0x0f
		switch {
		case root[0] == 0: // no entry follows
			return ""
		case root[0] == 0xe5, root[11]&longName == longName, root[11]&volumeID == 0:
			continue
		}
		return fatName(root[:11])
	}
	return ""
}

// fatName trims a label; "NO NAME" is how FAT writes that there is none.
func fatName(b []byte) string {
	name := strings.TrimRight(string(b), " \x00")
	if name == "NO NAME" {
		return ""
	}
	return name
}

// readAt fills buf; a device that ends before is no error and reads as zeros.
func readAt(r io.ReaderAt, buf []byte, offset int64) error {
	n, err := r.ReadAt(buf, offset)
	clear(buf[n:])
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read at byte %d: %w", offset, err)
	}
	return nil
}
