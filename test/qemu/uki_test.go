package qemu

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/fat"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/vm"
)

// espLoader is what a firmware starts from a disk that it knows nothing of.
const espLoader = "EFI/BOOT/BOOTX64.EFI"

// TestArtifactUKI boots the unified kernel image from everywhere: the EFI
// system partition of a disk that also has the payload, a stick beside the ISO,
// and an HTTP server.
func TestArtifactUKI(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	t.Run("esp", func(t *testing.T) { ukiOnDisk(t, img) })
	t.Run("stick-and-iso", func(t *testing.T) {
		stick := ukiDisk(t, img.uki)
		ukiLocal(t, img, "cd ", vm.Drive{File: stick, As: vm.USB, Snapshot: true}, vm.Drive{File: img.iso, As: vm.CD})
	})
	t.Run("http-boot", func(t *testing.T) { ukiOverHTTP(t, img, false) })
	if full() {
		t.Run("esp-payload-url", func(t *testing.T) { ukiOverHTTP(t, img, true) })
	}
}

// ukiOnDisk lets the disk image's ESP hold the unified image in place of
// systemd-boot.
func ukiOnDisk(t *testing.T, img *image) {
	name := filepath.Join(t.TempDir(), "disk.img")
	copySparse(t, img.raw, name)
	replaceLoader(t, name, img.uki)
	ukiLocal(t, img, "disk ", vm.Drive{File: name, As: vm.Disk, Snapshot: true})
}

// ukiLocal boots from the first drive, and wants the payload from a medium.
func ukiLocal(t *testing.T, img *image, medium string, drives ...vm.Drive) {
	t.Helper()
	s := scenario{firmware: vm.UEFI, as: vm.CD, change: func(m *vm.Machine) { m.Drives = drives }}
	n, line := s.boot(t, img, ready, stageFailed, kernelPanic)
	facts := n.checkUp(t, line, extra{})
	if record := parseBootRecord(t, facts["record"]); !strings.HasPrefix(record.Medium, medium) {
		t.Errorf("the payload came from %q; want a %s", record.Medium, medium)
	}
	n.checkNoLoader(t)
}

// ukiOverHTTP boots an image that was told where its payload is. The firmware
// fetches it by UEFI HTTP boot, or finds it on an ESP.
func ukiOverHTTP(t *testing.T, img *image, onDisk bool) {
	m := &mirror{}
	tree := http.StripPrefix("/netboot", m.count(http.FileServer(http.Dir(img.netboot))))
	var uki string // set before anything asks
	mux := http.NewServeMux()
	mux.Handle("/netboot/", tree)
	mux.HandleFunc("/edge.efi", func(w http.ResponseWriter, r *http.Request) { http.ServeFile(w, r, uki) })
	var url string
	url, m.server = startServer(t, mux)
	dir := buildMore(t, img, "uki", "--payload-url", url+"netboot/")
	found, err := filepath.Glob(filepath.Join(dir, "*.efi"))
	if err != nil || len(found) != 1 {
		t.Fatalf("unified images in %s: %q, %v; want one", dir, found, err)
	}
	uki = found[0]
	s := scenario{firmware: vm.UEFI, as: vm.CD, change: func(machine *vm.Machine) {
		machine.Nets[0].Isolated, machine.Drives = false, nil
		if onDisk {
			machine.Drives = []vm.Drive{{File: ukiDisk(t, uki), As: vm.NVMe, Snapshot: true}}
			return
		}
		patch, err := machine.OVMF.HTTPBoot(url + "edge.efi")
		if err != nil {
			t.Fatal(err)
		}
		vars := filepath.Join(t.TempDir(), "vars.fd")
		if err := machine.OVMF.WriteVars(vars, patch); err != nil {
			t.Fatal(err)
		}
		machine.OVMF.Vars = vars
	}}
	n, line := s.boot(t, img, ready, stageFailed, kernelPanic)
	n.checkHTTP(t, line, extra{}, url+"netboot/")
	n.checkNoLoader(t)
}

// checkNoLoader makes sure that the kernel came by systemd's stub alone:
// systemd-boot, of the ISO or the disk image, names an initrd.
func (n *node) checkNoLoader(t *testing.T) {
	t.Helper()
	if words := n.shell(t, "cat /proc/cmdline"); strings.Contains(words, "initrd=") {
		t.Errorf("command line %q is a boot loader's; want the unified image's", words)
	}
}

// ukiDisk is a disk with nothing but an ESP that holds the program.
func ukiDisk(t *testing.T, uki string) string {
	t.Helper()
	program, err := os.ReadFile(uki)
	if err != nil {
		t.Fatal(err)
	}
	esp, err := fat.New(fat.Spec{Label: "ESP", Serial: 1, Files: []disk.File{disk.Bytes(espLoader, program)}})
	if err != nil {
		t.Fatal(err)
	}
	kind, err := disk.ParseGUID(disk.TypeESP)
	if err != nil {
		t.Fatal(err)
	}
	const start = 1 << 20
	size := start + esp.Size + 1<<20
	table := disk.Table{ID: disk.DeriveGUID([32]byte{1}, "disk"), Sectors: uint64(size) / disk.SectorSize, Partitions: []disk.Partition{{
		Type: kind, ID: disk.DeriveGUID([32]byte{1}, "esp"), Name: "ESP",
		First: start / disk.SectorSize, Last: uint64(start+esp.Size)/disk.SectorSize - 1,
	}}}
	primary, backup, err := table.Encode()
	if err != nil {
		t.Fatal(err)
	}
	mbr := disk.MBR{}
	mbr.Entries[0] = disk.ProtectiveEntry(table.Sectors)
	segments := []disk.Segment{{File: disk.Bytes("MBR", mbr.Encode())}, {File: disk.Bytes("GPT", primary), Offset: disk.SectorSize}}
	for _, s := range esp.Segments {
		s.Offset += start
		segments = append(segments, s)
	}
	segments = append(segments, disk.Segment{File: disk.Bytes("backup", backup), Offset: size - int64(len(backup))})
	name := filepath.Join(t.TempDir(), "stick.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := (disk.Image{Size: size, Segments: segments}).Write(t.Context(), f, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// copySparse copies a disk image with its holes.
func copySparse(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.CommandContext(t.Context(), "cp", "--sparse=always", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp %s: %v\n%s", from, err, out)
	}
}

// replaceLoader writes an EFI program over the one on the disk's ESP.
func replaceLoader(t *testing.T, image, program string) {
	t.Helper()
	f, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, problems := disk.CheckTables(f, info.Size())
	for _, p := range table.Partitions {
		if p.Type.String() == disk.TypeESP {
			place := image + "@@" + strconv.FormatUint(p.First*disk.SectorSize, 10)
			testkit.RunTool(t, "mcopy", "-o", "-i", place, program, "::"+espLoader)
			return
		}
	}
	t.Fatalf("%s has no EFI system partition: %v, %q", image, table.Partitions, problems)
}
