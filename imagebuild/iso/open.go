package iso

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"time"

	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/fat"
)

// What a hostile image can make the reader hold or walk.
const (
	maxReadEntries = 1 << 16
	maxReadFolders = 1 << 12
	maxReadDepth   = 16
	maxFolderSize  = 4 << 20
	maxDescriptors = 32
)

// FileInfo is a file of an image that was opened.
type FileInfo struct {
	Name string // Rock Ridge name where there is one, slash-separated
	Size int64
	Runs []disk.Run // from the start of the image
}

// Image is an ISO image that was opened.
type Image struct {
	VolumeID string
	Time     int64 // creation of the volume, Unix seconds

	r        io.ReaderAt
	size     int64
	pvd      []byte
	catalog  uint32 // sector of the boot catalog, 0 without one
	files    []FileInfo
	byName   map[string]int
	folders  []*folder
	entries  int
	seen     map[uint32]bool
	problems []Problem
}

// Problem is one fault of an image.
type Problem struct {
	Where string // such as "boot catalog" or "GPT"
	What  string
}

func (p Problem) String() string { return p.Where + ": " + p.What }

// Open reads the descriptors and folders of the image of size bytes. An image
// that cannot be walked is an error; Check tells everything else.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	m := &Image{r: r, size: size, byName: map[string]int{}, seen: map[uint32]bool{}}
	if err := m.open(); err != nil {
		return nil, fmt.Errorf("read ISO image: %w", err)
	}
	return m, nil
}

func (m *Image) open() error {
	if err := m.descriptors(); err != nil {
		return err
	}
	m.VolumeID = strings.TrimRight(string(m.pvd[40:72]), " \x00")
	when, err := time.Parse("20060102150405", string(m.pvd[813:827]))
	if err != nil {
		m.say("volume descriptor", "creation date %q", m.pvd[813:830])
	} else {
		m.Time = when.Unix()
	}
	m.checkPVD()
	root, err := parseRecord(m.pvd[156:190])
	if err != nil {
		return fmt.Errorf("root folder: %w", err)
	}
	m.dualFault("root folder", root)
	return m.walk(&folder{id: "\x00", at: root.extent})
}

// descriptors finds the primary descriptor and the boot catalog's place.
func (m *Image) descriptors() error {
	for n := range int64(maxDescriptors) {
		b, err := m.read((pvdSector+n)*sector, sector)
		if err != nil {
			return err
		}
		if string(b[1:6]) != "CD001" {
			return fmt.Errorf("no volume descriptor at sector %d", pvdSector+n)
		}
		switch b[0] {
		case 0:
			if id := strings.TrimRight(string(b[7:39]), "\x00"); id == elToritoID && m.catalog == 0 {
				m.catalog = le.Uint32(b[71:])
			}
		case 1:
			if m.pvd == nil {
				m.pvd = b
			}
		case 255:
			if m.pvd == nil {
				return errors.New("no primary volume descriptor")
			}
			return nil
		}
	}
	return errors.New("no end of the volume descriptors")
}

func (m *Image) read(off, n int64) ([]byte, error) {
	if off < 0 || n < 0 || n > m.size-off {
		return nil, fmt.Errorf("%d bytes at %d lie beyond the end, %d", n, off, m.size)
	}
	b := make([]byte, n)
	if got, err := m.r.ReadAt(b, off); int64(got) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, off, err)
	}
	return b, nil
}

func (m *Image) say(where, format string, args ...any) {
	if len(m.problems) < 100 {
		m.problems = append(m.problems, Problem{where, fmt.Sprintf(format, args...)})
	}
}

// Files are all files of the image, in the order of its folders.
func (m *Image) Files() []FileInfo { return slices.Clone(m.files) }

// Find gives a file by its name. The error wraps fs.ErrNotExist.
func (m *Image) Find(name string) (FileInfo, error) {
	i, ok := m.byName[name]
	if !ok {
		return FileInfo{}, fmt.Errorf("ISO image: file %q: %w", name, fs.ErrNotExist)
	}
	return m.files[i], nil
}

// Open reads a file of this image.
func (m *Image) Open(f FileInfo) *io.SectionReader { return disk.OpenRuns(m.r, f.Runs) }

// MBRCode is the boot code at the start of the image, without what was
// patched in: to be compared with isohdpfx.bin.
func (m *Image) MBRCode() ([]byte, error) { return m.read(0, mbrCodeSize) }

// ESP opens the EFI system partition that the boot catalog names.
func (m *Image) ESP() (*fat.Volume, error) {
	c, err := m.bootCatalog()
	if err != nil {
		return nil, err
	}
	f, ok := m.startingAt(c.esp)
	if !ok {
		return nil, fmt.Errorf("boot catalog: no file begins at sector %d, which the EFI entry names", c.esp)
	}
	return fat.Open(m.Open(f), f.Size)
}

// startingAt gives the file in one piece that begins at that sector.
func (m *Image) startingAt(at uint32) (FileInfo, bool) {
	for _, f := range m.files {
		if len(f.Runs) == 1 && f.Runs[0].Offset == int64(at)*sector && f.Size > 0 {
			return f, true
		}
	}
	return FileInfo{}, false
}

// catalogInfo is what the boot catalog says.
type catalogInfo struct {
	loader, esp        uint32
	loadSize, espCount uint16
}

func (m *Image) bootCatalog() (catalogInfo, error) {
	var c catalogInfo
	if m.catalog == 0 {
		return c, errors.New("boot catalog: there is none")
	}
	b, err := m.read(int64(m.catalog)*sector, sector)
	if err != nil {
		return c, fmt.Errorf("boot catalog: %w", err)
	}
	var sum uint16
	for i := 0; i < 32; i += 2 {
		sum += le.Uint16(b[i:])
	}
	switch {
	case b[0] != 1 || b[1] != 0 || sum != 0 || b[30] != 0x55 || b[31] != 0xAA:
		return c, errors.New("boot catalog: the validation entry is wrong")
	case b[32] != bootable || b[33] != 0:
		return c, errors.New("boot catalog: the first entry does not boot without emulation")
	case b[64] != lastSection || b[65] != platformEFI || le.Uint16(b[66:]) != 1:
		return c, errors.New("boot catalog: no last section for EFI with one entry")
	case b[96] != bootable || b[97] != 0:
		return c, errors.New("boot catalog: the EFI entry does not boot without emulation")
	}
	c.loadSize, c.loader = le.Uint16(b[38:]), le.Uint32(b[40:])
	c.espCount, c.esp = le.Uint16(b[102:]), le.Uint32(b[104:])
	return c, nil
}
