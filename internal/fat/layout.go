package fat

import (
	"fmt"
	"time"

	"xnodeos.org/internal/disk"
)

// Spec is what a volume is to hold. Names are slash-separated paths without a
// leading slash; folders come into being by being named. Data lies in the
// order of Files.
type Spec struct {
	Label  string // at most 11 of A-Z 0-9 - _ and space
	Serial uint32
	Time   int64 // Unix seconds, for every entry; before 1980 counts as 1980
	Files  []disk.File
	// MinSize is the least size of the volume in bytes, for what is added
	// later; 0 means as small as the files allow.
	MinSize int64
}

// Layout is a volume with every byte decided but the content of its files.
type Layout struct {
	disk.Image
	// Bits is 16 or 32.
	Bits    int
	offsets map[string]int64
}

// Offset is the place of a file's first byte from the start of the volume.
func (l *Layout) Offset(name string) (int64, bool) {
	off, ok := l.offsets[name]
	return off, ok
}

// geometry is the arithmetic of one volume; counts are sectors or clusters.
type geometry struct {
	bits        int
	clusters    uint32
	reserved    uint32
	fatSectors  uint32
	rootSectors uint32
}

func (g geometry) dataSector() uint32 { return g.reserved + fats*g.fatSectors + g.rootSectors }
func (g geometry) sectors() uint32    { return g.dataSector() + g.clusters*sectorsPerCluster }
func (g geometry) offset(cluster uint32) int64 {
	return int64(g.dataSector())*sectorSize + int64(cluster-2)*ClusterSize
}

// plan chooses FAT16 where the clusters fit, else FAT32.
func plan(used uint32) geometry {
	g := geometry{bits: 16, reserved: 1, rootSectors: rootEntries16 * direntSize / sectorSize}
	g.fill(max(used, minClusters16+margin))
	if g.clusters >= minClusters32-margin {
		g = geometry{bits: 32, reserved: 32}
		g.fill(max(used, minClusters32+margin))
	}
	return g
}

// fill sizes the parts for at least that many clusters and then adds clusters
// up to a whole number of alignUnits, so that a partition made of the volume
// ends where partition tools like it.
func (g *geometry) fill(clusters uint32) {
	const unit = alignUnit / sectorSize
	g.clusters = clusters
	g.sizeFAT()
	total := (g.sectors() + unit - 1) / unit * unit
	g.clusters = (total - g.dataSector()) / sectorsPerCluster
	g.sizeFAT()
	g.clusters = (total - g.dataSector()) / sectorsPerCluster
}

// sizeFAT makes the FATs long enough and aligns the data area to clusters.
func (g *geometry) sizeFAT() {
	perSector := uint32(sectorSize * 8 / g.bits)
	g.fatSectors = (g.clusters + 2 + perSector - 1) / perSector
	for g.dataSector()%sectorsPerCluster != 0 {
		g.reserved++
	}
}

// New computes the layout; it opens no file.
func New(spec Spec) (*Layout, error) {
	l, err := newLayout(spec)
	if err != nil {
		return nil, fmt.Errorf("lay out FAT volume %q: %w", spec.Label, err)
	}
	return l, nil
}

func newLayout(spec Spec) (*Layout, error) {
	if err := checkLabel(spec.Label); err != nil {
		return nil, err
	}
	root, err := buildTree(spec)
	if err != nil {
		return nil, err
	}
	dirs := root.walk()
	// The root folder is a chain in FAT32 and a fixed area in FAT16, which is
	// only known once everything else has been counted.
	used, err := countClusters(dirs[1:], spec.Files)
	if err != nil {
		return nil, err
	}
	rootClusters := clustersOf(root.size(true))
	if spec.MinSize/ClusterSize > maxClusters32 {
		return nil, fmt.Errorf("a volume of %d bytes is too large for FAT32 with clusters of %d", spec.MinSize, ClusterSize)
	}
	g := plan(max(used+rootClusters, uint32(spec.MinSize/ClusterSize)))
	if g.bits == 16 {
		if root.size(true) > rootEntries16*direntSize {
			return nil, fmt.Errorf("more than %d entries in the root folder", rootEntries16)
		}
		g = plan(used)
	}
	next := uint32(2)
	if g.bits == 32 {
		root.first, root.clusters = next, rootClusters
		next += rootClusters
	}
	for _, d := range dirs[1:] {
		d.first, d.clusters = next, clustersOf(d.size(false))
		next += d.clusters
	}
	l := &Layout{Bits: g.bits, offsets: map[string]int64{}}
	for _, f := range root.files(spec.Files) {
		f.clusters = clustersOf(f.file.Size)
		if f.clusters > 0 {
			f.first = next
			l.offsets[f.file.Name] = g.offset(next)
		}
		next += f.clusters
	}
	l.Size = int64(g.sectors()) * sectorSize
	l.Segments = segments(spec, g, root, next)
	return l, l.Validate()
}

func clustersOf(size int64) uint32 { return uint32((size + ClusterSize - 1) / ClusterSize) }

func countClusters(dirs []*node, files []disk.File) (uint32, error) {
	var n uint64
	for _, d := range dirs {
		n += uint64(clustersOf(d.size(false)))
	}
	for _, f := range files {
		n += uint64(clustersOf(f.Size))
	}
	if n > maxClusters {
		return 0, fmt.Errorf("the files need %d clusters; a volume has at most %d", n, maxClusters)
	}
	return uint32(n), nil
}

// segments are: everything before the data area, the folders, the files.
func segments(spec Spec, g geometry, root *node, next uint32) []disk.Segment {
	dirs, files := root.walk(), root.files(spec.Files)
	head := headBytes(spec, g, dirs, files, next)
	if g.bits == 16 {
		copy(head[int(g.reserved+fats*g.fatSectors)*sectorSize:], root.encode(spec))
		dirs = dirs[1:]
	}
	segs := []disk.Segment{{File: disk.Bytes("FAT tables", head), Generated: true}}
	for _, d := range dirs {
		seg := disk.Segment{File: disk.Bytes("FAT folder /"+d.path(), d.encode(spec)), Offset: g.offset(d.first), Generated: true}
		segs = append(segs, seg)
	}
	for _, f := range files {
		if f.clusters > 0 {
			segs = append(segs, disk.Segment{File: *f.file, Offset: g.offset(f.first)})
		}
	}
	return segs
}

// stamp is a FAT time (local time by the book, UTC here): date and time words.
func stamp(unix int64) (date, clock uint16) {
	t := time.Unix(unix, 0).UTC()
	if t.Year() < 1980 {
		t = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	if t.Year() > 2107 {
		t = time.Date(2107, 12, 31, 23, 59, 58, 0, time.UTC)
	}
	date = uint16((t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day())
	clock = uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2)
	return date, clock
}
