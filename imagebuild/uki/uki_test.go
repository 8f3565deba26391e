package uki

import (
	"bytes"
	"debug/pe"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/testkit"
)

// stub reads systemd's real EFI stub.
func stub(t testing.TB) []byte {
	t.Helper()
	root, err := testkit.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(root, "build/libexec/xnodeos/boot/linuxx64.efi.stub"))
	if err != nil {
		t.Fatalf("%v; run scripts/setup", err)
	}
	return data
}

var parts = []Section{
	{".osrel", []byte("ID=xnodeos\n")},
	{".cmdline", []byte("quiet\x00")},
	{".initrd", bytes.Repeat([]byte("initrd"), 5000)},
	{".linux", bytes.Repeat([]byte("linux"), 9001)},
}

func TestBuildParse(t *testing.T) {
	in := stub(t)
	image, err := Build(in, parts)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Build(bytes.Clone(in), parts)
	if err != nil || !bytes.Equal(image, again) {
		t.Fatalf("two builds of the same parts differ (%v)", err)
	}
	back, sections, err := Parse(image, ".osrel")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(parts, sections); diff != "" {
		t.Errorf("Parse gives other sections (-built +parsed):\n%s", diff)
	}
	rebuilt, err := Build(back, sections)
	if err != nil || !bytes.Equal(image, rebuilt) {
		t.Errorf("the parts of an image do not make the same image again (%v)", err)
	}
	checkHeaders(t, in, image)
}

// checkHeaders lets the standard library's reader judge the layout.
func checkHeaders(t *testing.T, stub, image []byte) {
	t.Helper()
	before, err := pe.NewFile(bytes.NewReader(stub))
	if err != nil {
		t.Fatal(err)
	}
	f, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(f.Sections), len(before.Sections)+len(parts); got != want {
		t.Errorf("image has %d sections; want %d", got, want)
	}
	opt := f.OptionalHeader.(*pe.OptionalHeader64)
	var end uint32
	for i, s := range f.Sections {
		if i < len(before.Sections) { // systemd's own are not all aligned
			end = max(end, s.VirtualAddress+s.VirtualSize)
			continue
		}
		if s.VirtualAddress < end || s.VirtualAddress%opt.SectionAlignment != 0 || s.Offset%opt.FileAlignment != 0 {
			t.Errorf("section %s at %#x (file %#x) overlaps or is not aligned", s.Name, s.VirtualAddress, s.Offset)
		}
		end = s.VirtualAddress + s.VirtualSize
	}
	if end > opt.SizeOfImage || opt.SizeOfImage%opt.SectionAlignment != 0 {
		t.Errorf("SizeOfImage = %#x; the last section ends at %#x", opt.SizeOfImage, end)
	}
}

// TestChangedByte changes single bytes everywhere: the checksum must tell.
func TestChangedByte(t *testing.T) {
	image, err := Build(stub(t), parts)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(image); i += 1 + i/64 {
		image[i] ^= 0x10
		back, sections, err := Parse(image, ".osrel")
		if err == nil {
			rebuilt, err := Build(back, sections)
			if err == nil && bytes.Equal(rebuilt, image) {
				t.Errorf("a changed byte at %d goes unnoticed", i)
			}
		}
		image[i] ^= 0x10
	}
}

func TestBuildRefuses(t *testing.T) {
	real := stub(t)
	many := make([]Section, 40)
	for i := range many {
		many[i] = Section{".x", []byte("x")}
	}
	for _, tt := range []struct {
		name     string
		stub     []byte
		sections []Section
		want     string
	}{
		{"no program", []byte("MZ"), parts, "systemd-boot-efi"},
		{"cut program", real[:len(real)/2], parts, "systemd-boot-efi"},
		{"no room", real, many, "room"},
		{"long name", real, []Section{{".averylongname", []byte("x")}}, "averylong"},
		{"empty section", real, []Section{{".linux", nil}}, ".linux"},
	} {
		if _, err := Build(tt.stub, tt.sections); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Build(%s) = %v; want an error with %q", tt.name, err, tt.want)
		}
	}
	if _, _, err := Parse(real, ".osrel"); err == nil {
		t.Error("Parse took a bare stub for an image")
	}
	if _, _, err := Parse([]byte("no program"), ".osrel"); !errors.Is(err, ErrNotPE) {
		t.Errorf("Parse(text) = %v; want ErrNotPE", err)
	}
}

func FuzzParse(f *testing.F) {
	image, err := Build(stub(f), parts)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(image[:4096])
	f.Add(image)
	f.Fuzz(func(_ *testing.T, data []byte) {
		if back, sections, err := Parse(data, ".osrel"); err == nil {
			_, _ = Build(back, sections)
		}
	})
}
