package iso

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/fat"
)

// volumeMaker is the application identifier of the volume.
const volumeMaker = "XNODEOS"

// Layout is an image with every byte decided but the content of its files.
// Write of the embedded disk.Image streams it.
type Layout struct {
	disk.Image
	esp *fat.Layout
}

// builder holds what is known while the parts get their places.
type builder struct {
	spec         *Spec
	esp          *fat.Layout
	root         *entry
	files        map[string]*entry
	dirs         []*entry
	next         int64 // first free byte
	continuation uint32
	tables       [2]uint32 // path tables, L and M
	tableSize    uint32
	catalog      uint32
	segments     []disk.Segment
}

// New computes the layout. It reads the loader (its content holds places) and
// opens no other file; everything that cannot be written is refused here.
func New(spec Spec) (*Layout, error) {
	l, err := newLayout(&spec)
	if err != nil {
		return nil, fmt.Errorf("lay out ISO: %w", err)
	}
	return l, nil
}

func newLayout(spec *Spec) (*Layout, error) {
	if err := spec.validate(); err != nil {
		return nil, err
	}
	esp, err := fat.New(fat.Spec{Label: spec.VolumeID, Serial: spec.IDs.FAT, Time: spec.Time, Files: spec.ESP})
	if err != nil {
		return nil, err
	}
	if esp.Size > maxExtent {
		return nil, fmt.Errorf("the EFI system partition would have %d bytes; it must stay below 4 GiB", esp.Size)
	}
	return (&builder{spec: spec, esp: esp}).layout(endPadding + disk.BackupBytes)
}

// NewVolume computes the layout of a plain volume, which nothing boots from:
// the payload partition of a disk. It has the same names and dates as the
// hybrid image, no boot records and no partition table.
func NewVolume(id string, time int64, files []File) (*Layout, error) {
	spec := &Spec{VolumeID: id, Time: time, Files: files}
	err := spec.validateFiles()
	if err == nil {
		var l *Layout
		if l, err = (&builder{spec: spec}).layout(0); err == nil {
			return l, nil
		}
	}
	return nil, fmt.Errorf("lay out ISO volume: %w", err)
}

// layout gives everything its place; tail is kept free behind the last file.
func (b *builder) layout(tail int64) (*Layout, error) {
	if err := b.makeTree(); err != nil {
		return nil, err
	}
	b.placeTables()
	if err := b.placeFiles(); err != nil {
		return nil, err
	}
	size := roundUp(b.next+tail, alignment)
	if size/sector > math.MaxInt32 {
		return nil, fmt.Errorf("the image would have %d bytes; ISO 9660 ends at 4 TiB", size)
	}
	b.addMetadata(size)
	if b.bootable() {
		if err := b.addBoot(size); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(b.segments, func(x, y disk.Segment) int { return int(min(max(x.Offset-y.Offset, -1), 1)) })
	l := &Layout{Image: disk.Image{Size: size, Segments: b.segments}, esp: b.esp}
	return l, l.Validate()
}

func (b *builder) makeTree() (err error) {
	var names []string
	if b.bootable() {
		names = append(names, b.spec.ESPName)
	}
	for _, f := range b.spec.plainFiles() {
		names = append(names, f.Name)
	}
	for _, s := range b.spec.Shared {
		names = append(names, s.Name)
	}
	if b.root, b.files, err = newTree(names); err != nil {
		return err
	}
	for _, f := range b.spec.plainFiles() {
		b.files[f.Name].size = f.Size
	}
	b.dirs = b.root.dirs()
	// Placeholders, so that records have their true number and length.
	for _, d := range b.dirs {
		d.extents = make([]extent, 1)
		for _, c := range d.children {
			c.extents = split(0, c.size)
		}
	}
	return nil
}

// take reserves whole sectors and gives the first.
func (b *builder) take(size int64) uint32 {
	at := b.next
	b.next += roundUp(size, sector)
	return uint32(at / sector)
}

func (b *builder) placeTables() {
	b.next = firstFreeSector * sector
	b.catalog = b.take(sector)
	size := int64(len(pathTable(b.dirs, le)))
	b.tableSize = uint32(size)
	b.tables = [2]uint32{b.take(size), b.take(size)}
	b.continuation = b.take(sector)
	for _, d := range b.dirs {
		size := len(pack(d.folderRecords(b.spec.Time, 0)))
		d.extents[0] = extent{b.take(int64(size)), uint32(size)}
	}
}

// bootable tells the hybrid image from a plain volume.
func (b *builder) bootable() bool { return b.esp != nil }

func (b *builder) placeFiles() error {
	if b.bootable() {
		if err := b.placeBoot(); err != nil {
			return err
		}
	}
	for _, f := range b.spec.Files {
		b.place(f)
	}
	return nil
}

// placeBoot places what the loaders read: the BIOS loader and its files, then
// the ESP on the border that partitions like.
func (b *builder) placeBoot() error {
	loader, err := readAll(b.spec.Loader)
	if err != nil {
		return err
	}
	at := uint32(b.next / sector)
	b.place(Bytes(b.spec.Loader.Name, patchLoader(loader, at)))
	for _, f := range b.spec.First {
		b.place(f)
	}
	b.next = roundUp(b.next, alignment)
	start := b.next
	b.files[b.spec.ESPName].extents = []extent{{b.take(b.esp.Size), uint32(b.esp.Size)}}
	for _, s := range b.esp.Segments {
		s.Offset += start
		b.segments = append(b.segments, s)
	}
	for _, s := range b.spec.Shared {
		i := slices.IndexFunc(b.spec.ESP, func(f File) bool { return f.Name == s.ESP })
		offset, ok := b.esp.Offset(s.ESP)
		if i < 0 || !ok {
			return fmt.Errorf("file %q: the EFI system partition has no such file with content: %q", s.Name, s.ESP)
		}
		b.files[s.Name].extents = split(uint32((start+offset)/sector), b.spec.ESP[i].Size)
	}
	return nil
}

func (b *builder) place(f File) {
	e := b.files[f.Name]
	if f.Size == 0 {
		return // an empty file has no place; sector 0 with length 0
	}
	offset := b.next
	e.extents = split(b.take(f.Size), f.Size)
	b.segments = append(b.segments, disk.Segment{File: f, Offset: offset})
}

// addBoot adds the tables that make the image hybrid.
func (b *builder) addBoot(size int64) error {
	espExtent := b.files[b.spec.ESPName].extents[0]
	loader := b.files[b.spec.Loader.Name].extents[0].sector
	esp := extentBytes{int64(espExtent.sector) * sector, int64(espExtent.size)}
	primary, backup, err := partitionTable(b.spec, esp, size)
	if err != nil {
		return err
	}
	b.generated("MBR", 0, hybridMBR(b.spec, loader, size))
	b.generated("GPT", disk.SectorSize, primary)
	b.generated("GPT backup", size-int64(len(backup)), backup)
	b.generated("boot record", bootRecordSector*sector, bootRecord(b.catalog))
	b.generated("boot catalog", int64(b.catalog)*sector, bootCatalog(loader, espExtent.sector, esp.size))
	return nil
}

// addMetadata adds what makes it a volume.
func (b *builder) addMetadata(size int64) {
	terminator := int64(terminatorSector)
	if !b.bootable() {
		terminator = bootRecordSector // no boot record between
	}
	b.generated("volume descriptor", pvdSector*sector, b.primaryDescriptor(size))
	b.generated("terminator", terminator*sector, descriptor(255))
	b.generated("path table L", int64(b.tables[0])*sector, pathTable(b.dirs, le))
	b.generated("path table M", int64(b.tables[1])*sector, pathTable(b.dirs, be))
	b.generated("Rock Ridge reference", int64(b.continuation)*sector, extensionReference())
	for _, d := range b.dirs {
		data := pack(d.folderRecords(b.spec.Time, b.continuation))
		b.generated("folder /"+d.path(), int64(d.extents[0].sector)*sector, data)
	}
}

func (b *builder) generated(name string, offset int64, data []byte) {
	b.segments = append(b.segments, disk.Segment{File: Bytes(name, data), Offset: offset, Generated: true})
}

func (e *entry) path() string {
	if e.parent == e || e.parent.parent == e.parent {
		return e.name
	}
	return e.parent.path() + "/" + e.name
}

// descriptor is an empty volume descriptor of that type (ECMA-119 8.1).
func descriptor(typ byte) []byte {
	b := make([]byte, sector)
	b[0] = typ
	copy(b[1:], "CD001\x01")
	return b
}

// primaryDescriptor is ECMA-119 8.4.
func (b *builder) primaryDescriptor(size int64) []byte {
	d := descriptor(1)
	copy(d[8:], padded("", 32))
	copy(d[40:], padded(b.spec.VolumeID, 32))
	copy(d[80:], both32(uint32(size/sector)))
	copy(d[120:], both16(1)) // volumes of the set
	copy(d[124:], both16(1)) // this one
	copy(d[128:], both16(sector))
	copy(d[132:], both32(b.tableSize))
	le.PutUint32(d[140:], b.tables[0])
	be.PutUint32(d[148:], b.tables[1])
	copy(d[156:], record("\x00", b.root.extents[0], flagDir, b.spec.Time, nil))
	copy(d[190:], padded("", 3*128))
	copy(d[574:], padded(volumeMaker, 128))
	copy(d[702:], padded("", 3*37))
	for i := range 4 {
		date := longDate(b.spec.Time)
		if i == 2 { // never expires
			date = append([]byte(strings.Repeat("0", 16)), 0)
		}
		copy(d[813+17*i:], date)
	}
	d[881] = 1
	return d
}

// String is the plan of the image: offset, size and name of every part, one a
// line, in bytes.
func (l *Layout) String() string {
	var b strings.Builder
	for _, s := range l.Segments {
		kind := "file"
		if s.Generated {
			kind = "made"
		}
		fmt.Fprintf(&b, "%12d %12d %s %s\n", s.Offset, s.Size, kind, s.Name)
	}
	fmt.Fprintf(&b, "%12d %12d end, EFI system partition FAT%d\n", l.Size, 0, l.esp.Bits)
	return b.String()
}
