package iso_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"xnodeos.org/imagebuild/iso"
)

// noticed says whether reading or checking finds anything wrong.
func noticed(image []byte) bool {
	m, err := iso.Open(bytes.NewReader(image), int64(len(image)))
	return err != nil || len(m.Check()) > 0
}

func segment(t *testing.T, l *iso.Layout, name string) int {
	t.Helper()
	for _, s := range l.Segments {
		if s.Name == name {
			return int(s.Offset)
		}
	}
	t.Fatalf("the layout has no segment %q:\n%s", name, l)
	return 0
}

// TestDamageIsFound changes each byte that firmware, a loader or a kernel
// follows to find something.
func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	l, err := iso.New(testSpec())
	if err != nil {
		t.Fatal(err)
	}
	image := build(t, testSpec())
	for _, r := range []struct {
		name       string
		from, size int
	}{
		{"MBR", 432, 8},                  // place of the loader
		{"MBR", 446 + 4, 1},              // protective entry
		{"MBR", 446 + 8, 8},              // its place
		{"MBR", 510, 2},                  // signature
		{"GPT", 0, 92},                   // header
		{"GPT", 512, 56},                 // entry
		{"GPT backup", 0, 56},            //
		{"GPT backup", 32 * 512, 92},     //
		{"volume descriptor", 0, 6},      // type, CD001
		{"volume descriptor", 80, 8},     // size
		{"volume descriptor", 120, 20},   // sector size, size of the path tables
		{"volume descriptor", 140, 4},    // path table L
		{"volume descriptor", 148, 4},    // path table M
		{"volume descriptor", 158, 16},   // root folder
		{"boot record", 0, 6},            // type, CD001
		{"boot record", 7, 23},           // EL TORITO SPECIFICATION
		{"boot record", 71, 4},           // boot catalog
		{"terminator", 0, 6},             //
		{"boot catalog", 0, 34},          // validation entry, BIOS entry
		{"boot catalog", 38, 6},          // its size and place
		{"boot catalog", 64, 4},          // section
		{"boot catalog", 96, 2},          // EFI entry
		{"boot catalog", 102, 6},         // its size and place
		{"path table L", 0, 52},          //
		{"path table M", 0, 52},          //
		{"isolinux/isolinux.bin", 8, 56}, // boot information table
		{"isolinux/isolinux.bin", 1000, 4},
	} {
		at := segment(t, l, r.name) + r.from
		for i := at; i < at+r.size; i++ {
			image[i] ^= 0x04
			if !noticed(image) {
				t.Errorf("%s: byte %d changed: nothing was noticed", r.name, i-at+r.from)
			}
			image[i] ^= 0x04
		}
	}
	damageFolders(t, l, image)
	if noticed(image) {
		t.Fatal("the image was not put right between the changes")
	}
	if !noticed(image[:len(image)-2048]) || !noticed(append(image, make([]byte, 2048)...)) {
		t.Error("a cut or longer image was not noticed")
	}
}

// damageFolders changes place, size and name in every record.
func damageFolders(t *testing.T, l *iso.Layout, image []byte) {
	t.Helper()
	for _, folder := range []string{"folder /", "folder /boot", "folder /isolinux", "folder /xnode"} {
		at := segment(t, l, folder)
		for image[at] != 0 {
			for _, i := range []int{2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 25, 32} {
				image[at+i] ^= 0x82
				if !noticed(image) {
					t.Errorf("%s: byte %d of the record %q changed: nothing was noticed", folder, i, image[at+33:at+40])
				}
				image[at+i] ^= 0x82
			}
			at += int(image[at])
		}
	}
}

// TestCheckSaysWhere moves what the boot catalog names.
func TestCheckSaysWhere(t *testing.T) {
	t.Parallel()
	l, err := iso.New(testSpec())
	if err != nil {
		t.Fatal(err)
	}
	image := build(t, testSpec())
	catalog := segment(t, l, "boot catalog")
	binary.LittleEndian.PutUint32(image[catalog+104:], 513)
	m, err := iso.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, p := range m.Check() {
		all.WriteString(p.String() + "\n")
	}
	if want := "EFI system partition: the boot catalog names sector 513, where no file begins"; !strings.Contains(all.String(), want) {
		t.Errorf("Check = %s; want %q", all.String(), want)
	}
	if _, err := m.ESP(); err == nil || !strings.Contains(err.Error(), "513") {
		t.Errorf("ESP = %v; want an error that names the sector", err)
	}
}

func TestOpenRefusesWhatIsNoISO(t *testing.T) {
	t.Parallel()
	for name, data := range map[string][]byte{
		"nothing": nil, "short": make([]byte, 40_000), "zeros": make([]byte, 1<<20),
	} {
		if _, err := iso.Open(bytes.NewReader(data), int64(len(data))); err == nil || !strings.HasPrefix(err.Error(), "read ISO image: ") {
			t.Errorf("%s: Open = %v; want an error", name, err)
		}
	}
}

// FuzzOpen patches an image in its descriptors, folders and anywhere.
func FuzzOpen(f *testing.F) {
	image := build(f, testSpec())
	f.Add([]byte("CD001"), uint16(1), uint64(7), uint32(0))
	f.Add([]byte{}, uint16(47104-32768), ^uint64(0), uint32(1<<20))
	f.Add(image[32768:32768+64], uint16(158), uint64(23), uint32(38912))
	f.Fuzz(func(t *testing.T, head []byte, at uint16, patch uint64, anywhere uint32) {
		data := bytes.Clone(image)
		copy(data[32768:65536], head)
		binary.LittleEndian.PutUint64(data[32768+int(at):], patch)
		data[int(anywhere)%len(data)] ^= byte(patch)
		m, err := iso.Open(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		m.Check()
		for _, file := range m.Files() {
			if file.Size > int64(len(data))*2 {
				continue
			}
			if n, err := io.Copy(io.Discard, m.Open(file)); err != nil || n != file.Size {
				t.Errorf("%q: read %d of %d bytes: %v", file.Name, n, file.Size, err)
			}
		}
	})
}
