package imagebuild

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// buildRaw builds the toy system's disk image; GRUB's images are no programs.
func buildRaw(t *testing.T) string {
	t.Helper()
	in := toyInputs(t, newToyStore(t))
	in.Loaders[blobGRUBBoot] = Blob{Data: bytes.Repeat([]byte{0xb0}, 512)}
	in.Loaders[blobGRUBCore] = Blob{Data: bytes.Repeat([]byte{0xc0}, 100001)}
	out := t.TempDir()
	if _, err := toyPlan(t, in, Options{Formats: []Format{Raw}, Time: 1}).Write(t.Context(), out, t.TempDir(), nil, NoProgress{}); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(out, "xnodeos-toy-1-linux-6.1-x86_64.img")
}

func TestRaw(t *testing.T) {
	file := buildRaw(t)
	report := inspect(t, file)
	if len(report.Problems) > 0 || report.Kind != "raw" {
		t.Errorf("Inspect of a fresh %s found %q", report.Kind, report.Problems)
	}
	if diff := cmp.Diff([]string{"hostname", "network"}, report.NodeConfig); diff != "" {
		t.Errorf("node config (-want +got):\n%s", diff)
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; info.Size() < 512<<20 || used > 32<<20 {
		t.Errorf("image of %d bytes takes %d on the disk; want most of it to be holes", info.Size(), used)
	}
	if a, b := hashes(t, filepath.Dir(file)), hashes(t, filepath.Dir(buildRaw(t))); !cmp.Equal(a, b) {
		t.Error("two builds differ")
	}
}

// TestRawChangedByte looks at the start of the image, where tables, loader and
// the ESP's head are, and at both ends of the rest.
func TestRawChangedByte(t *testing.T) {
	file := buildRaw(t)
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 1)
	for _, offset := range []int64{0, 0x5c, 440, 512, 1024, 1 << 20, 1<<20 + 0x1f4, 1<<20 + 5000, 2 << 20, 2<<20 + 512*32,
		300 << 20, info.Size() - 1<<20, info.Size() - 512, info.Size() - 1} {
		if _, err := f.ReadAt(one, offset); err != nil {
			t.Fatal(err)
		}
		changeByte(t, file, offset, one[0]^0x41)
		report, err := Inspect(t.Context(), file, NoProgress{})
		if err == nil && len(report.Problems) == 0 {
			t.Errorf("Inspect found nothing wrong with byte %d changed", offset)
		}
		changeByte(t, file, offset, one[0])
	}
}

func changeByte(t *testing.T, file string, offset int64, to byte) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{to}, offset); err != nil {
		t.Fatal(err)
	}
}
