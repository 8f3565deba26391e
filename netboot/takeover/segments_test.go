package takeover

import (
	"bytes"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// testKernel is a bzImage with a header and nothing that runs.
func testKernel() []byte {
	image := make([]byte, 5*512+10000)
	image[offHeader] = 4
	copy(image[offMagic:], "HdrS")
	image[offJump] = 0x6a
	le.PutUint16(image[offVersion:], 0x20f)
	le.PutUint16(image[offXLoad:], xlfKernel64)
	le.PutUint32(image[offInitrdMax:], 0x7fffffff)
	le.PutUint32(image[offAlignment:], 2<<20)
	le.PutUint32(image[offCmdlineSize:], 2047)
	le.PutUint64(image[offPreferred:], 16<<20)
	le.PutUint32(image[offInitSize:], 50<<20)
	for i := 5 * 512; i < len(image); i++ {
		image[i] = byte(i)
	}
	return image
}

func testMap() machineMap {
	m := machineMap{params: bytes.Repeat([]byte{0xee}, pageSize), rsdp: 0x7fb7e014, ranges: []memoryRange{
		{0, 0x9fc00, usable}, {0x9fc00, 0xa0000, 2}, {1 << 20, 1000 << 20, usable}, {1000 << 20, 1001 << 20, 3}, {4 << 30, 8 << 30, usable},
	}}
	m.free = freeRanges(fstest.MapFS{}, m.ranges)
	return m
}

func TestLayOut(t *testing.T) {
	t.Parallel()
	disk := &ramdisk{}
	disk.add(bytes.Repeat([]byte{1}, 5000))
	disk.add(bytes.Repeat([]byte{2}, 4096))
	segments, entry, err := layOut(testKernel(), disk, "a=b", testMap())
	if err != nil {
		t.Fatal(err)
	}
	type place struct{ address, size, data uint64 }
	var got []place
	for _, s := range segments {
		got = append(got, place{s.address, s.size, uint64(len(s.data))})
	}
	top := uint64(1000 << 20)
	want := []place{{16 << 20, 50 << 20, 10000}, {top - 6*pageSize, 3 * pageSize, 3 * pageSize}, {top - 3*pageSize, 2 * pageSize, 5000}, {top - pageSize, pageSize, 4096}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(place{})); diff != "" {
		t.Errorf("segments (-want +got):\n%s", diff)
	}
	params := top - 6*pageSize
	if entry != params+2*pageSize {
		t.Errorf("entry %#x; want %#x", entry, params+2*pageSize)
	}
	page := segments[1].data
	for _, field := range []struct {
		name      string
		got, want uint64
	}{
		{"ramdisk", uint64(le.Uint32(page[offRamdisk:])), top - 3*pageSize},
		{"ramdisk size", uint64(le.Uint32(page[offRamdiskSize:])), 12288},
		{"command line", uint64(le.Uint32(page[offCmdline:])), params + pageSize},
		{"loader", uint64(page[offLoader]), otherLoader},
		{"rsdp", le.Uint64(page[offRSDP:]), 0x7fb7e014},
		{"setup data", le.Uint64(page[offSetupData:]), 0},
		{"efi", le.Uint64(page[offEFI:]), 0},
		{"initrd of the old system above 4 GiB", le.Uint64(page[offExtended:]), 0},
		{"its command line there", uint64(le.Uint32(page[offExtended+8:])), 0},
		{"sentinel", uint64(page[offSentinel]), 0},
		{"ranges", uint64(page[offE820Count]), 5},
		{"second range", le.Uint64(page[offE820+20:]), 0x9fc00},
		{"its size", le.Uint64(page[offE820+28:]), 0x400},
		{"its kind", uint64(le.Uint32(page[offE820+36:])), 2},
		{"sixth range", le.Uint64(page[offE820+100:]), 0},
		{"screen", uint64(page[0]), 0xee},
	} {
		if field.got != field.want {
			t.Errorf("%s is %#x; want %#x", field.name, field.got, field.want)
		}
	}
	if text := string(bytes.TrimRight(page[pageSize:2*pageSize], "\x00")); text != "a=b" {
		t.Errorf("command line %q; want a=b", text)
	}
}

func TestLayOutRefuses(t *testing.T) {
	t.Parallel()
	disk := &ramdisk{}
	disk.add(make([]byte, 100<<20))
	small := testMap()
	small.free = []memoryRange{{1 << 20, 128 << 20, usable}}
	old := testKernel()
	le.PutUint16(old[offXLoad:], 0)
	odd := testKernel()
	le.PutUint32(odd[offAlignment:], 0x10000f8)
	short := testKernel()
	short[offJump] = 0x5f // the header ends before its last field that counts
	high := testKernel()
	le.PutUint64(high[offPreferred:], 1<<64-1)
	for _, tc := range []struct {
		name    string
		image   []byte
		cmdline string
		m       machineMap
		want    string
	}{
		{"no kernel", []byte("#!"), "", testMap(), "no bzImage"},
		{"32-bit kernel", old, "", testMap(), "no 64-bit entry"},
		{"odd alignment", odd, "", testMap(), "no power of two"},
		{"short header", short, "", testMap(), "no 64-bit entry"},
		{"preferred address beyond all memory", high, "", testMap(), "for the kernel"},
		{"long line", testKernel(), strings.Repeat("x", 3000), testMap(), "command line"},
		{"no room for the initrd", testKernel(), "", small, "for the initrd"},
		{"no room at all", testKernel(), "", machineMap{}, "for the kernel"},
	} {
		if _, _, err := layOut(tc.image, disk, tc.cmdline, tc.m); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v; want %q", tc.name, err, tc.want)
		}
	}
}

// TestFirstCode holds the few instructions against their bytes, as a
// disassembler reads them: nothing runs them but a machine.
func TestFirstCode(t *testing.T) {
	t.Parallel()
	code := firstCode(0x11000, 0xf000, 0x1000200)
	want := []byte{
		0x0f, 0x01, 0x15, 0x19, 0x01, 0, 0, 0xb8, 0x18, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0x8e, 0xe0, 0x8e, 0xe8,
		0x48, 0xbc, 0, 0x18, 0x01, 0, 0, 0, 0, 0, 0x48, 0xbe, 0, 0xf0, 0, 0, 0, 0, 0, 0, 0x48, 0xb8, 0, 2, 0, 1, 0, 0, 0, 0,
		0x6a, 0x10, 0x50, 0x48, 0xcb,
	}
	if !bytes.Equal(code[:len(want)], want) {
		t.Errorf("code\n% x; want\n% x", code[:len(want)], want)
	}
	if base := le.Uint64(code[0x122:]); base != 0x11100 || le.Uint16(code[0x120:]) != 0x1f {
		t.Errorf("table at %#x; want 0x11100", base)
	}
}

// FuzzLayOut: whatever the kernel file says of itself, the segments lie in
// memory that is there, and apart.
func FuzzLayOut(f *testing.F) {
	f.Add(testKernel(), 5000)
	f.Fuzz(func(t *testing.T, image []byte, size int) {
		if size < 1 || size > 1<<20 {
			return
		}
		disk := &ramdisk{}
		disk.add(make([]byte, size))
		m := testMap()
		segments, _, err := layOut(image, disk, "x", m)
		if err != nil {
			return
		}
		end := uint64(0)
		for _, s := range segments {
			if s.address < end || uint64(len(s.data)) > s.size || s.address%pageSize != 0 || s.size%pageSize != 0 {
				t.Fatalf("segment of %d bytes at %#x behind %#x", s.size, s.address, end)
			}
			end = s.address + s.size
			inside := false
			for _, r := range m.ranges {
				inside = inside || r.kind == usable && s.address >= r.start && end <= r.end
			}
			if !inside {
				t.Fatalf("segment at %#x lies in no memory", s.address)
			}
		}
	})
}
