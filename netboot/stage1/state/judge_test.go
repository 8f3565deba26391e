package state

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/ext4"
	"xnodeos.org/internal/testkit"
)

const testSize = 80 << 20

// memory is a device whose writes are remembered one by one.
type memory struct {
	data  []byte
	log   []written
	fails int // the write that fails, from 1
	broke bool
}

type written struct {
	at   int64
	data []byte
	sync bool
}

func newMemory(size int64) *memory { return &memory{data: make([]byte, size)} }

func (m *memory) ReadAt(b []byte, at int64) (int, error) {
	if at >= int64(len(m.data)) {
		return 0, io.EOF
	}
	n := copy(b, m.data[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memory) WriteAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > int64(len(m.data)) {
		return 0, fmt.Errorf("write of %d bytes at %d is beyond the end", len(b), at)
	}
	m.log = append(m.log, written{at: at, data: append([]byte(nil), b...)})
	if m.fails == len(m.log) {
		m.broke = true
		return 0, errors.New("broken")
	}
	return copy(m.data[at:], b), nil
}

func (m *memory) Sync() error {
	m.log = append(m.log, written{sync: true})
	return nil
}

// kernel lists the disk and what the kernel would say of its partitions.
func (m *memory) kernel() []Disk {
	whole := Disk{Name: "vda", Sectors: int64(len(m.data)) / 512, SectorSize: 512}
	disks := []Disk{whole}
	table, err := disk.ReadTable(m, int64(len(m.data)), 1)
	sector := m.data[:512]
	if mbr, mbrErr := disk.ParseMBR(sector); err != nil || mbrErr != nil || mbr.Entries[0].Type != disk.MBRProtective {
		return disks
	}
	for i, p := range table.Partitions {
		part := whole
		part.Name, part.Parent, part.Number, part.Label = fmt.Sprintf("vda%d", i+1), "vda", i+1, p.Name
		part.Sectors = int64(p.Last - p.First + 1)
		disks = append(disks, part)
	}
	return disks
}

// part is the place of a disk or partition.
func (m *memory) part(d Disk) (at, size int64) {
	if d.Parent == "" {
		return 0, int64(len(m.data))
	}
	table, err := disk.ReadTable(m, int64(len(m.data)), 1)
	if err != nil {
		panic(err)
	}
	p := table.Partitions[d.Number-1]
	return int64(p.First) * 512, d.Sectors * 512
}

func (m *memory) judge(discard bool) (Plan, error) {
	all := m.kernel()
	return Judge(all, all[0], discard, func(d Disk, f func(io.ReaderAt) error) error {
		at, size := m.part(d)
		return f(io.NewSectionReader(m, at, size))
	})
}

// window is a part of a device.
type window struct {
	*memory
	at int64
}

func (w window) ReadAt(b []byte, at int64) (int, error)  { return w.memory.ReadAt(b, w.at+at) }
func (w window) WriteAt(b []byte, at int64) (int, error) { return w.memory.WriteAt(b, w.at+at) }

func (m *memory) make(plan Plan) error {
	at, size := m.part(plan.Disk)
	return Make(plan, window{m, at}, size, MakeOptions{Random: rand.NewChaCha8([32]byte{7}), Time: 1_790_000_000})
}

// made is a disk with a whole state.
func made(t *testing.T) *memory {
	t.Helper()
	m := newMemory(testSize)
	plan, err := m.judge(false)
	if err != nil || plan.Action != MakeDisk || plan.Begun {
		t.Fatalf("a blank disk: %+v, %v", plan, err)
	}
	if err := m.make(plan); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMakeDisk(t *testing.T) {
	t.Parallel()
	m := made(t)
	if _, problems := disk.CheckTables(m, testSize); len(problems) > 0 {
		t.Errorf("the table: %q", problems)
	}
	plan, err := m.judge(false)
	if err != nil || plan.Action != Open || plan.Disk.Name != "vda1" || plan.Begun || plan.Unclean || plan.Damaged {
		t.Errorf("a new state: %+v, %v; want it opened", plan, err)
	}
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, m.data, 0o600); err != nil {
		t.Fatal(err)
	}
	if out := testkit.RunTool(t, "sgdisk", "-v", name); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v: %s", out)
	}
	at, size := m.part(plan.Disk)
	if err := os.WriteFile(name, m.data[at:at+size], 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.RunTool(t, "e2fsck", "-f", "-n", name)
}

// However a power cut tears what was not synced, the next boot makes the state
// anew, or finds it whole; it never takes it for somebody else's.
func TestMakeIsCutOff(t *testing.T) {
	t.Parallel()
	log := made(t).log
	r := rand.New(rand.NewPCG(3, 4))
	for cut := range len(log) + 1 {
		for try := range 3 {
			m := newMemory(testSize)
			tear(m, log[:cut], r, try)
			for range 3 { // the second one may be cut off as well
				plan, err := m.judge(false)
				if err != nil {
					t.Fatalf("cut after %d writes: %v", cut, err)
				}
				if plan.Action == Open {
					break
				}
				before := len(m.log)
				if err := m.make(plan); err != nil {
					t.Fatal(err)
				}
				if again := m.log[before:]; try == 2 && len(again) > 0 {
					try = 3
					next := newMemory(testSize)
					tear(next, append(append([]written{}, log[:cut]...), again[:r.IntN(len(again))]...), r, 0)
					m = next
				}
			}
			if plan, err := m.judge(false); err != nil || plan.Action != Open {
				t.Fatalf("cut after %d of %d writes: in the end %+v, %v", cut, len(log), plan, err)
			}
		}
	}
}

// tear carries out writes; of those after the last sync some are lost, or only
// some of their sectors arrive.
func tear(m *memory, log []written, r *rand.Rand, try int) {
	synced := 0
	for i, w := range log {
		if w.sync {
			synced = i
		}
	}
	for i, w := range log {
		for at := 0; at < len(w.data); at += 512 {
			if i > synced && try > 0 && r.IntN(2) == 0 {
				continue
			}
			end := min(at+512, len(w.data))
			copy(m.data[w.at+int64(at):], w.data[at:end])
		}
	}
}

// new: discards a state of ours, and after it the disk is as new.
func TestDiscard(t *testing.T) {
	t.Parallel()
	m := made(t)
	before := append([]byte(nil), m.data...)
	plan, err := m.judge(true)
	if err != nil || plan.Action != MakePartition || plan.Disk.Name != "vda1" {
		t.Fatalf("new: on a state: %+v, %v", plan, err)
	}
	m.log = nil
	if err := m.make(plan); err != nil {
		t.Fatal(err)
	}
	if string(before[:1<<20]) != string(m.data[:1<<20]) {
		t.Error("the partition table was written as well")
	}
	log := m.log
	for cut := range log {
		m := &memory{data: append([]byte(nil), before...)}
		tear(m, log[:cut], rand.New(rand.NewPCG(1, uint64(cut))), 1)
		plan, err := m.judge(false)
		if err != nil || plan.Action == MakeDisk {
			t.Errorf("cut after %d writes: %+v, %v", cut, plan, err)
		}
	}
}

func TestForeignIsRefused(t *testing.T) {
	t.Parallel()
	put := func(at int64, text string) func(*memory) {
		return func(m *memory) {
			if at < 0 {
				at += int64(len(m.data))
			}
			copy(m.data[at:], text)
		}
	}
	var head ext4.Options
	head.UUID[0], head.Label = 1, "DATA"
	foreignTable := func(m *memory) {
		linux, _ := disk.ParseGUID(disk.TypeLinux)
		primary, backup, err := disk.Table{ID: linux, Sectors: testSize / 512, Partitions: []disk.Partition{
			{Type: linux, ID: linux, Name: "data", First: 2048, Last: 100000}}}.Encode()
		if err != nil {
			panic(err)
		}
		copy(m.data, protectiveMBR(testSize))
		copy(m.data[512:], primary)
		copy(m.data[testSize-len(backup):], backup)
	}
	for name, tt := range map[string]struct {
		fill func(*memory)
		want string
	}{
		"gpt":            {foreignTable, "a partition table (GPT)"},
		"gpt and mark":   {func(m *memory) { foreignTable(m); copy(m.data[partitionStart:], markSector()) }, "a partition table (GPT)"},
		"backup only":    {func(m *memory) { foreignTable(m); clear(m.data[:1<<20]) }, "the backup of a partition table"},
		"mbr":            {put(510, "\x55\xaa"), "a partition table (MBR)"},
		"mbr and mark":   {func(m *memory) { put(510, "\x55\xaa")(m); copy(m.data[partitionStart:], markSector()) }, "a partition table (MBR)"},
		"gap and mark":   {func(m *memory) { put(99999, "core")(m); copy(m.data[partitionStart:], markSector()) }, "unknown kind"},
		"ext4":           {func(m *memory) { _ = ext4.Write(m, testSize, head) }, "an ext file system"},
		"luks":           {put(0, "LUKS\xba\xbe"), "encrypted"},
		"btrfs":          {put(0x10040, "_BHRfS_M"), "btrfs"},
		"a byte":         {put(700_000, "x"), "unknown kind"},
		"partition byte": {put(1<<20+5, "x"), "unknown kind"},
		"last byte":      {put(-1, "x"), "unknown kind"},
		"torn mark":      {put(1<<20, mark[:20]), "unknown kind"},
	} {
		for _, discard := range []bool{false, true} {
			m := newMemory(testSize)
			tt.fill(m)
			plan, err := m.judge(discard)
			var foreign *ForeignError
			if !errors.As(err, &foreign) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "not touched") {
				t.Errorf("%s, new %v: %+v, %v; want it refused as %s", name, discard, plan, err, tt.want)
			}
		}
	}
}

func TestJudgeRefuses(t *testing.T) {
	t.Parallel()
	good := Disk{Name: "vda", Sectors: testSize / 512, SectorSize: 512}
	part := Disk{Name: "vda1", Sectors: testSize / 512, SectorSize: 512, Parent: "vda", Number: 1, Label: PartitionName}
	two := part
	two.Name, two.Number = "vda2", 2
	other := part
	other.Label = "data"
	with := func(d Disk, change func(*Disk)) Disk { change(&d); return d }
	blank := func(*memory) {}
	junk := func(m *memory) { copy(m.data[1024:], "junk") }
	for name, tt := range map[string]struct {
		all     []Disk
		fill    func(*memory)
		discard bool
		want    string // "" for an action
		action  Action
	}{
		"two":                 {[]Disk{good, part, two}, blank, false, "2 partitions named XNODE-STATE", ""},
		"read-only":           {[]Disk{with(good, func(d *Disk) { d.ReadOnly = true })}, blank, false, "write protection", ""},
		"small":               {[]Disk{with(good, func(d *Disk) { d.Sectors = 1000 })}, blank, false, "at least 64", ""},
		"4Kn":                 {[]Disk{with(good, func(d *Disk) { d.SectorSize = 4096 })}, blank, false, "sgdisk -n 1:0:0 -c 1:XNODE-STATE", ""},
		"4Kn partition":       {[]Disk{with(part, func(d *Disk) { d.SectorSize = 4096 })}, blank, false, "", MakePartition},
		"blank partition":     {[]Disk{other}, blank, false, "", MakePartition},
		"other partition":     {[]Disk{other}, junk, false, "unknown kind", ""},
		"other, new":          {[]Disk{other}, junk, true, "unknown kind", ""},
		"damaged":             {[]Disk{part}, junk, false, "begin anew with xnode.state=new:", ""},
		"damaged, new":        {[]Disk{part}, junk, true, "", MakePartition},
		"foreign in our name": {[]Disk{part}, func(m *memory) { copy(m.data, "XFSB") }, true, "XFS", ""},
		"cut short": {[]Disk{part}, func(m *memory) {
			_ = ext4.Write(&memory{data: make([]byte, testSize*2)}, testSize*2, ext4.Options{})
			longer(m)
		}, false, "restore the partition table", ""},
		"whole disk, no table": {[]Disk{good}, func(m *memory) { m.make(Plan{Action: MakePartition, Disk: good}) }, false, "", Open},
	} {
		m := newMemory(testSize)
		tt.fill(m)
		plan, err := Judge(tt.all, tt.all[0], tt.discard, func(_ Disk, f func(io.ReaderAt) error) error { return f(m) })
		switch {
		case tt.want == "" && (err != nil || plan.Action != tt.action):
			t.Errorf("%s: %+v, %v; want to %s", name, plan, err, tt.action)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %+v, %v; want the error %q", name, plan, err, tt.want)
		}
	}
}

// longer leaves the beginning of a file system that is larger than its place.
func longer(m *memory) {
	big := newMemory(2 * testSize)
	o := ext4.Options{Label: PartitionName}
	o.UUID[0] = 1
	if err := ext4.Write(big, 2*testSize, o); err != nil {
		panic(err)
	}
	copy(m.data, big.data)
}

func TestMakeFails(t *testing.T) {
	t.Parallel()
	for n := 1; n < 40; n += 3 {
		m := newMemory(testSize)
		m.fails = n
		plan, err := m.judge(false)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.make(plan); m.broke != (err != nil) {
			t.Errorf("write %d failed: %v; Make says %v", n, m.broke, err)
		}
	}
}

// The kernel's words on a disk that cannot be read reach the person.
func TestJudgeReadError(t *testing.T) {
	t.Parallel()
	d := Disk{Name: "vda", Sectors: testSize / 512, SectorSize: 512}
	_, err := Judge([]Disk{d}, d, false, func(_ Disk, f func(io.ReaderAt) error) error { return f(broken{}) })
	if err == nil || !strings.Contains(err.Error(), "bad sector") {
		t.Errorf("Judge = %v; want the read error", err)
	}
}

type broken struct{}

func (broken) ReadAt([]byte, int64) (int, error) { return 0, errors.New("bad sector") }
