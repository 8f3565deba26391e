package disk_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/testkit"
)

const testSectors = 16 << 11 // 16 MiB

func guid(t *testing.T, text string) disk.GUID {
	t.Helper()
	g, err := disk.ParseGUID(text)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func testTable(t *testing.T) disk.Table {
	t.Helper()
	seed := sha256.Sum256([]byte("test"))
	return disk.Table{
		ID: disk.DeriveGUID(seed, "disk"), Sectors: testSectors,
		Partitions: []disk.Partition{
			{Type: guid(t, disk.TypeBIOSBoot), ID: disk.DeriveGUID(seed, "1"), Name: "BIOS boot", First: 2048, Last: 4095},
			{Type: guid(t, disk.TypeESP), ID: disk.DeriveGUID(seed, "2"), Name: "EFI – Système", First: 4096, Last: 8191},
			{Type: guid(t, disk.TypeLinux), ID: disk.DeriveGUID(seed, "3"), First: 8192, Last: testSectors - 2048 - 1, Attributes: 1 << 60},
		},
	}
}

// testDisk is a whole disk with tables and nothing else.
func testDisk(t *testing.T, table disk.Table) []byte {
	t.Helper()
	primary, backup, err := table.Encode()
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, table.Sectors*disk.SectorSize)
	mbr := disk.MBR{Signature: 0x11223344}
	mbr.Entries[0] = disk.ProtectiveEntry(table.Sectors)
	copy(out, mbr.Encode())
	copy(out[disk.SectorSize:], primary)
	copy(out[len(out)-len(backup):], backup)
	return out
}

func TestSgdiskReadsTheTable(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "disk.img")
	table := testTable(t)
	if err := os.WriteFile(path, testDisk(t, table), 0o600); err != nil {
		t.Fatal(err)
	}
	if out := testkit.RunTool(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") || strings.Contains(out, "Caution") {
		t.Errorf("sgdisk -v: %s", out)
	}
	out := testkit.RunTool(t, "sgdisk", "-p", "-i", "1", "-i", "2", "-i", "3", path)
	for _, want := range []string{
		table.ID.String(), "BIOS boot", "EFI – Système",
		"GUID code: " + disk.TypeBIOSBoot, "GUID code: " + disk.TypeESP, "GUID code: " + disk.TypeLinux,
		"unique GUID: " + table.Partitions[0].ID.String(), "First sector: 8192 ", "Attribute flags: 1000000000000000",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("sgdisk -p -i does not show %q:\n%s", want, out)
		}
	}
}

func TestTableComesBack(t *testing.T) {
	t.Parallel()
	want := testTable(t)
	got, problems := disk.CheckTables(bytes.NewReader(testDisk(t, want)), testSectors*disk.SectorSize)
	if diff := cmp.Diff(want, got); diff != "" || problems != nil {
		t.Errorf("CheckTables: problems %q, difference (-want +got)\n%s", problems, diff)
	}
}

func TestEveryByteOfTheTableCounts(t *testing.T) {
	t.Parallel()
	good := testDisk(t, testTable(t))
	check := func(from, to int) {
		for at := from; at < to; at++ {
			good[at] ^= 0x10
			if _, problems := disk.CheckTables(bytes.NewReader(good), int64(len(good))); len(problems) == 0 {
				t.Errorf("byte %d changed: no problem found", at)
			}
			good[at] ^= 0x10
		}
	}
	check(446+4, 446+5)                         // type of the protective entry
	check(446+8, 446+16)                        // its place
	check(510, 512)                             // signature
	check(512, 512+92)                          // primary header
	check(1024, 1024+3*128)                     // primary entries
	check(len(good)-512, len(good)-512+92)      // backup header
	check(len(good)-33*512, len(good)-33*512+9) // backup entries
}

func TestEncodeRefuses(t *testing.T) {
	t.Parallel()
	seed := sha256.Sum256(nil)
	part := func(first, last uint64) disk.Partition {
		return disk.Partition{Type: guid(t, disk.TypeLinux), ID: disk.DeriveGUID(seed, "x"), First: first, Last: last}
	}
	long := part(2048, 4095)
	long.Name = strings.Repeat("n", 37)
	for name, test := range map[string]struct {
		table disk.Table
		want  string
	}{
		"too small":    {disk.Table{Sectors: 67}, "no room for two tables"},
		"no type":      {disk.Table{Sectors: testSectors, Partitions: []disk.Partition{{First: 2048, Last: 2048}}}, "type or id is zero"},
		"over header":  {disk.Table{Sectors: testSectors, Partitions: []disk.Partition{part(33, 2048)}}, "not within 34 to"},
		"over backup":  {disk.Table{Sectors: testSectors, Partitions: []disk.Partition{part(2048, testSectors-33)}}, "not within 34 to"},
		"ends early":   {disk.Table{Sectors: testSectors, Partitions: []disk.Partition{part(2048, 2047)}}, "sectors 2048 to 2047"},
		"overlap":      {disk.Table{Sectors: testSectors, Partitions: []disk.Partition{part(2048, 4096), part(4096, 5000)}}, "1 and 2 overlap"},
		"long name":    {disk.Table{Sectors: testSectors, Partitions: []disk.Partition{long}}, "longer than 36"},
		"129 of these": {disk.Table{Sectors: testSectors, Partitions: make([]disk.Partition, 129)}, "the table holds 128"},
	} {
		if _, _, err := test.table.Encode(); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: Encode = %v; want an error with %q", name, err, test.want)
		}
	}
}

func TestGUID(t *testing.T) {
	t.Parallel()
	if got := guid(t, strings.ToLower(disk.TypeESP)).String(); got != disk.TypeESP {
		t.Errorf("ParseGUID and String give %s; want %s", got, disk.TypeESP)
	}
	for _, bad := range []string{"", "C12A7328", disk.TypeESP + "0", "C12A7328F81F-11D2-BA4B-00A0C93EC93B-", strings.Replace(disk.TypeESP, "C", "G", 1)} {
		if _, err := disk.ParseGUID(bad); err == nil {
			t.Errorf("ParseGUID(%q) succeeded", bad)
		}
	}
	a, b := sha256.Sum256([]byte("a")), sha256.Sum256([]byte("b"))
	g := disk.DeriveGUID(a, "disk")
	if g != disk.DeriveGUID(a, "disk") || g == disk.DeriveGUID(a, "esp") || g == disk.DeriveGUID(b, "disk") {
		t.Error("DeriveGUID does not depend on seed and purpose alone")
	}
	if s := g.String(); s[14] != '8' || !strings.ContainsRune("89AB", rune(s[19])) {
		t.Errorf("DeriveGUID gives %s, which is not of version 8", s)
	}
}

// FuzzReadTable mends the checksums of what it is given, so that the numbers
// behind them are reached.
func FuzzReadTable(f *testing.F) {
	seed := sha256.Sum256(nil)
	typ, err := disk.ParseGUID(disk.TypeESP)
	if err != nil {
		f.Fatal(err)
	}
	table := disk.Table{ID: disk.DeriveGUID(seed, "d"), Sectors: 100, Partitions: []disk.Partition{{Type: typ, ID: disk.DeriveGUID(seed, "p"), First: 40, Last: 50}}}
	primary, _, err := table.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(primary[:92], primary[512:512+256], uint32(2))
	f.Add(primary[:40], []byte{}, uint32(1<<31))
	f.Fuzz(func(t *testing.T, header, entries []byte, count uint32) {
		data := make([]byte, 100*disk.SectorSize)
		copy(data[512:1024], header)
		copy(data[1024:], entries)
		le := binary.LittleEndian
		le.PutUint32(data[512+80:], count)
		if total := uint64(count) * uint64(le.Uint32(data[512+84:])); total <= uint64(len(data)-1024) {
			le.PutUint32(data[512+88:], crc32.ChecksumIEEE(data[1024:1024+total]))
		}
		if size := le.Uint32(data[512+12:]); size <= 512 && size >= 20 {
			clear(data[512+16 : 512+20])
			le.PutUint32(data[512+16:], crc32.ChecksumIEEE(data[512:512+size]))
		}
		got, err := disk.ReadTable(bytes.NewReader(data), int64(len(data)), 1)
		if err != nil {
			return
		}
		for _, p := range got.Partitions {
			if p.Last >= 100 || p.First > p.Last {
				t.Errorf("partition at %d to %d of 100 sectors", p.First, p.Last)
			}
		}
	})
}
