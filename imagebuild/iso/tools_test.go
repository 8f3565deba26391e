package iso_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/imagebuild/iso"
	"xnodeos.org/internal/testkit"
)

// realLoaders puts the loaders that scripts/setup fetched into the spec.
func realLoaders(t *testing.T, spec *iso.Spec) {
	t.Helper()
	root, err := testkit.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	read := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join(root, "build", "libexec", "xnodeos", "boot", name))
		if errors.Is(err, os.ErrNotExist) {
			t.Fatalf("boot loader %s is missing; run scripts/setup", name)
		} else if err != nil {
			t.Fatal(err)
		}
		return data
	}
	spec.Loader = iso.Bytes(spec.Loader.Name, read("isolinux.bin"))
	spec.MBR = read("isohdpfx.bin")
	spec.First[1] = iso.Bytes(spec.First[1].Name, read("ldlinux.c32"))
	spec.ESP[0] = iso.Bytes(spec.ESP[0].Name, read("systemd-bootx64.efi"))
}

func writeFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "test.iso")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// xorriso runs it without its start-up files and fails on any fault it names.
func xorriso(t *testing.T, args ...string) string {
	t.Helper()
	out := testkit.RunTool(t, "xorriso", append([]string{"-no_rc", "-report_about", "NOTE"}, args...)...)
	for _, word := range []string{"WARNING", "SORRY", "MISHAP", "FAILURE", "FATAL", "damage", "mismatch"} {
		if strings.Contains(out, word) {
			t.Errorf("xorriso %q finds a fault:\n%s", args, out)
		}
	}
	return out
}

func TestXorrisoFindsNoFault(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	realLoaders(t, &spec)
	for name, filler := range map[string]int64{"FAT16": 0, "over 32 MiB": 40 << 20, "FAT32": 130 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := spec
			if filler > 0 {
				spec.ESP = append(spec.ESP[:len(spec.ESP):len(spec.ESP)], marked{size: filler}.file("filler"))
			}
			image := build(t, spec)
			path := writeFile(t, image)
			out := xorriso(t, "-indev", path, "-report_el_torito", "plain", "-report_system_area", "plain")
			sectors, partition := len(image)/512, espSectors(t, image)
			loadSize := partition
			if loadSize > 65535 {
				loadSize = 0
			}
			for _, want := range []string{
				"El Torito boot img :   1  BIOS  y   none  0x0000  0x00      4          27",
				fmt.Sprintf("El Torito boot img :   2  UEFI  y   none  0x0000  0x00  %d  512", loadSize),
				"El Torito img path :   1  /isolinux/isolinux.bin",
				"El Torito img opts :   1  boot-info-table isohybrid-suitable",
				"El Torito img path :   2  /efi.img",
				"System area summary: MBR isohybrid cyl-align-off GPT",
				fmt.Sprintf("ISO image size/512 : %d", sectors),
				fmt.Sprintf("MBR partition      :   1   0x00  0xee            1 %d", sectors-1),
				fmt.Sprintf("GPT lba range : %d %d %d", 34, sectors-34, sectors-1),
				fmt.Sprintf("GPT start and size :   1  2048  %d", partition),
				"GPT partition path :   1  /efi.img",
			} {
				if !strings.Contains(oneSpaced(out), oneSpaced(want)) {
					t.Errorf("xorriso does not say %q:\n%s", want, out)
				}
			}
			if out := testkit.RunTool(t, "sgdisk", "-v", path); !strings.Contains(out, "No problems found") || strings.Contains(out, "Caution") {
				t.Errorf("sgdisk -v: %s", out)
			}
			checkESPWithTools(t, image, spec)
		})
	}
}

// oneSpaced forgets how columns are lined up.
func oneSpaced(text string) string { return strings.Join(strings.Fields(text), " ") }

func espSectors(t *testing.T, image []byte) int {
	t.Helper()
	m, err := iso.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	f, err := m.Find("efi.img")
	if err != nil {
		t.Fatal(err)
	}
	return int(f.Size / 512)
}

func checkESPWithTools(t *testing.T, image []byte, spec iso.Spec) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "efi.img")
	if err := os.WriteFile(path, image[1<<20:][:espSectors(t, image)*512], 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.RunTool(t, "fsck.vfat", "-n", path)
	for _, f := range spec.ESP[:5] {
		to := filepath.Join(t.TempDir(), "out")
		testkit.RunTool(t, "mcopy", "-n", "-i", path, "::/"+f.Name, to)
		if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, content(t, f)) {
			t.Errorf("mcopy %q: %v, or other content", f.Name, err)
		}
	}
}

func TestXorrisoExtractsWhatWentIn(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	path := writeFile(t, build(t, spec))
	for _, names := range []string{"any", "norock"} { // Rock Ridge, or plain ISO 9660
		out := filepath.Join(t.TempDir(), "out")
		xorriso(t, "-read_fs", names, "-osirrox", "on", "-ecma119_map", "lowercase", "-indev", path, "-extract", "/", out)
		testkit.RunTool(t, "chmod", "-R", "u+w", out)
		for name, want := range wanted(t, spec) {
			if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || !bytes.Equal(got, want) {
				t.Errorf("names %s: %q: %v, or other content", names, name, err)
			}
		}
	}
	list := xorriso(t, "-indev", path, "-lsl", "/xnode", "--", "-find", "/", "-exec", "lsdl", "--")
	for _, want := range []string{
		"-r--r--r--    1 0        0         1000000 Nov 14  2023 '/xnode/system.squashfs'",
		"dr-xr-xr-x", "'/boot/vmlinuz'", "'/isolinux/isolinux.cfg'",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("xorriso does not list %q:\n%s", want, list)
		}
	}
}

// checkBigWithXorriso wants another reader to find the marks as well.
func checkBigWithXorriso(t *testing.T, path string) {
	t.Helper()
	if out := xorriso(t, "-indev", path, "-lsl", "/xnode", "--"); !strings.Contains(out, fmt.Sprint(int64(overFourGiB), " Nov 14  2023 'system.squashfs'")) {
		t.Errorf("xorriso does not list the size %d:\n%s", int64(overFourGiB), out)
	}
	// One piece around the seam of the extents: xorriso reads all before it.
	const from, size = 1<<32 - 4096, 8192
	to := filepath.Join(t.TempDir(), "seam")
	xorriso(t, "-osirrox", "on", "-indev", path, "-extract_cut", "/xnode/system.squashfs", fmt.Sprint(from), fmt.Sprint(size), to)
	want := make([]byte, size)
	if _, err := bigPayload().ReadAt(want, from); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, want) {
		t.Errorf("xorriso reads other bytes at the seam of two extents: %v", err)
	}
}
