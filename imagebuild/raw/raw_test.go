package raw_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/imagebuild/iso"
	"xnodeos.org/imagebuild/raw"
	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/fat"
	"xnodeos.org/internal/testkit"
)

func spec(t *testing.T) raw.Spec {
	t.Helper()
	return raw.Spec{
		Time: 1, IDs: raw.DeriveIDs(sha256.Sum256([]byte("test"))), VolumeID: "XNODEOS",
		GRUBBoot: bytes.Repeat([]byte{0xb0}, 512), GRUBCore: bytes.Repeat([]byte{0xc0}, 100000),
		ESP:     []disk.File{disk.Bytes("EFI/xnodeos/vmlinuz", bytes.Repeat([]byte("kernel"), 1000))},
		Payload: []disk.File{disk.Bytes("xnode/system.squashfs", bytes.Repeat([]byte("payload"), 5000))},
	}
}

// write makes the image as a sparse file.
func write(t *testing.T, s raw.Spec) string {
	t.Helper()
	image, err := raw.New(s)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(image.Size); err != nil {
		t.Fatal(err)
	}
	for _, seg := range image.Segments {
		r, err := seg.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.NewOffsetWriter(f, seg.Offset), r); err != nil {
			t.Fatal(err)
		}
	}
	return name
}

func TestTables(t *testing.T) {
	name := write(t, spec(t))
	if out := testkit.RunTool(t, "sgdisk", "-v", name); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v: %s", out)
	}
	out := testkit.RunTool(t, "sgdisk", "-p", name)
	for _, want := range []string{"XNODE-BOOT", "XNODE-ESP", "XNODE-PAYLOAD", "EF02", "EF00"} {
		if !strings.Contains(out, want) {
			t.Errorf("sgdisk -p does not show %s:\n%s", want, out)
		}
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, problems := disk.CheckTables(f, info.Size())
	if len(problems) > 0 || len(table.Partitions) != 3 {
		t.Fatalf("tables have %d partitions, problems %q", len(table.Partitions), problems)
	}
	checkVolumes(t, f, table)
}

// checkVolumes reads both volumes back, by our reader and by fsck.
func checkVolumes(t *testing.T, f *os.File, table disk.Table) {
	t.Helper()
	section := func(i int) *io.SectionReader {
		p := table.Partitions[i]
		return io.NewSectionReader(f, int64(p.First)*disk.SectorSize, int64(p.Last-p.First+1)*disk.SectorSize)
	}
	esp := section(1)
	if esp.Size() < raw.ESPSize {
		t.Errorf("ESP has %d bytes; want at least %d", esp.Size(), int64(raw.ESPSize))
	}
	v, err := fat.Open(esp, esp.Size())
	if err != nil {
		t.Fatal(err)
	}
	if file, err := v.Find("EFI/xnodeos/vmlinuz"); err != nil || file.Size != 6000 {
		t.Errorf("ESP has kernel %+v (%v); want 6000 bytes", file, err)
	}
	alone := filepath.Join(t.TempDir(), "esp.img")
	out, err := os.Create(alone)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, section(1)); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	testkit.RunTool(t, "fsck.vfat", "-n", alone)
	img, err := iso.Open(section(2), section(2).Size())
	if err != nil {
		t.Fatal(err)
	}
	if file, err := img.Find("xnode/system.squashfs"); err != nil || file.Size != 35000 {
		t.Errorf("payload volume has %+v (%v); want 35000 bytes", file, err)
	}
}

func TestDeterministic(t *testing.T) {
	sum := func() [32]byte {
		image, err := raw.New(spec(t))
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.New()
		if err := image.Write(context.Background(), h, nil); err != nil {
			t.Fatal(err)
		}
		return [32]byte(h.Sum(nil))
	}
	if first, second := sum(), sum(); first != second {
		t.Error("the same spec gives two images")
	}
}

func TestRefuses(t *testing.T) {
	for name, change := range map[string]func(*raw.Spec){
		"no boot image":  func(s *raw.Spec) { s.GRUBBoot = nil },
		"no core image":  func(s *raw.Spec) { s.GRUBCore = []byte("short") },
		"core too large": func(s *raw.Spec) { s.GRUBCore = make([]byte, 2<<20) },
		"no volume id":   func(s *raw.Spec) { s.VolumeID = "" },
	} {
		s := spec(t)
		change(&s)
		if _, err := raw.New(s); err == nil {
			t.Errorf("%s: nothing was refused", name)
		}
	}
}
