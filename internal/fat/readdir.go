package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"xnodeos.org/internal/disk"
)

// folderAt says where a folder lies, for the check of its dot entries.
type folderAt struct {
	self, up uint32
	depth    int
}

// folder reads the entries of one folder and what lies below it.
func (v *Volume) folder(data []byte, path string, at folderAt) error {
	if v.folders++; v.folders > maxFolders || at.depth > maxReadDepth {
		return fmt.Errorf("folder %q: too many folders or too deep", path)
	}
	var long longName
	for i := 0; i < len(data); i += direntSize {
		e := data[i : i+direntSize]
		if e[0] == 0 {
			return v.checkRest(data[i:], path)
		}
		if v.entries++; v.entries > maxEntries {
			return errors.New("too many entries")
		}
		switch {
		case e[0] == 0xE5:
			long = longName{}
		case e[11]&0x3F == attrLong:
			long.add(e)
		case e[11]&attrVolume != 0:
			if path == "" {
				v.Label = strings.TrimRight(string(e[:11]), " ")
			}
		default:
			if err := v.entry(e, long.take(e), path, at, i/direntSize); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkRest tells of entries behind the end mark, which only hide things.
func (v *Volume) checkRest(rest []byte, path string) error {
	if len(bytes.Trim(rest, "\x00")) != 0 {
		v.say("folder %q: bytes behind its last entry", path)
	}
	return nil
}

func (v *Volume) entry(e []byte, name, path string, at folderAt, index int) error {
	le := binary.LittleEndian
	first := uint32(le.Uint16(e[26:])) | uint32(le.Uint16(e[20:]))<<16
	if v.Bits == 16 {
		first &= 0xFFFF
	}
	size := int64(le.Uint32(e[28:]))
	if name == "." || name == ".." {
		if want := map[string]uint32{".": at.self, "..": at.up}[name]; at.depth == 1 || index > 1 || first != want {
			v.say("folder %q: invalid entry %q", path, name)
		}
		return nil
	}
	if strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("folder %q: name %q", path, name)
	}
	full := strings.TrimPrefix(path+"/"+name, "/")
	if e[11]&attrDir != 0 {
		data, err := v.readChain(first)
		if err != nil {
			return fmt.Errorf("folder %q: %w", full, err)
		}
		return v.folder(data, full, folderAt{self: first, up: at.self, depth: at.depth + 1})
	}
	f := FileInfo{Name: full, Size: size}
	if size > 0 || first != 0 {
		runs, err := v.chain(first)
		if err != nil {
			return fmt.Errorf("file %q: %w", full, err)
		}
		f.Runs = runs
	}
	if err := v.fit(&f); err != nil {
		return fmt.Errorf("file %q: %w", full, err)
	}
	if key := strings.ToLower(full); v.seen[key] {
		v.say("file %q is there twice", full)
	} else {
		v.seen[key] = true
	}
	v.files = append(v.files, f)
	return nil
}

// fit compares a file's size with its clusters and cuts the last run.
func (v *Volume) fit(f *FileInfo) error {
	var room int64
	for _, r := range f.Runs {
		room += r.Size
	}
	if room < f.Size {
		return fmt.Errorf("size %d, but its clusters hold %d bytes", f.Size, room)
	}
	if over := room - f.Size; over >= v.boot.perCluster*sectorSize {
		v.say("file %q: more clusters than its size needs", f.Name)
		f.Runs = cut(f.Runs, f.Size)
	} else if over > 0 {
		f.Runs[len(f.Runs)-1].Size -= over
	}
	return nil
}

func cut(runs []disk.Run, size int64) []disk.Run {
	for i, r := range runs {
		if r.Size >= size {
			runs[i].Size = size
			return runs[:i+1]
		}
		size -= r.Size
	}
	return runs
}

func (v *Volume) say(format string, args ...any) {
	if len(v.problems) < 100 {
		v.problems = append(v.problems, fmt.Sprintf(format, args...))
	}
}

// checkTables compares copies and counters once everything has been walked.
func (v *Volume) checkTables(boot []byte, size int64) {
	i := v.boot
	if v.Label != i.label {
		v.say("label is %q in the root folder and %q in the boot sector", v.Label, i.label)
	}
	if i.fats == 2 {
		second, err := v.read((i.reserved+i.fatSectors)*sectorSize, i.fatSectors*sectorSize)
		if err != nil || !bytes.Equal(second, v.table) {
			v.say("the two FATs differ")
		}
	}
	var free, lost uint32
	for c := uint32(2); c < i.clusters+2; c++ {
		if v.next(c) == 0 {
			free++
		} else if !v.owner[c] {
			lost++
		}
	}
	if lost > 0 {
		v.say("%d clusters are in use but belong to nothing", lost)
	}
	if v.Bits == 32 {
		v.checkFSInfo(boot, free, size)
	}
}

func (v *Volume) checkFSInfo(boot []byte, free uint32, size int64) {
	i := v.boot
	if int64(i.fsinfo) >= i.reserved || int64(i.backup) >= i.reserved || i.fsinfo == 0 || i.backup == 0 || i.reserved*sectorSize > size {
		v.say("no FSInfo sector or backup boot sector")
		return
	}
	info, err := v.read(int64(i.fsinfo)*sectorSize, sectorSize)
	le := binary.LittleEndian
	if err != nil || le.Uint32(info) != fsinfoLead || le.Uint32(info[484:]) != fsinfoStruct || le.Uint32(info[508:]) != fsinfoTrail {
		v.say("FSInfo sector has no signature")
	} else if got := le.Uint32(info[488:]); got != free {
		v.say("FSInfo says %d free clusters, there are %d", got, free)
	}
	if backup, err := v.read(int64(i.backup)*sectorSize, sectorSize); err != nil || !bytes.Equal(backup, boot) {
		v.say("backup boot sector differs")
	}
}

// longName gathers long entries until the short one comes.
type longName struct {
	units []uint16
	next  byte
	sum   byte
}

func (l *longName) add(e []byte) {
	seq := e[0] & 0x3F
	if e[0]&0x40 != 0 {
		*l = longName{next: seq, sum: e[13]}
	}
	if seq == 0 || seq > 20 || seq != l.next || e[13] != l.sum {
		*l = longName{}
		return
	}
	part := make([]uint16, 0, lfnUnits+len(l.units))
	for _, at := range lfnPlaces {
		part = append(part, binary.LittleEndian.Uint16(e[at:]))
	}
	l.units = append(part, l.units...)
	l.next--
}

// take gives the long name if it belongs to the short entry e, else e's own.
func (l *longName) take(e []byte) string {
	defer func() { *l = longName{} }()
	short := [11]byte(e[:11])
	if len(l.units) > 0 && l.next == 0 && l.sum == shortSum(short) {
		units := l.units
		if end := slices.Index(units, 0); end >= 0 {
			units = units[:end]
		}
		return string(utf16.Decode(units))
	}
	base, ext := strings.TrimRight(string(e[:8]), " "), strings.TrimRight(string(e[8:11]), " ")
	if e[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	return strings.TrimSuffix(base+"."+ext, ".")
}
