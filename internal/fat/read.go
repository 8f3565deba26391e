package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"xnodeos.org/internal/disk"
)

const (
	// What a hostile volume can make the reader hold or walk.
	maxTableBytes = 1 << 28
	maxEntries    = 1 << 16
	maxFolders    = 1 << 12
	maxReadDepth  = 32
)

// FileInfo is a file of a volume that was opened.
type FileInfo struct {
	Name string // slash-separated, long names where there are any
	Size int64
	Runs []disk.Run // from the start of the volume
}

// Volume is a FAT16 or FAT32 volume that was opened.
type Volume struct {
	Bits     int
	Label    string // of the root folder
	Serial   uint32
	files    []FileInfo
	problems []string
	r        io.ReaderAt
	boot     bootInfo
	table    []byte
	owner    []bool          // clusters that belong to something
	seen     map[string]bool // names in lower case
	entries  int
	folders  int
}

// bootInfo is the boot sector, in sectors and clusters.
type bootInfo struct {
	perCluster            int64
	reserved, fats        int64
	fatSectors, rootAt    int64
	rootSectors, data     int64
	clusters, rootCluster uint32
	fsinfo, backup        uint16
	label                 string
}

// Open reads the tables and folders of the volume in the first size bytes of
// r. A volume that cannot be walked is an error; what is only wrong (lost
// clusters, unequal copies) is told by Check.
func Open(r io.ReaderAt, size int64) (*Volume, error) {
	v := &Volume{r: r, seen: map[string]bool{}}
	if err := v.open(size); err != nil {
		return nil, fmt.Errorf("read FAT volume: %w", err)
	}
	return v, nil
}

func (v *Volume) open(size int64) error {
	b, err := v.read(0, sectorSize)
	if err != nil {
		return err
	}
	if err := v.parseBoot(b, size); err != nil {
		return err
	}
	if v.table, err = v.read(v.boot.reserved*sectorSize, v.boot.fatSectors*sectorSize); err != nil {
		return err
	}
	v.owner = make([]bool, v.boot.clusters+2)
	var root []byte
	if v.Bits == 16 {
		root, err = v.read(v.boot.rootAt*sectorSize, v.boot.rootSectors*sectorSize)
	} else {
		root, err = v.readChain(v.boot.rootCluster)
	}
	if err != nil {
		return fmt.Errorf("root folder: %w", err)
	}
	if err := v.folder(root, "", folderAt{depth: 1}); err != nil {
		return err
	}
	v.checkTables(b, size)
	return nil
}

func (v *Volume) read(off, n int64) ([]byte, error) {
	b := make([]byte, n)
	if got, err := v.r.ReadAt(b, off); int64(got) < n {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, off, err)
	}
	return b, nil
}

func (v *Volume) parseBoot(b []byte, size int64) error {
	le := binary.LittleEndian
	if b[510] != 0x55 || b[511] != 0xAA {
		return errors.New("no signature 55 AA in the boot sector")
	}
	i := &v.boot
	i.perCluster, i.reserved, i.fats = int64(b[13]), int64(le.Uint16(b[14:])), int64(b[16])
	rootEntries := int64(le.Uint16(b[17:]))
	sectors, fatSectors := int64(le.Uint16(b[19:])), int64(le.Uint16(b[22:]))
	if sectors == 0 {
		sectors = int64(le.Uint32(b[32:]))
	}
	v.Bits = 16
	ext := b[36:]
	if fatSectors == 0 {
		v.Bits, fatSectors, ext = 32, int64(le.Uint32(b[36:])), b[64:]
		i.rootCluster, i.fsinfo, i.backup = le.Uint32(b[44:]), le.Uint16(b[48:]), le.Uint16(b[50:])
	}
	i.fatSectors, i.rootSectors = fatSectors, (rootEntries*direntSize+sectorSize-1)/sectorSize
	i.rootAt = i.reserved + i.fats*fatSectors
	i.data = i.rootAt + i.rootSectors
	switch {
	case le.Uint16(b[11:]) != sectorSize:
		return fmt.Errorf("sectors of %d bytes; only %d are read", le.Uint16(b[11:]), sectorSize)
	case i.perCluster == 0 || i.perCluster&(i.perCluster-1) != 0, i.reserved == 0, i.fats == 0 || i.fats > 2, fatSectors*sectorSize > maxTableBytes:
		return errors.New("boot sector: impossible numbers")
	case sectors <= i.data || sectors*sectorSize > size:
		return fmt.Errorf("boot sector: %d sectors do not fit in %d bytes", sectors, size)
	}
	clusters := (sectors - i.data) / i.perCluster
	if v.Bits == 16 && (clusters < minClusters16 || clusters >= minClusters32) || v.Bits == 32 && clusters < minClusters32 {
		return fmt.Errorf("%d clusters do not make a FAT%d volume", clusters, v.Bits)
	}
	if fatSectors*sectorSize*8/int64(v.Bits) < clusters+2 {
		return fmt.Errorf("a FAT of %d sectors is too short for %d clusters", fatSectors, clusters)
	}
	i.clusters = uint32(clusters)
	v.Serial, i.label = le.Uint32(ext[3:]), strings.TrimRight(string(ext[7:18]), " ")
	return nil
}

func (v *Volume) next(cluster uint32) uint32 {
	if v.Bits == 32 {
		return binary.LittleEndian.Uint32(v.table[4*cluster:]) & endOfChain
	}
	n := uint32(binary.LittleEndian.Uint16(v.table[2*cluster:]))
	if n >= 0xFFF7 {
		n |= 0x0FFF0000
	}
	return n
}

// chain follows the clusters from first. It marks them, so that a loop or a
// cluster with two owners ends it with an error.
func (v *Volume) chain(first uint32) ([]disk.Run, error) {
	size := v.boot.perCluster * sectorSize
	var runs []disk.Run
	for c := first; ; {
		if c < 2 || c >= v.boot.clusters+2 {
			return nil, fmt.Errorf("cluster %d does not exist", c)
		}
		if v.owner[c] {
			return nil, fmt.Errorf("cluster %d is used twice", c)
		}
		v.owner[c] = true
		at := v.boot.data*sectorSize + int64(c-2)*size
		if n := len(runs); n > 0 && runs[n-1].Offset+runs[n-1].Size == at {
			runs[n-1].Size += size
		} else {
			runs = append(runs, disk.Run{Offset: at, Size: size})
		}
		if c = v.next(c); c >= 0x0FFFFFF8 {
			return runs, nil
		}
	}
}

func (v *Volume) readChain(first uint32) ([]byte, error) {
	runs, err := v.chain(first)
	if err != nil {
		return nil, err
	}
	var out []byte
	for _, run := range runs {
		if int64(len(out))+run.Size > maxEntries*direntSize*2 {
			return nil, errors.New("the folder is too large")
		}
		b, err := v.read(run.Offset, run.Size)
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
	}
	return out, nil
}

// Files are all files of the volume, in the order of its folders.
func (v *Volume) Files() []FileInfo { return slices.Clone(v.files) }

// Find gives a file by its name; case does not count. The error wraps
// fs.ErrNotExist.
func (v *Volume) Find(name string) (FileInfo, error) {
	for _, f := range v.files {
		if strings.EqualFold(f.Name, name) {
			return f, nil
		}
	}
	return FileInfo{}, fmt.Errorf("FAT volume: file %q: %w", name, fs.ErrNotExist)
}

// Open reads a file of this volume.
func (v *Volume) Open(f FileInfo) *io.SectionReader {
	return disk.OpenRuns(v.r, f.Runs)
}

// Check lists what is wrong with the volume; none is a clean volume.
func (v *Volume) Check() []string { return slices.Clone(v.problems) }
