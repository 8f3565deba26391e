package stage1

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// runTool runs a program of the development tools.
func runTool(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s\nrun scripts/setup if the program is missing", cmd, err, out)
	}
}

// The images are made by the programs that people use.
func TestReadLabelOfRealVolumes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fat := func(name string, args ...string) string {
		file := filepath.Join(dir, name)
		runTool(t, "/usr/sbin/mkfs.vfat", append(args, "-C", file, "40000")...)
		return file
	}
	relabel := func(file, label string) string {
		runTool(t, "mlabel", "-i", file, "::"+label)
		return file
	}
	content := filepath.Join(dir, "content")
	if err := os.Mkdir(content, 0o755); err != nil {
		t.Fatal(err)
	}
	iso := filepath.Join(dir, "iso")
	runTool(t, "xorriso", "-as", "mkisofs", "-quiet", "-V", "XNODEOS", "-o", iso, content)
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, make([]byte, 70000), 0o600); err != nil {
		t.Fatal(err)
	}

	tests := []struct {
		file  string
		kind  VolumeKind
		label string
	}{
		{iso, VolumeISO, "XNODEOS"},
		{fat("fat12", "-F", "12", "-n", "XNODE-CFG"), VolumeFAT, "XNODE-CFG"},
		{fat("fat16", "-F", "16", "-n", "XNODE-CFG"), VolumeFAT, "XNODE-CFG"},
		{fat("fat32", "-F", "32", "-n", "XNODE-CFG"), VolumeFAT, "XNODE-CFG"},
		{fat("sectors4k", "-F", "32", "-S", "4096", "-n", "XNODE-CFG"), VolumeFAT, "XNODE-CFG"},
		{fat("unnamed", "-F", "16"), "", ""},
		{relabel(fat("later16", "-F", "16"), "XNODE-CFG"), VolumeFAT, "XNODE-CFG"},
		{relabel(fat("later32", "-F", "32", "-n", "OTHER"), "XNODE-CFG"), VolumeFAT, "XNODE-CFG"},
		{empty, "", ""},
	}
	for _, tt := range tests {
		f, err := os.Open(tt.file)
		if err != nil {
			t.Fatal(err)
		}
		kind, label, err := ReadLabel(f)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		if err != nil || kind != tt.kind || label != tt.label {
			t.Errorf("ReadLabel(%s) = %q, %q, %v; want %q, %q", filepath.Base(tt.file), kind, label, err, tt.kind, tt.label)
		}
	}
}

// Windows writes the label into the root folder only.
func TestReadLabelPrefersRootFolder(t *testing.T) {
	t.Parallel()
	image := fatImage()
	copy(image[43:], "OLD NAME   ")
	root := image[(1+2*9)*512:]
	copy(root, "\xe5ELETED    \x08")
	copy(root[32:], "AX.n.o.d.e.\x0f") // a part of a long name
	copy(root[64:], "XNODE-CFG  \x08")
	if kind, label, err := ReadLabel(bytes.NewReader(image)); kind != VolumeFAT || label != "XNODE-CFG" || err != nil {
		t.Errorf("ReadLabel = %q, %q, %v; want the label of the root folder", kind, label, err)
	}
	clear(root[:96])
	if _, label, _ := ReadLabel(bytes.NewReader(image)); label != "OLD NAME" {
		t.Errorf("ReadLabel = %q; want the label of the boot sector", label)
	}
}

// fatImage is a FAT12 floppy without files.
func fatImage() []byte {
	image := make([]byte, 64<<10)
	copy(image, "\xeb\x3c\x90mkfs.fat\x00\x02\x01\x01\x00\x02\xe0\x00\x40\x0b\xf0\x09\x00")
	copy(image[54:], "FAT12   ")
	image[510], image[511] = 0x55, 0xaa
	return image
}

type brokenDrive struct{}

var errDrive = errors.New("medium error")

func (brokenDrive) ReadAt([]byte, int64) (int, error) { return 0, errDrive }

func TestReadLabelError(t *testing.T) {
	t.Parallel()
	if _, _, err := ReadLabel(brokenDrive{}); !errors.Is(err, errDrive) {
		t.Errorf("ReadLabel of a broken drive = %v; want %v", err, errDrive)
	}
}

func FuzzReadLabel(f *testing.F) {
	f.Add(fatImage())
	iso := make([]byte, 18*2048)
	copy(iso[16*2048:], "\x01CD001\x01")
	copy(iso[16*2048+40:], "XNODEOS")
	f.Add(iso)
	fat32 := fatImage()
	clear(fat32[54:62])
	copy(fat32[82:], "FAT32   ")
	fat32[44] = 2
	f.Add(fat32)
	f.Fuzz(func(t *testing.T, image []byte) {
		kind, label, err := ReadLabel(bytes.NewReader(image))
		if err != nil {
			t.Errorf("ReadLabel of bytes in memory: %v", err)
		}
		if (kind == "") != (label == "") {
			t.Errorf("ReadLabel = kind %q, label %q", kind, label)
		}
	})
}
