package iso

import (
	"encoding/binary"
	"fmt"
	"time"
)

var le, be = binary.LittleEndian, binary.BigEndian

const (
	flagDir    = 0x02
	flagMulti  = 0x80
	modeDir    = 0o040555
	modeFile   = 0o100444
	recordBase = 33
)

// Rock Ridge's extension reference, word for word from RRIP 1.10 section 4.3.
const (
	rripID     = "RRIP_1991A"
	rripText   = "THE ROCK RIDGE INTERCHANGE PROTOCOL PROVIDES SUPPORT FOR POSIX FILE SYSTEM SEMANTICS"
	rripSource = "PLEASE CONTACT DISC PUBLISHER FOR SPECIFICATION SOURCE.  SEE PUBLISHER IDENTIFIER IN PRIMARY VOLUME DESCRIPTOR FOR CONTACT INFORMATION."
)

func both16(v uint16) []byte { return be.AppendUint16(le.AppendUint16(nil, v), v) }
func both32(v uint32) []byte { return be.AppendUint32(le.AppendUint32(nil, v), v) }

// shortDate is the 7-byte date of a directory record (ECMA-119 9.1.5), UTC.
func shortDate(unix int64) []byte {
	t := time.Unix(unix, 0).UTC()
	return []byte{byte(t.Year() - 1900), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0}
}

// longDate is the 17-byte date of a volume descriptor (ECMA-119 8.4.26.1).
func longDate(unix int64) []byte {
	return append([]byte(time.Unix(unix, 0).UTC().Format("20060102150405")+"00"), 0)
}

// record is one directory record (ECMA-119 9.1) with its system use fields.
func record(id string, x extent, flags byte, unix int64, use []byte) []byte {
	size := recordBase + len(id)
	size += (len(id) + 1) & 1
	head := size
	size += len(use)
	size += size & 1
	b := make([]byte, size)
	b[0] = byte(size)
	copy(b[2:], both32(x.sector))
	copy(b[10:], both32(x.size))
	copy(b[18:], shortDate(unix))
	b[25] = flags
	copy(b[28:], both16(1))
	b[32] = byte(len(id))
	copy(b[33:], id)
	copy(b[head:], use)
	return b
}

// susp is one system use entry: signature, length, version 1, data.
func susp(signature string, data ...byte) []byte {
	return append([]byte{signature[0], signature[1], byte(4 + len(data)), 1}, data...)
}

// posix gives PX and TF of an entry.
func posix(e *entry, unix int64) []byte {
	mode, links := uint32(modeFile), uint32(1)
	if e.dir {
		mode, links = modeDir, 2
		for _, c := range e.children {
			if c.dir {
				links++
			}
		}
	}
	px := append(both32(mode), both32(links)...)
	px = append(px, both32(0)...) // uid
	px = append(px, both32(0)...) // gid
	tf := []byte{0x0E}            // modification, access, attribute change
	for range 3 {
		tf = append(tf, shortDate(unix)...)
	}
	return append(susp("PX", px...), susp("TF", tf...)...)
}

// rootUse are the fields that only the root's "." record has: SP, and CE that
// leads to ER in a sector of its own.
func rootUse(continuation uint32) []byte {
	ce := append(both32(continuation), both32(0)...)
	ce = append(ce, both32(uint32(len(extensionReference())))...)
	return append(susp("SP", 0xBE, 0xEF, 0), susp("CE", ce...)...)
}

func extensionReference() []byte {
	data := []byte{byte(len(rripID)), byte(len(rripText)), byte(len(rripSource)), 1}
	return susp("ER", append(data, rripID+rripText+rripSource...)...)
}

// folderRecords are all records of a folder. Extents may still be zero, which
// does not change their length.
func (e *entry) folderRecords(unix int64, continuation uint32) [][]byte {
	self := posix(e, unix)
	if e.parent == e {
		self = append(rootUse(continuation)[:7:7], append(self, rootUse(continuation)[7:]...)...)
	}
	out := [][]byte{
		record("\x00", e.extents[0], flagDir, unix, self),
		record("\x01", e.parent.extents[0], flagDir, unix, posix(e.parent, unix)),
	}
	for _, c := range e.children {
		use := append(posix(c, unix), susp("NM", append([]byte{0}, c.name...)...)...)
		flags := byte(0)
		if c.dir {
			flags = flagDir
		}
		for i, x := range c.extents {
			if i < len(c.extents)-1 {
				out = append(out, record(c.plain, x, flags|flagMulti, unix, use))
				continue
			}
			out = append(out, record(c.plain, x, flags, unix, use))
		}
	}
	return out
}

// pack puts records one after another; none crosses a sector (ECMA-119 6.8.1.1).
func pack(records [][]byte) []byte {
	var out []byte
	for _, r := range records {
		if room := sector - len(out)%sector; len(r) > room {
			out = append(out, make([]byte, room)...)
		}
		out = append(out, r...)
	}
	return append(out, make([]byte, roundUp(int64(len(out)), sector)-int64(len(out)))...)
}

// pathTable is the table of all folders (ECMA-119 9.4), in either byte order.
func pathTable(dirs []*entry, order binary.AppendByteOrder) []byte {
	var out []byte
	for _, d := range dirs {
		out = append(out, byte(len(d.plain)), 0)
		out = order.AppendUint32(out, d.extents[0].sector)
		out = order.AppendUint16(out, uint16(d.parent.number))
		out = append(out, d.plain...)
		if len(d.plain)%2 != 0 {
			out = append(out, 0)
		}
	}
	return out
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }

func padded(text string, size int) []byte { return []byte(fmt.Sprintf("%-*s", size, text)) }
