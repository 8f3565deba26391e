package fat

import (
	"encoding/binary"
	"fmt"
)

const (
	mediaFixed    = 0xF8
	fsinfoSector  = 1
	backupSector  = 6
	endOfChain    = 0x0FFFFFFF
	fsinfoLead    = 0x41615252
	fsinfoStruct  = 0x61417272
	fsinfoTrail   = 0xAA550000
	oemName       = "XNODEOS "
	sectorsPerTrk = 63
	heads         = 255
)

// headBytes is everything before the data area: boot sector (with FSInfo and
// backups in FAT32), both FATs and the place of a FAT16 root folder.
func headBytes(spec Spec, g geometry, dirs, files []*node, next uint32) []byte {
	head := make([]byte, int(g.dataSector())*sectorSize)
	boot := bootSector(spec, g, dirs[0].first)
	copy(head, boot)
	if g.bits == 32 {
		info := fsinfo(g, next)
		copy(head[fsinfoSector*sectorSize:], info)
		copy(head[backupSector*sectorSize:], boot)
		copy(head[(backupSector+1)*sectorSize:], info)
	}
	table := head[g.reserved*sectorSize:][:g.fatSectors*sectorSize]
	put := func(cluster, value uint32) {
		if g.bits == 32 {
			binary.LittleEndian.PutUint32(table[4*cluster:], value)
			return
		}
		binary.LittleEndian.PutUint16(table[2*cluster:], uint16(value))
	}
	put(0, endOfChain&^0xFF|mediaFixed)
	put(1, endOfChain)
	for _, n := range append(dirs[:len(dirs):len(dirs)], files...) {
		for i := range n.clusters {
			value := n.first + i + 1
			if i == n.clusters-1 {
				value = endOfChain
			}
			put(n.first+i, value)
		}
	}
	copy(head[(g.reserved+g.fatSectors)*sectorSize:], table)
	return head
}

func bootSector(spec Spec, g geometry, rootCluster uint32) []byte {
	b := make([]byte, sectorSize)
	le := binary.LittleEndian
	copy(b[3:], oemName)
	le.PutUint16(b[11:], sectorSize)
	b[13] = sectorsPerCluster
	le.PutUint16(b[14:], uint16(g.reserved))
	b[16] = fats
	b[21] = mediaFixed
	le.PutUint16(b[24:], sectorsPerTrk)
	le.PutUint16(b[26:], heads)
	if g.sectors() <= 0xFFFF && g.bits == 16 {
		le.PutUint16(b[19:], uint16(g.sectors()))
	} else {
		le.PutUint32(b[32:], g.sectors())
	}
	ext := b[36:] // the extended part begins later in FAT32
	if g.bits == 16 {
		le.PutUint16(b[17:], rootEntries16)
		le.PutUint16(b[22:], uint16(g.fatSectors))
	} else {
		le.PutUint32(b[36:], g.fatSectors)
		le.PutUint32(b[44:], rootCluster)
		le.PutUint16(b[48:], fsinfoSector)
		le.PutUint16(b[50:], backupSector)
		ext = b[64:]
	}
	ext[0] = 0x80 // BIOS drive
	ext[2] = 0x29 // serial, label and type follow
	le.PutUint32(ext[3:], spec.Serial)
	copy(ext[7:18], fmt.Sprintf("%-11s", spec.Label))
	copy(ext[18:26], fmt.Sprintf("FAT%d   ", g.bits))
	// Not bootable by BIOS: jump to INT 18h (next boot device), then stop.
	code := 36 + 26
	if g.bits == 32 {
		code = 64 + 26
	}
	copy(b, []byte{0xEB, byte(code - 2), 0x90})
	copy(b[code:], []byte{0xCD, 0x18, 0xEB, 0xFE})
	b[510], b[511] = 0x55, 0xAA
	return b
}

func fsinfo(g geometry, next uint32) []byte {
	b := make([]byte, sectorSize)
	le := binary.LittleEndian
	le.PutUint32(b, fsinfoLead)
	le.PutUint32(b[484:], fsinfoStruct)
	free := g.clusters + 2 - next
	le.PutUint32(b[488:], free)
	if free == 0 {
		next = 2 // a hint only; it must name a cluster that exists
	}
	le.PutUint32(b[492:], next)
	le.PutUint32(b[508:], fsinfoTrail)
	return b
}
