package takeover

import (
	"bytes"
	"fmt"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func unexported() cmp.Option { return cmp.AllowUnexported(machineMap{}, memoryRange{}, efiServices{}) }

func TestReadMachineMap(t *testing.T) {
	t.Parallel()
	root := fstest.MapFS{
		"sys/firmware/memmap/10/start": file("0x100000\n"), "sys/firmware/memmap/10/end": file("0x1fffff\n"), "sys/firmware/memmap/10/type": file("System RAM\n"),
		"sys/firmware/memmap/9/start": file("0x0\n"), "sys/firmware/memmap/9/end": file("0xfff\n"), "sys/firmware/memmap/9/type": file("Reserved\n"),
		"sys/firmware/efi/systab": file("ACPI20=0x7fb7e014\nACPI=0x7fb7e000\n"),
	}
	got, err := readMachineMap(root)
	if err != nil {
		t.Fatal(err)
	}
	want := machineMap{ranges: []memoryRange{{0, 0x1000, 2}, {0x100000, 0x200000, usable}}, free: []memoryRange{{0x100000, 0x200000, usable}}, rsdp: 0x7fb7e014}
	if diff := cmp.Diff(want, got, unexported()); diff != "" {
		t.Errorf("readMachineMap (-want +got):\n%s", diff)
	}
	root["sys/firmware/memmap/9/end"] = file("junk")
	if _, err := readMachineMap(root); err == nil {
		t.Error("a broken memory map was taken")
	}
	if _, err := readMachineMap(fstest.MapFS{}); err == nil {
		t.Error("a missing memory map was taken")
	}
}

// uefiRoot is what a machine with UEFI shows, as OVMF's does.
func uefiRoot() fstest.MapFS {
	params := bytes.Repeat([]byte{0xee}, pageSize)
	copy(params[offEFI:], "EL64\x18\xb0\x5e\x5f\x30\x00\x00\x00\x01\x00\x00\x00")
	root := fstest.MapFS{
		"sys/kernel/boot_params/data":        &fstest.MapFile{Data: params},
		"sys/firmware/efi/systab":            file("ACPI20=0x5f77d014\nACPI=0x5f77d000\nSMBIOS=0x5f520000\n"),
		"sys/firmware/efi/fw_platform_size":  file("64\n"),
		"sys/firmware/efi/fw_vendor":         file("0x5f5ebc98\n"),
		"sys/firmware/efi/runtime":           file("0x5f5ebb98\n"),
		"sys/firmware/efi/config_table":      file("0x5f52aa18\n"),
		"proc/iomem":                         file("00000000-00000fff : Reserved\n00100000-5de68fff : System RAM\n  02000000-02e00000 : Kernel code\n5de69000-5de69fff : Reserved\n5de6a000-5ea89fff : System RAM\n"),
		"sys/firmware/efi/unrelated/nothing": file(""),
	}
	for i, r := range []struct{ end, start, kind string }{
		{"0x5ea89fff", "0x900000", "System RAM"}, {"0x8fffff", "0x100000", "System RAM"}, {"0x5eb8bfff", "0x5ea8a000", "Reserved"},
	} {
		dir := fmt.Sprintf("sys/firmware/memmap/%d/", i)
		root[dir+"start"], root[dir+"end"], root[dir+"type"] = file(r.start), file(r.end), file(r.kind)
	}
	for i, r := range [][5]string{{"0xb", "0xffc00000", "0xfffffffeffc00000", "0x400", "0x8000000000000001"}, {"0x6", "0x5feec000", "0xfffffffeffaec000", "0x84", "0x800000000000000f"}} {
		for j, name := range []string{"type", "phys_addr", "virt_addr", "num_pages", "attribute"} {
			root[fmt.Sprintf("sys/firmware/efi/runtime-map/%d/%s", i, name)] = file(r[j] + "\n")
		}
	}
	return root
}

// TestHandsUEFIOver follows the pointers that the new kernel follows, from the
// boot parameters to the tables and the map of UEFI's services.
func TestHandsUEFIOver(t *testing.T) {
	t.Parallel()
	m, err := readMachineMap(uefiRoot())
	if err != nil {
		t.Fatal(err)
	}
	wantFree := []memoryRange{{0x100000, 0x5de69000, usable}, {0x5de6a000, 0x5ea8a000, usable}}
	if diff := cmp.Diff(wantFree, m.free, unexported()); diff != "" {
		t.Errorf("free memory, without the table that the kernel keeps (-want +got):\n%s", diff)
	}
	disk := &ramdisk{}
	disk.add(make([]byte, 16<<20))
	segments, _, err := layOut(testKernel(), disk, "a=b", m)
	if err != nil {
		t.Fatal(err)
	}
	at := func(address uint64) []byte {
		for _, s := range segments {
			if address >= s.address && address < s.address+uint64(len(s.data)) {
				return s.data[address-s.address:]
			}
		}
		t.Fatalf("nothing is loaded at %#x", address)
		return nil
	}
	for _, s := range segments {
		if s.address < 0x5de6a000 && s.address+s.size > 0x5de69000 {
			t.Errorf("segment of %#x bytes at %#x overwrites a table of the firmware", s.size, s.address)
		}
	}
	var page []byte
	for _, s := range segments {
		if s.size == 4*pageSize {
			page = s.data
		}
	}
	setup := at(le.Uint64(page[offSetupData:]))
	info := page[offEFI:]
	runtime := at(uint64(le.Uint32(info[0x10:])) | uint64(le.Uint32(info[0x1c:]))<<32)
	for _, field := range []struct {
		name      string
		got, want uint64
	}{
		{"rsdp", le.Uint64(page[offRSDP:]), 0x5f77d014},
		{"signature", uint64(le.Uint32(info)), 0x34364c45},
		{"system table", uint64(le.Uint32(info[4:])), 0x5f5eb018},
		{"size of a descriptor", uint64(le.Uint32(info[8:])), 40},
		{"version of a descriptor", uint64(le.Uint32(info[12:])), 1},
		{"size of the map", uint64(le.Uint32(info[0x14:])), 80},
		{"next setup data", le.Uint64(setup), 0},
		{"kind of setup data", uint64(le.Uint32(setup[8:])), 4},
		{"size of setup data", uint64(le.Uint32(setup[12:])), 96},
		{"vendor", le.Uint64(setup[16:]), 0x5f5ebc98},
		{"runtime services", le.Uint64(setup[24:]), 0x5f5ebb98},
		{"configuration tables", le.Uint64(setup[32:]), 0x5f52aa18},
		{"smbios", le.Uint64(setup[40:]), 0x5f520000},
		{"first type", le.Uint64(runtime), 0xb},
		{"second physical address", le.Uint64(runtime[48:]), 0x5feec000},
		{"second virtual address", le.Uint64(runtime[56:]), 0xfffffffeffaec000},
		{"second size", le.Uint64(runtime[64:]), 0x84},
		{"second attribute", le.Uint64(runtime[72:]), 0x800000000000000f},
	} {
		if field.got != field.want {
			t.Errorf("%s is %#x; want %#x", field.name, field.got, field.want)
		}
	}
}

// TestNoUEFIToHandOver: without all of it, none of it.
func TestNoUEFIToHandOver(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(fstest.MapFS){
		"32-bit firmware": func(m fstest.MapFS) { m["sys/firmware/efi/fw_platform_size"] = file("32\n") },
		"no services in use": func(m fstest.MapFS) {
			for name := range m {
				if ok := len(name) > 29 && name[:29] == "sys/firmware/efi/runtime-map/"; ok {
					delete(m, name)
				}
			}
		},
		"no boot parameters": func(m fstest.MapFS) { delete(m, "sys/kernel/boot_params/data") },
	} {
		root := uefiRoot()
		change(root)
		m, err := readMachineMap(root)
		if err != nil || m.efi != nil || m.rsdp == 0 {
			t.Errorf("%s: %+v, %v; want ACPI's pointer alone", name, m.efi, err)
		}
	}
	root := uefiRoot()
	root["sys/firmware/efi/runtime-map/1/phys_addr"] = file("junk")
	if _, err := readMachineMap(root); err == nil {
		t.Error("a broken map of UEFI's services was taken")
	}
}

// TestLongMemoryMap: what does not fit into the boot parameters is chained
// behind them.
func TestLongMemoryMap(t *testing.T) {
	t.Parallel()
	m := testMap()
	for i := range uint64(200) {
		m.ranges = append(m.ranges, memoryRange{16<<30 + i<<20, 16<<30 + i<<20 + 4096, 2})
	}
	disk := &ramdisk{}
	disk.add(make([]byte, 100))
	segments, _, err := layOut(testKernel(), disk, "", m)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range segments {
		if s.size != 4*pageSize {
			continue
		}
		setup := s.data[le.Uint64(s.data[offSetupData:])-s.address:]
		if count, kind, size := s.data[offE820Count], le.Uint32(setup[8:]), le.Uint32(setup[12:]); count != 128 || kind != 1 || size != 77*20 {
			t.Errorf("%d lines, then setup data of kind %d with %d bytes; want 128, kind 1 and %d", count, kind, size, 77*20)
		}
		if first, want := le.Uint64(setup[16:]), m.ranges[128].start; first != want {
			t.Errorf("the first line behind begins at %#x; want %#x", first, want)
		}
		return
	}
	t.Fatal("there are no boot parameters with room behind them")
}

func FuzzSystemMemory(f *testing.F) {
	f.Add([]byte("00000000-00000fff : Reserved\n00100000-5de68fff : System RAM\n  02000000-02e00000 : Kernel code\n"))
	f.Add([]byte("00000000-00000000 : System RAM\nffffffffffffffff-ffffffffffffffff : System RAM\n0-ffffffffffffffff : System RAM"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, r := range freeRanges(fstest.MapFS{"proc/iomem": &fstest.MapFile{Data: data}}, []memoryRange{{4096, 1 << 30, usable}}) {
			if r.start < 4096 || r.end > 1<<30 || r.start >= r.end {
				t.Errorf("memory from %#x to %#x", r.start, r.end)
			}
		}
	})
}
