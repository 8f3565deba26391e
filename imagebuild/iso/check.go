package iso

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"

	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/fat"
)

// Check reads every structure that firmware, loaders or kernels use to find
// files, and lists what is wrong or contradicts another. It does not judge the
// content of files; compare those, or the whole image with one written anew.
func (m *Image) Check() []Problem {
	kept := m.problems
	m.problems = slices.Clone(kept)
	defer func() { m.problems = kept }()
	m.checkPathTables()
	m.checkExtents()
	table, faults := disk.CheckTables(m.r, m.size)
	for _, what := range faults {
		m.say("partition table", "%s", what)
	}
	c, err := m.bootCatalog()
	if err != nil {
		m.say("boot", "%v", err)
		return m.problems
	}
	m.checkLoader(c)
	m.checkESP(c, table)
	return m.problems
}

func (m *Image) checkPVD() {
	const where = "volume descriptor"
	d := m.pvd
	for _, at := range []int{80, 132} {
		if le.Uint32(d[at:]) != be.Uint32(d[at+4:]) {
			m.say(where, "the two byte orders at byte %d differ", at)
		}
	}
	for _, at := range []int{120, 124, 128} {
		if le.Uint16(d[at:]) != be.Uint16(d[at+2:]) {
			m.say(where, "the two byte orders at byte %d differ", at)
		}
	}
	if n := le.Uint16(d[128:]); n != sector {
		m.say(where, "sectors of %d bytes", n)
	}
	if n := int64(le.Uint32(d[80:])) * sector; n != m.size {
		m.say(where, "the volume has %d bytes, the image %d", n, m.size)
	}
}

// checkPathTables makes the tables anew from the folders. Linux does not read
// them, other systems and firmware do.
func (m *Image) checkPathTables() {
	for _, t := range []struct {
		name  string
		at    uint32
		order binary.AppendByteOrder
	}{{"L", le.Uint32(m.pvd[140:]), le}, {"M", be.Uint32(m.pvd[148:]), be}} {
		var want []byte
		for _, f := range m.folders {
			want = append(want, byte(len(f.id)), 0)
			want = t.order.AppendUint32(want, f.at.sector)
			want = t.order.AppendUint16(want, uint16(f.parent.number))
			want = append(want, f.id...)
			want = append(want, make([]byte, len(f.id)%2)...)
		}
		got, err := m.read(int64(t.at)*sector, int64(len(want)))
		if err != nil || !bytes.Equal(got, want) || int(le.Uint32(m.pvd[132:])) != len(want) {
			m.say("path table "+t.name, "does not list the folders of the volume")
		}
	}
}

// checkExtents finds files that share bytes. Only files that lie wholly in
// the EFI system partition may.
func (m *Image) checkExtents() {
	type piece struct {
		disk.Run
		name string
	}
	var esp disk.Run
	if c, err := m.bootCatalog(); err == nil {
		if f, ok := m.startingAt(c.esp); ok {
			esp = f.Runs[0]
		}
	}
	pieces := []piece{{disk.Run{Size: firstFreeSector * sector}, "system area"}}
	for _, f := range m.folders {
		pieces = append(pieces, piece{disk.Run{Offset: int64(f.at.sector) * sector, Size: int64(f.at.size)}, "folder /" + f.path})
	}
	for _, f := range m.files {
		for _, r := range f.Runs {
			inside := r != esp && r.Offset >= esp.Offset && r.Offset+r.Size <= esp.Offset+esp.Size
			if r.Size > 0 && !inside {
				pieces = append(pieces, piece{r, f.Name})
			}
		}
	}
	slices.SortStableFunc(pieces, func(a, b piece) int { return int(min(max(a.Offset-b.Offset, -1), 1)) })
	for i := 1; i < len(pieces); i++ {
		if a, b := pieces[i-1], pieces[i]; a.Offset+a.Size > b.Offset {
			m.say("extents", "%q and %q share bytes", a.name, b.name)
		}
	}
}

func (m *Image) checkLoader(c catalogInfo) {
	const where = "BIOS loader"
	f, ok := m.startingAt(c.loader)
	if !ok || f.Size < bootInfoEnd || f.Size > maxLoader {
		m.say(where, "the boot catalog names sector %d, where no loader begins", c.loader)
		return
	}
	if c.loadSize != loadSectors {
		m.say(where, "the boot catalog loads %d sectors, isolinux needs %d", c.loadSize, loadSectors)
	}
	b, err := m.read(f.Runs[0].Offset, f.Size)
	if err != nil {
		m.say(where, "%v", err)
		return
	}
	if !bytes.Equal(b, patchLoader(b, c.loader)) {
		m.say(where, "%s: the boot information table does not fit the file", f.Name)
	}
	head, err := m.read(0, disk.SectorSize)
	if err != nil {
		m.say(where, "%v", err)
		return
	}
	if got, want := le.Uint64(head[mbrCodeSize:]), uint64(c.loader)*sector/disk.SectorSize; got != want {
		m.say("MBR", "names the loader at sector %d, it lies at %d", got, want)
	}
	if len(bytes.Trim(head[:mbrCodeSize], "\x00")) == 0 {
		m.say("MBR", "has no boot code")
	}
}

func (m *Image) checkESP(c catalogInfo, table disk.Table) {
	const where = "EFI system partition"
	f, ok := m.startingAt(c.esp)
	if !ok {
		m.say(where, "the boot catalog names sector %d, where no file begins", c.esp)
		return
	}
	if want := espLoadSize(f.Size); c.espCount != want {
		m.say(where, "the boot catalog counts %d sectors, expected %d", c.espCount, want)
	}
	at := slices.IndexFunc(table.Partitions, func(p disk.Partition) bool { return p.Type.String() == disk.TypeESP })
	if at < 0 {
		m.say(where, "the partition table has none")
	} else if p := table.Partitions[at]; int64(p.First)*disk.SectorSize != f.Runs[0].Offset || int64(p.Last-p.First+1)*disk.SectorSize != f.Size {
		m.say(where, "the partition does not cover %s", f.Name)
	}
	v, err := fat.Open(m.Open(f), f.Size)
	if err != nil {
		m.say(where, "%v", err)
		return
	}
	for _, what := range v.Check() {
		m.say(where, "%s", what)
	}
	m.checkShared(f, v)
}

// checkShared wants each file inside the partition to be a file of it.
func (m *Image) checkShared(esp FileInfo, v *fat.Volume) {
	start := esp.Runs[0].Offset
	files := map[disk.Run]bool{}
	for _, f := range v.Files() {
		if len(f.Runs) == 1 {
			files[disk.Run{Offset: start + f.Runs[0].Offset, Size: f.Size}] = true
		}
	}
	for _, f := range m.files {
		if f.Size == 0 || f.Name == esp.Name || len(f.Runs) != 1 {
			continue
		}
		r := f.Runs[0]
		if r.Offset >= start && r.Offset < start+esp.Size && !files[r] {
			m.say("extents", "%q lies in the EFI system partition but is no file of it", f.Name)
		}
	}
}

// IDs gives the identifiers of the image as far as they can be read.
func (m *Image) IDs() (IDs, error) {
	head, err := m.read(0, disk.SectorSize)
	if err != nil {
		return IDs{}, err
	}
	mbr, err := disk.ParseMBR(head)
	if err != nil {
		return IDs{}, err
	}
	t, err := disk.ReadTable(m.r, m.size, 1)
	if err != nil {
		return IDs{}, err
	}
	v, err := m.ESP()
	if err != nil {
		return IDs{}, err
	}
	if len(t.Partitions) != 1 {
		return IDs{}, fmt.Errorf("GPT: %d partitions, expected 1", len(t.Partitions))
	}
	return IDs{Disk: t.ID, Partition: t.Partitions[0].ID, MBR: mbr.Signature, FAT: v.Serial}, nil
}
