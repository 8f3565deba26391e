package fat_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/fat"
	"xnodeos.org/internal/testkit"
)

// pattern is content that differs at every offset and from file to file.
func pattern(seed uint64, size int) []byte {
	out := make([]byte, size)
	r := rand.NewChaCha8([32]byte(binary.BigEndian.AppendUint64(make([]byte, 24), seed)))
	if _, err := r.Read(out); err != nil {
		panic("BUG: " + err.Error())
	}
	return out
}

func bootFiles(kernelSize int) []disk.File {
	return []disk.File{
		disk.Bytes("EFI/BOOT/BOOTX64.EFI", pattern(1, 5000)),
		disk.Bytes("loader/loader.conf", []byte("timeout 0\n")),
		disk.Bytes("loader/entries/xnodeos.conf", pattern(2, 2048)),
		disk.Bytes("EFI/xnodeos/vmlinuz", pattern(3, kernelSize)),
		disk.Bytes("EFI/xnodeos/initrd", pattern(4, 2049)),
		disk.Bytes("empty file.txt", nil),
	}
}

func write(t *testing.T, spec fat.Spec) (*fat.Layout, []byte) {
	t.Helper()
	l, err := fat.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	out.Grow(int(l.Size))
	if err := l.Write(t.Context(), &out, nil); err != nil {
		t.Fatal(err)
	}
	if int64(out.Len()) != l.Size {
		t.Fatalf("wrote %d bytes, planned %d", out.Len(), l.Size)
	}
	return l, out.Bytes()
}

func content(t *testing.T, f disk.File) []byte {
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

// readBack compares a volume, read by our own reader, with what went in.
func readBack(t *testing.T, image []byte, spec fat.Spec) *fat.Volume {
	t.Helper()
	v, err := fat.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	if problems := v.Check(); len(problems) > 0 {
		t.Errorf("Check = %q; want none", problems)
	}
	if v.Label != spec.Label || v.Serial != spec.Serial {
		t.Errorf("label %q serial %08x; want %q %08x", v.Label, v.Serial, spec.Label, spec.Serial)
	}
	want := map[string]string{}
	for _, f := range spec.Files {
		want[f.Name] = string(content(t, f))
	}
	got := map[string]string{}
	for _, f := range v.Files() {
		data, err := io.ReadAll(v.Open(f))
		if err != nil {
			t.Errorf("read %q: %v", f.Name, err)
		}
		got[f.Name] = string(data)
	}
	for name, data := range want {
		if g, ok := got[name]; !ok || g != data {
			t.Errorf("file %q: present %v, %d bytes; want %d", name, ok, len(g), len(data))
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d files came back; want %d", len(got), len(want))
	}
	return v
}

func TestVolumeIsCleanToOtherTools(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		kernelMiB, bits int
	}{{1, 16}, {125, 16}, {130, 32}} {
		t.Run(fmt.Sprintf("%d MiB", test.kernelMiB), func(t *testing.T) {
			spec := fat.Spec{Label: "XNODEOS", Serial: 0x1234ABCD, Time: 1_700_000_001, Files: bootFiles(test.kernelMiB << 20)}
			l, image := write(t, spec)
			if l.Bits != test.bits {
				t.Errorf("FAT%d; want FAT%d", l.Bits, test.bits)
			}
			readBack(t, image, spec)
			path := filepath.Join(t.TempDir(), "esp.img")
			if err := os.WriteFile(path, image, 0o600); err != nil {
				t.Fatal(err)
			}
			out := testkit.RunTool(t, "fsck.vfat", "-n", "-v", "-V", path)
			for _, word := range []string{"Invalid", "Free cluster", "differ", "Dirty", "Wrong", "reclaimed", "Perform"} {
				if strings.Contains(out, word) {
					t.Errorf("fsck.vfat complains:\n%s", out)
				}
			}
			if out := testkit.RunTool(t, "mdir", "-i", path, "::/EFI/xnodeos"); !strings.Contains(out, "2023-11-14  22:13") || !strings.Contains(out, "1234-ABCD") {
				t.Errorf("mdir shows no time or serial:\n%s", out)
			}
			for _, f := range spec.Files {
				to := filepath.Join(t.TempDir(), "out")
				testkit.RunTool(t, "mcopy", "-n", "-i", path, "::/"+f.Name, to)
				if got, err := os.ReadFile(to); err != nil || !bytes.Equal(got, content(t, f)) {
					t.Errorf("mcopy %q: %d bytes, %v; they are not what was written", f.Name, len(got), err)
				}
			}
		})
	}
}

func TestDataCanBeShared(t *testing.T) {
	t.Parallel()
	spec := fat.Spec{Label: "X", Files: bootFiles(3 << 20)}
	l, image := write(t, spec)
	last := int64(0)
	for _, f := range spec.Files {
		off, ok := l.Offset(f.Name)
		if f.Size == 0 {
			if ok {
				t.Errorf("Offset(%q) = %d; an empty file has none", f.Name, off)
			}
			continue
		}
		if !ok || off%fat.ClusterSize != 0 || off <= last || !bytes.Equal(image[off:off+f.Size], content(t, f)) {
			t.Errorf("Offset(%q) = %d, %v: not aligned, not in order or other bytes", f.Name, off, ok)
		}
		last = off
	}
}

func TestSameInputSameBytes(t *testing.T) {
	t.Parallel()
	spec := fat.Spec{Label: "XNODEOS", Serial: 7, Time: 1, Files: bootFiles(1 << 20)}
	_, first := write(t, spec)
	_, second := write(t, spec)
	if !bytes.Equal(first, second) {
		t.Error("two volumes of the same input differ")
	}
}

// TestNames has names of every kind, among them ones that need a numbered
// short name, and more than fill one cluster of a folder.
func TestNames(t *testing.T) {
	t.Parallel()
	names := []string{
		"UPPER.TXT", "lower.txt", "Mixed.Txt", "no extension", "NOEXT", "two.dots.tar.gz", ".hidden", "ünïcödé.文", "🐧", "a+b,c;d=e[f]",
		"exactly13char", strings.Repeat("n", 255), strings.Repeat("26", 13), "deep/er/and/deeper/file",
	}
	for i := range 150 {
		names = append(names, fmt.Sprintf("many/a long name that is number %d.config", i))
	}
	spec := fat.Spec{Label: "NAMES", Time: 1}
	for i, name := range names {
		spec.Files = append(spec.Files, disk.Bytes(name, pattern(uint64(i), i*37)))
	}
	_, image := write(t, spec)
	readBack(t, image, spec)
	path := filepath.Join(t.TempDir(), "names.img")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.RunTool(t, "fsck.vfat", "-n", path)
	out := testkit.RunTool(t, "mdir", "-b", "-i", path, "::/many")
	if got := strings.Count(out, "a long name that is number"); got != 150 {
		t.Errorf("mdir lists %d of 150 names", got)
	}
}

func TestRandomTrees(t *testing.T) {
	t.Parallel()
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		spec := fat.Spec{Label: "RANDOM", Serial: uint32(seed), Time: int64(seed) * 1e8}
		for i := range r.IntN(60) {
			name := fmt.Sprintf("f%d", i)
			for range r.IntN(4) {
				name = fmt.Sprintf("Folder %d/", r.IntN(5)) + name
			}
			spec.Files = append(spec.Files, disk.Bytes(name, pattern(uint64(i), r.IntN(10000))))
		}
		_, image := write(t, spec)
		readBack(t, image, spec)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	one := func(names ...string) fat.Spec {
		spec := fat.Spec{Label: "X"}
		for _, n := range names {
			spec.Files = append(spec.Files, disk.Bytes(n, []byte("x")))
		}
		return spec
	}
	var crowd []string
	for i := range 600 {
		crowd = append(crowd, fmt.Sprintf("F%d", i))
	}
	huge := one("a")
	huge.Files[0].Size = 1 << 32
	tooMuch := fat.Spec{Label: "X"}
	for i := range 40 {
		tooMuch.Files = append(tooMuch.Files, disk.File{Name: fmt.Sprint(i), Size: 1<<32 - 1})
	}
	for name, test := range map[string]struct {
		spec fat.Spec
		want string
	}{
		"no label":        {fat.Spec{}, `label ""`},
		"long label":      {fat.Spec{Label: "ABCDEFGHIJKL"}, "1 to 11 characters"},
		"small label":     {fat.Spec{Label: "esp"}, `character 'e'`},
		"4 GiB":           {huge, "4 GiB - 1"},
		"too much":        {tooMuch, "a volume has at most"},
		"twice":           {one("a/b", "a/b"), "named twice"},
		"case":            {one("a/b", "A/c"), "differs from"},
		"file and folder": {one("a", "a/b"), "both file and folder"},
		"folder and file": {one("a/b", "a"), "both file and folder"},
		"leading slash":   {one("/a"), `name ""`},
		"dots":            {one("a/../b"), `name ".."`},
		"question mark":   {one("what?"), `character '?'`},
		"trailing dot":    {one("what."), "ends with a dot"},
		"not UTF-8":       {one("\xff"), "not UTF-8"},
		"too long":        {one(strings.Repeat("x", 256)), "over 255 units"},
		"root is full":    {one(crowd...), "in the root folder"},
	} {
		if _, err := fat.New(test.spec); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: New = %v; want an error with %q", name, err, test.want)
		}
	}
}

// TestDamageIsFound changes what a driver follows and wants it noticed.
func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	for _, mib := range []int{1, 130} {
		spec := fat.Spec{Label: "XNODEOS", Files: bootFiles(mib << 20)}
		l, good := write(t, spec)
		if !slices.ContainsFunc(l.Segments, func(s disk.Segment) bool { return s.Name == "FAT folder /EFI/xnodeos" }) {
			t.Fatal("no segment is the folder that is damaged here")
		}
		reserved := int(binary.LittleEndian.Uint16(good[14:])) * 512
		offsets := []int{11, 13, 14, 16, 510, reserved + 40, reserved + 41}
		if l.Bits == 16 {
			offsets = append(offsets, 43)
		} else {
			offsets = append(offsets, 71, 44, 512, 512+488, 6*512+100)
		}
		for _, s := range l.Segments {
			if strings.HasSuffix(s.Name, "/EFI/xnodeos") {
				offsets = append(offsets, int(s.Offset)+26, int(s.Offset)+32+26, int(s.Offset)+3*32+29, int(s.Offset)+3*32+26)
			}
		}
		for _, at := range offsets {
			good[at] ^= 0x41
			v, err := fat.Open(bytes.NewReader(good), int64(len(good)))
			if err == nil && len(v.Check()) == 0 {
				t.Errorf("FAT%d: byte %d changed: nothing was noticed", l.Bits, at)
			}
			good[at] ^= 0x41
		}
	}
}

func TestOffsetsOfTheReader(t *testing.T) {
	t.Parallel()
	spec := fat.Spec{Label: "X", Files: bootFiles(1 << 20)}
	l, image := write(t, spec)
	v := readBack(t, image, spec)
	f, err := v.Find("efi/XNODEOS/vmlinuz")
	if err != nil {
		t.Fatal(err)
	}
	off, _ := l.Offset("EFI/xnodeos/vmlinuz")
	if diff := cmp.Diff([]disk.Run{{Offset: off, Size: 1 << 20}}, f.Runs); diff != "" {
		t.Errorf("runs (-want +got)\n%s", diff)
	}
	if _, err := v.Find("EFI/nothing"); err == nil || !strings.Contains(err.Error(), "not exist") {
		t.Errorf("Find = %v; want that it does not exist", err)
	}
}

// FuzzOpen patches a volume at up to three places.
func FuzzOpen(f *testing.F) {
	l, err := fat.New(fat.Spec{Label: "FUZZ", Files: bootFiles(5000)})
	if err != nil {
		f.Fatal(err)
	}
	var image bytes.Buffer
	if err := l.Write(f.Context(), &image, nil); err != nil {
		f.Fatal(err)
	}
	f.Add(uint16(11), uint64(0), uint32(0), uint64(1), []byte{})
	f.Add(uint16(1024), uint64(0xFFFFFFFFFFFF), uint32(l.Segments[1].Offset), uint64(1), []byte("X"))
	f.Fuzz(func(t *testing.T, at1 uint16, patch1 uint64, at2 uint32, patch2 uint64, head []byte) {
		data := bytes.Clone(image.Bytes()[:1<<20])
		copy(data, head)
		binary.LittleEndian.PutUint64(data[at1:], patch1)
		binary.LittleEndian.PutUint64(data[int(at2)%(len(data)-8):], patch2)
		v, err := fat.Open(patched{data, int64(image.Len())}, int64(image.Len()))
		if err != nil {
			return
		}
		v.Check()
		var total int64
		for _, file := range v.Files() {
			total += file.Size
			if _, err := io.Copy(io.Discard, v.Open(file)); err != nil {
				t.Errorf("%q: %v", file.Name, err)
			}
		}
		if total > int64(image.Len()) {
			t.Errorf("files of %d bytes in a volume of %d", total, image.Len())
		}
	})
}

// patched is data with zeros behind it.
type patched struct {
	data []byte
	size int64
}

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(b)), p.size-off)))
	clear(b[:n])
	if off < int64(len(p.data)) {
		copy(b[:n], p.data[off:])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
