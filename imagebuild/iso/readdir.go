package iso

import (
	"errors"
	"fmt"
	"strings"

	"xnodeos.org/internal/disk"
)

// folder is a folder of an image being read.
type folder struct {
	id     string // plain ISO 9660 identifier
	path   string // Rock Ridge
	at     extent
	parent *folder
	number int
	depth  int
}

// dirRecord is one directory record as read.
type dirRecord struct {
	extent
	id      string
	flags   byte
	use     []byte
	uneven  bool // little- and big-endian halves differ
	special bool // extended attributes, interleaving or another volume
}

func parseRecord(b []byte) (dirRecord, error) {
	if len(b) < recordBase+1 || int(b[0]) < recordBase+1 || int(b[0]) > len(b) {
		return dirRecord{}, errors.New("a record is cut off")
	}
	b = b[:b[0]]
	idLen := int(b[32])
	if idLen == 0 || recordBase+idLen > len(b) {
		return dirRecord{}, errors.New("a record has an impossible name")
	}
	use := min(recordBase+idLen+(idLen+1)&1, len(b))
	return dirRecord{
		extent:  extent{le.Uint32(b[2:]), le.Uint32(b[10:])},
		id:      string(b[recordBase : recordBase+idLen]),
		flags:   b[25],
		use:     b[use:],
		uneven:  le.Uint32(b[2:]) != be.Uint32(b[6:]) || le.Uint32(b[10:]) != be.Uint32(b[14:]) || le.Uint16(b[28:]) != be.Uint16(b[30:]),
		special: b[1] != 0 || b[26] != 0 || b[27] != 0 || le.Uint16(b[28:]) != 1,
	}, nil
}

func (m *Image) dualFault(where string, r dirRecord) {
	if r.uneven {
		m.say(where, "the two byte orders of a record differ")
	}
}

// name is the Rock Ridge name of a record, else its plain one.
func (r dirRecord) name() string {
	var name []byte
	for use := r.use; len(use) >= 4 && use[2] >= 4 && int(use[2]) <= len(use); use = use[use[2]:] {
		if string(use[:2]) == "NM" && use[2] > 5 && use[4]&^1 == 0 {
			name = append(name, use[5:use[2]]...)
		}
	}
	if len(name) > 0 {
		return string(name)
	}
	return strings.TrimSuffix(strings.TrimSuffix(r.id, ";1"), ".")
}

// walk reads a folder and all below it, breadth first as the path table is.
func (m *Image) walk(root *folder) error {
	root.parent = root
	m.folders = []*folder{root}
	for i := 0; i < len(m.folders); i++ {
		f := m.folders[i]
		f.number = i + 1
		if i >= maxReadFolders || f.depth > maxReadDepth {
			return errors.New("too many folders, or too deep")
		}
		if err := m.readFolder(f); err != nil {
			return fmt.Errorf("folder %q: %w", f.path, err)
		}
	}
	return nil
}

func (m *Image) readFolder(f *folder) error {
	if m.seen[f.at.sector] {
		return fmt.Errorf("sector %d is a folder already", f.at.sector)
	}
	m.seen[f.at.sector] = true
	if f.at.size == 0 || f.at.size%sector != 0 || f.at.size > maxFolderSize {
		return fmt.Errorf("size %d", f.at.size)
	}
	data, err := m.read(int64(f.at.sector)*sector, int64(f.at.size))
	if err != nil {
		return err
	}
	var open *FileInfo // of several extents, the last still to come
	last := ""
	for count := 0; len(data) > 0; count++ {
		if data[0] == 0 { // records do not cross sectors
			data = data[len(data)-(len(data)-1)/sector*sector:]
			count--
			continue
		}
		r, err := parseRecord(data[:min(len(data), (len(data)-1)%sector+1)])
		if err != nil {
			return err
		}
		data = data[data[0]:]
		if m.entries++; m.entries > maxReadEntries {
			return errors.New("too many entries")
		}
		m.dualFault("folder /"+f.path, r)
		if count < 2 {
			m.checkDots(f, r, count)
			continue
		}
		if open == nil && last != "" && comparePlain(last, r.id) >= 0 {
			m.say("folder /"+f.path, "%q is out of order", r.id)
		}
		last = r.id
		if open, err = m.entry(f, r, open); err != nil {
			return err
		}
	}
	if open != nil {
		return fmt.Errorf("file %q has no last extent", open.Name)
	}
	return nil
}

func (m *Image) checkDots(f *folder, r dirRecord, which int) {
	want := []extent{f.at, f.parent.at}[which]
	if r.id != string(rune(which)) || r.extent != want || r.flags&flagDir == 0 {
		m.say("folder /"+f.path, "record %d does not name the folder or its parent", which+1)
	}
}

// entry takes a record in; it gives back the file whose extents go on.
func (m *Image) entry(f *folder, r dirRecord, open *FileInfo) (*FileInfo, error) {
	name := r.name()
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return nil, fmt.Errorf("name %q", name)
	}
	name = strings.TrimPrefix(f.path+"/"+name, "/")
	if r.special {
		return nil, fmt.Errorf("%q: extended attributes, interleaving or several volumes are not read", name)
	}
	if r.flags&flagDir != 0 {
		if open != nil {
			return nil, fmt.Errorf("file %q has no last extent", open.Name)
		}
		m.folders = append(m.folders, &folder{id: r.id, path: name, at: r.extent, parent: f, depth: f.depth + 1})
		return nil, nil
	}
	if open == nil {
		open = &FileInfo{Name: name}
	} else if open.Name != name {
		return nil, fmt.Errorf("file %q has no last extent", open.Name)
	}
	if err := m.addRun(open, r); err != nil {
		return nil, fmt.Errorf("file %q: %w", name, err)
	}
	if r.flags&flagMulti != 0 {
		return open, nil
	}
	if _, twice := m.byName[name]; twice {
		return nil, fmt.Errorf("file %q is there twice", name)
	}
	m.byName[name] = len(m.files)
	m.files = append(m.files, *open)
	return nil, nil
}

// addRun appends an extent, joined with the one before where they touch.
func (m *Image) addRun(f *FileInfo, r dirRecord) error {
	run := disk.Run{Offset: int64(r.sector) * sector, Size: int64(r.size)}
	if run.Size > m.size-run.Offset {
		return fmt.Errorf("%d bytes at %d lie beyond the end, %d", run.Size, run.Offset, m.size)
	}
	if r.flags&flagMulti != 0 && run.Size%sector != 0 {
		return fmt.Errorf("an extent of %d bytes goes on, but not at a sector", run.Size)
	}
	f.Size += run.Size
	if n := len(f.Runs); n > 0 && f.Runs[n-1].Offset+f.Runs[n-1].Size == run.Offset {
		f.Runs[n-1].Size += run.Size
		return nil
	}
	f.Runs = append(f.Runs, run)
	return nil
}
