package imagebuild

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func inspect(t *testing.T, path string) *Report {
	t.Helper()
	report, err := Inspect(t.Context(), path, NoProgress{})
	if err != nil {
		t.Fatalf("Inspect(%q): %v", path, err)
	}
	return report
}

func TestInspectWhole(t *testing.T) {
	out := buildToy(t, toyOptions)
	for _, path := range []string{"xnodeos-toy-1-linux-6.1-x86_64.iso", "netboot", "netboot/boot.ipxe"} {
		report := inspect(t, filepath.Join(out, path))
		if len(report.Problems) > 0 {
			t.Errorf("Inspect(%q) found %q in a fresh build", path, report.Problems)
		}
		if got, want := strings.Join(report.NodeConfig, " "), "hostname network"; got != want {
			t.Errorf("Inspect(%q) node config = %q; want %q", path, got, want)
		}
		if !strings.HasPrefix(report.Manifest, "sha256:") || report.Label != "toy-1-linux-6.1" {
			t.Errorf("Inspect(%q) = manifest %q, label %q", path, report.Manifest, report.Label)
		}
	}
}

// TestInspectChangedByte changes single bytes: at both ends and in the middle
// of everything that the layout names, and at random places.
func TestInspectChangedByte(t *testing.T) {
	out := buildToy(t, toyOptions)
	for _, name := range []string{
		"xnodeos-toy-1-linux-6.1-x86_64.iso", "netboot/vmlinuz", "netboot/initrd",
		"netboot/system.squashfs", "netboot/manifest.json", "netboot/payload.cpio", "netboot/boot.ipxe",
	} {
		file := filepath.Join(out, name)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, offset := range offsets(data) {
			checkRefused(t, file, data, offset)
		}
	}
}

// offsets are the places worth a look: where zeros end and begin, and some
// random ones.
func offsets(data []byte) []int {
	rng := rand.New(rand.NewPCG(1, uint64(len(data))))
	picked := []int{0, len(data) - 1}
	for range 60 {
		picked = append(picked, rng.IntN(len(data)))
	}
	for i := 1; i < len(data) && len(picked) < 240; i++ {
		if i%512 == 0 && data[i] != 0 {
			picked = append(picked, i, i+rng.IntN(min(512, len(data)-i)))
		}
	}
	return picked
}

func checkRefused(t *testing.T, file string, data []byte, offset int) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{data[offset] ^ 0x41}, int64(offset)); err != nil {
		t.Fatal(err)
	}
	report, err := Inspect(t.Context(), file, NoProgress{})
	if err == nil && len(report.Problems) == 0 {
		t.Errorf("Inspect(%q) found nothing wrong with byte %d changed from %#x", filepath.Base(file), offset, data[offset])
	}
	if _, err := f.WriteAt(data[offset:offset+1], int64(offset)); err != nil {
		t.Fatal(err)
	}
}

// TestInspectLength cuts files short and makes them longer.
func TestInspectLength(t *testing.T) {
	out := buildToy(t, toyOptions)
	for name := range hashes(t, out) {
		file := filepath.Join(out, name)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, changed := range [][]byte{data[:len(data)-1], data[:len(data)/2], nil, append(data[:len(data):len(data)], 0)} {
			if err := os.WriteFile(file, changed, 0o666); err != nil {
				t.Fatal(err)
			}
			report, err := Inspect(t.Context(), file, NoProgress{})
			if err == nil && len(report.Problems) == 0 {
				t.Errorf("Inspect(%q) found nothing wrong with %d bytes instead of %d", name, len(changed), len(data))
			}
		}
		if err := os.WriteFile(file, data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// TestInspectForeign is given what is no artifact.
func TestInspectForeign(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file.iso")
	if err := os.WriteFile(file, []byte("no image"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, dir, filepath.Join(dir, "none")} {
		if _, err := Inspect(t.Context(), path, NoProgress{}); err == nil {
			t.Errorf("Inspect(%q) took it for an artifact", path)
		}
	}
}

// TestInspectOtherManifest puts in a whole, valid payload and manifest that
// the boot configuration does not name.
func TestInspectOtherManifest(t *testing.T) {
	out := buildToy(t, toyOptions)
	other := toyOptions
	other.Sequence = 7
	replaced := buildToy(t, other)
	data, err := os.ReadFile(filepath.Join(replaced, "netboot/manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "netboot/manifest.json"), data, 0o666); err != nil {
		t.Fatal(err)
	}
	if report := inspect(t, filepath.Join(out, "netboot")); len(report.Problems) == 0 {
		t.Error("Inspect took a manifest that boot.ipxe does not name")
	}
}
