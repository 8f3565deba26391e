package iso_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/imagebuild/iso"
)

var update = flag.Bool("update", false, "write golden files anew")

// pattern is content that differs from file to file.
func pattern(seed byte, size int) []byte {
	out := make([]byte, size)
	if _, err := rand.NewChaCha8([32]byte{seed}).Read(out); err != nil {
		panic("BUG: " + err.Error())
	}
	return out
}

// testSpec is shaped like a real image; its loaders are only noise.
func testSpec() iso.Spec {
	return iso.Spec{
		VolumeID: "XNODEOS", Time: 1_700_000_000, IDs: iso.DeriveIDs(sha256.Sum256([]byte("test"))),
		Loader: iso.Bytes("isolinux/isolinux.bin", pattern(1, 38_912)),
		MBR:    pattern(2, 432),
		First: []iso.File{
			iso.Bytes("isolinux/isolinux.cfg", []byte("DEFAULT xnodeos\n")),
			iso.Bytes("isolinux/ldlinux.c32", pattern(3, 119_524)),
		},
		ESPName: "efi.img",
		ESP: []iso.File{
			iso.Bytes("EFI/BOOT/BOOTX64.EFI", pattern(4, 140_891)),
			iso.Bytes("loader/loader.conf", []byte("timeout 0\n")),
			iso.Bytes("loader/entries/xnodeos.conf", []byte("title XnodeOS\n")),
			iso.Bytes("EFI/xnodeos/vmlinuz", pattern(5, 300_001)),
			iso.Bytes("EFI/xnodeos/initrd", pattern(6, 200_000)),
		},
		Shared: []iso.Shared{{Name: "boot/vmlinuz", ESP: "EFI/xnodeos/vmlinuz"}, {Name: "boot/initrd", ESP: "EFI/xnodeos/initrd"}},
		Files: []iso.File{
			iso.Bytes("xnode/manifest.json", []byte("{}\n")),
			iso.Bytes("xnode/system.squashfs", pattern(7, 1_000_000)),
			iso.Bytes("xnode/empty", nil),
		},
	}
}

func build(tb testing.TB, spec iso.Spec) []byte {
	tb.Helper()
	l, err := iso.New(spec)
	if err != nil {
		tb.Fatal(err)
	}
	var out bytes.Buffer
	out.Grow(int(l.Size))
	if err := l.Write(tb.Context(), &out, nil); err != nil {
		tb.Fatal(err)
	}
	if int64(out.Len()) != l.Size {
		tb.Fatalf("wrote %d bytes, planned %d", out.Len(), l.Size)
	}
	return out.Bytes()
}

func content(t *testing.T, f iso.File) []byte {
	t.Helper()
	r, err := f.Open()
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// wanted is what the files of an image must hold, the loader apart.
func wanted(t *testing.T, spec iso.Spec) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	esp := map[string][]byte{}
	for _, f := range spec.ESP {
		esp[f.Name] = content(t, f)
	}
	for _, s := range spec.Shared {
		out[s.Name] = esp[s.ESP]
	}
	for _, f := range append(spec.First[:len(spec.First):len(spec.First)], spec.Files...) {
		out[f.Name] = content(t, f)
	}
	return out
}

func TestLayout(t *testing.T) {
	t.Parallel()
	l, err := iso.New(testSpec())
	if err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "layout.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(l.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), l.String()); diff != "" {
		t.Errorf("layout (-want +got; go test -update writes it anew)\n%s", diff)
	}
}

func TestLayoutOpensNothingButTheLoader(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	for _, files := range [][]iso.File{spec.First, spec.ESP, spec.Files} {
		for i := range files {
			files[i].Open = func() (io.ReadCloser, error) { return nil, errors.New("opened") }
		}
	}
	l, err := iso.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Write(t.Context(), io.Discard, nil); err == nil || !strings.Contains(err.Error(), `"isolinux/isolinux.cfg": opened`) {
		t.Errorf("Write = %v; want the error of the first file", err)
	}
}

func TestSameInputSameBytes(t *testing.T) {
	t.Parallel()
	if !bytes.Equal(build(t, testSpec()), build(t, testSpec())) {
		t.Error("two images of the same input differ")
	}
	other := testSpec()
	other.IDs = iso.DeriveIDs([32]byte{1})
	if bytes.Equal(build(t, testSpec()), build(t, other)) {
		t.Error("images with different identifiers are equal")
	}
}

func TestImageComesBack(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	image := build(t, spec)
	m, err := iso.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	if problems := m.Check(); len(problems) > 0 {
		t.Errorf("Check = %q; want none", problems)
	}
	if m.VolumeID != spec.VolumeID || m.Time != spec.Time {
		t.Errorf("volume %q of %d; want %q of %d", m.VolumeID, m.Time, spec.VolumeID, spec.Time)
	}
	if ids, err := m.IDs(); err != nil || ids != spec.IDs {
		t.Errorf("IDs = %v, %v; want %v", ids, err, spec.IDs)
	}
	if code, err := m.MBRCode(); err != nil || !bytes.Equal(code, spec.MBR) {
		t.Errorf("MBRCode = %d bytes, %v; want what was given", len(code), err)
	}
	want := wanted(t, spec)
	names := []string{}
	for _, f := range m.Files() {
		names = append(names, f.Name)
		data, err := io.ReadAll(m.Open(f))
		if err != nil {
			t.Errorf("read %q: %v", f.Name, err)
		}
		switch f.Name {
		case spec.Loader.Name:
			if !bytes.Equal(iso.UnpatchedLoader(data), iso.UnpatchedLoader(content(t, spec.Loader))) {
				t.Error("the loader differs in more than its table")
			}
		case spec.ESPName:
		default:
			if w, ok := want[f.Name]; !ok || !bytes.Equal(data, w) {
				t.Errorf("file %q has other content", f.Name)
			}
		}
	}
	if len(names) != len(want)+2 {
		t.Errorf("files %q; want %d", names, len(want)+2)
	}
	checkESP(t, m, spec)
	if _, err := m.Find("boot/nothing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Find = %v; want os.ErrNotExist", err)
	}
}

func checkESP(t *testing.T, m *iso.Image, spec iso.Spec) {
	t.Helper()
	esp, err := m.ESP()
	if err != nil {
		t.Fatal(err)
	}
	if got := len(esp.Files()); got != len(spec.ESP) {
		t.Errorf("%d files in the EFI system partition; want %d", got, len(spec.ESP))
	}
	for _, f := range spec.ESP {
		found, err := esp.Find(f.Name)
		if err != nil {
			t.Error(err)
			continue
		}
		if data, err := io.ReadAll(esp.Open(found)); err != nil || !bytes.Equal(data, content(t, f)) {
			t.Errorf("%q in the EFI system partition: %v, or other content", f.Name, err)
		}
	}
}

// TestSharedBytesExistOnce counts a mark of the kernel in the image.
func TestSharedBytesExistOnce(t *testing.T) {
	t.Parallel()
	spec := testSpec()
	image := build(t, spec)
	for _, i := range []int{3, 4} {
		if n := bytes.Count(image, content(t, spec.ESP[i])[1000:1100]); n != 1 {
			t.Errorf("%q is in the image %d times; want once", spec.ESP[i].Name, n)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*iso.Spec)
		want   string
	}{
		{"no volume id", func(s *iso.Spec) { s.VolumeID = "" }, `volume id ""`},
		{"small volume id", func(s *iso.Spec) { s.VolumeID = "xnode" }, `character 'x'`},
		{"before 1970", func(s *iso.Spec) { s.Time = -1 }, "time -1"},
		{"after 2155", func(s *iso.Spec) { s.Time = 6_000_000_000 }, "time 6000000000"},
		{"no identifiers", func(s *iso.Spec) { s.IDs = iso.IDs{} }, "use DeriveIDs"},
		{"other MBR", func(s *iso.Spec) { s.MBR = s.MBR[:431] }, "isohdpfx.bin"},
		{"no loader", func(s *iso.Spec) { s.Loader = iso.Bytes("isolinux.bin", nil) }, "want isolinux.bin"},
		{"loader unreadable", func(s *iso.Spec) {
			s.Loader.Open = func() (io.ReadCloser, error) { return nil, os.ErrPermission }
		}, `open "isolinux/isolinux.bin": permission denied`},
		{"loader changed", func(s *iso.Spec) { s.Loader.Size-- }, "got 38912 bytes, expected 38911"},
		{"too large", func(s *iso.Spec) { s.Files[1].Size = 500 << 30 }, "size 536870912000 is not within"},
		{"all too large", func(s *iso.Spec) {
			for i := range 12 {
				s.Files = append(s.Files, iso.File{Name: fmt.Sprint(i), Size: 399 << 30})
			}
		}, "ends at 4 TiB"},
		{"ESP too large", func(s *iso.Spec) {
			for i := range 2 {
				s.ESP = append(s.ESP, iso.File{Name: fmt.Sprint(i), Size: 3 << 30})
			}
		}, "below 4 GiB"},
		{"shared of nothing", func(s *iso.Spec) { s.Shared[0].ESP = "EFI/none" }, `"EFI/none"`},
		{"same plain name", func(s *iso.Spec) {
			s.Files = append(s.Files, iso.Bytes("xnode/a-b", nil), iso.Bytes("xnode/a_b", nil))
		}, `same ISO 9660 name "A_B.;1"`},
		{"twice", func(s *iso.Spec) { s.Files[0].Name = "boot/vmlinuz" }, "same ISO 9660 name"},
		{"long name", func(s *iso.Spec) { s.Files[0].Name = strings.Repeat("n", 31) }, "level 2"},
		{"not ASCII", func(s *iso.Spec) { s.Files[0].Name = "ü" }, "printable ASCII"},
		{"deep", func(s *iso.Spec) { s.Files[0].Name = "1/2/3/4/5/6/7/8/9" }, "more than 8 folders"},
		{"dots", func(s *iso.Spec) { s.Files[0].Name = "a/../b" }, "no dot name"},
	} {
		spec := testSpec()
		test.change(&spec)
		if _, err := iso.New(spec); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: New = %v; want an error with %q", test.name, err, test.want)
		}
	}
}

func TestWriteStopsWithTheContext(t *testing.T) {
	t.Parallel()
	l, err := iso.New(testSpec())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = l.Write(ctx, io.Discard, func(done int64) {
		if done > 2<<20 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Write = %v; want context.Canceled", err)
	}
	cancel()
}
