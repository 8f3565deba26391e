package takeover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// Offsets in x86's boot parameters ("zero page", Documentation/arch/x86/
// zero-page.rst) and in the header of a bzImage (boot.rst), which are the same.
const (
	offRSDP        = 0x070
	offEFI         = 0x1c0
	offE820Count   = 0x1e8
	offHeader      = 0x1f1 // setup_sects is its first byte
	offJump        = 0x201 // the header ends so many bytes behind 0x202
	offMagic       = 0x202
	offVersion     = 0x206
	offLoader      = 0x210
	offRamdisk     = 0x218
	offRamdiskSize = 0x21c
	offCmdline     = 0x228
	offInitrdMax   = 0x22c
	offAlignment   = 0x230
	offXLoad       = 0x236
	offCmdlineSize = 0x238
	offSetupData   = 0x250
	offPreferred   = 0x258
	offInitSize    = 0x260
	offE820        = 0x2d0
	maxE820        = 128
	entry64        = 0x200 // of the protected-mode part
	xlfKernel64    = 1
	otherLoader    = 0xff
)

// segment is a piece of memory as kexec_load takes it: size bytes at address,
// data first and zeros behind.
type segment struct {
	data    []byte
	address uint64
	size    uint64
}

// memoryRange is a line of the firmware's memory map. kind is e820's number.
type memoryRange struct {
	start, end uint64 // end is the first byte behind
	kind       uint32
}

// machineMap is what the new kernel must be told of the machine, because no
// firmware tells it.
type machineMap struct {
	params []byte // boot parameters of the running kernel; may be nil
	ranges []memoryRange
	rsdp   uint64 // address of ACPI's root pointer on UEFI; 0: let the kernel search
}

const usable = 1

var le = binary.LittleEndian

// layOut places kernel, initrd and boot parameters for kexec_load, and returns
// the address at which the new kernel begins.
func layOut(image []byte, initrd *ramdisk, cmdline string, m machineMap) ([]segment, uint64, error) {
	header, protected, err := splitImage(image)
	if err != nil {
		return nil, 0, err
	}
	if limit := le.Uint32(header[offCmdlineSize:]); uint64(len(cmdline)) > uint64(limit) {
		return nil, 0, fmt.Errorf("command line of %d bytes; this kernel takes %d", len(cmdline), limit)
	}
	initSize := uint64(le.Uint32(header[offInitSize:]))
	align := max(uint64(le.Uint32(header[offAlignment:])), pageSize)
	base, ok := m.lowest(le.Uint64(header[offPreferred:]), align, initSize)
	if !ok {
		return nil, 0, fmt.Errorf("no %d MiB of memory in one piece for the kernel", mib(int64(initSize)))
	}
	top := min(uint64(le.Uint32(header[offInitrdMax:]))+1, 1<<32)
	disk, ok := m.highest(top, uint64(pageUp(initrd.size)), base+initSize)
	if !ok {
		return nil, 0, fmt.Errorf("no %d MiB of memory in one piece below %#x for the initrd", mib(initrd.size), top)
	}
	const paramsSize = 3 * pageSize // boot parameters, command line, first code
	params, ok := m.highest(disk, paramsSize, base+initSize)
	if !ok {
		return nil, 0, errors.New("no memory for the boot parameters")
	}
	page := make([]byte, paramsSize)
	m.fillParams(page, header, disk, initrd.size, params+pageSize)
	copy(page[pageSize:2*pageSize-1], cmdline)
	copy(page[2*pageSize:], firstCode(params+2*pageSize, params, base+entry64))
	segments := []segment{{protected, base, uint64(pageUp(int64(len(protected))))}, {page, params, paramsSize}}
	for _, p := range initrd.pieces {
		segments = append(segments, segment{p.data, disk + uint64(p.at), uint64(pageUp(int64(len(p.data))))})
	}
	slices.SortFunc(segments, func(a, b segment) int { return int(int64(a.address - b.address)) })
	return segments, params + 2*pageSize, nil
}

// splitImage takes a bzImage apart: the setup header, and the part that runs
// in 64-bit mode.
func splitImage(image []byte) (header, protected []byte, err error) {
	if len(image) < 4*512 || string(image[offMagic:offMagic+4]) != "HdrS" {
		return nil, nil, errors.New("the kernel is no bzImage")
	}
	sectors := int(image[offHeader])
	if sectors == 0 {
		sectors = 4
	}
	start := (sectors + 1) * 512
	end := offMagic + int(image[offJump])
	if start >= len(image) || end > offE820 || le.Uint16(image[offVersion:]) < 0x20c || le.Uint16(image[offXLoad:])&xlfKernel64 == 0 {
		return nil, nil, errors.New("the kernel has no 64-bit entry (boot protocol 2.12)")
	}
	return image[:end:end], image[start:], nil
}

// fillParams makes the new kernel's boot parameters of the running one's, which
// know screen and firmware. UEFI's own services are not handed over: only the
// kernel itself (kexec_file_load) knows where it has mapped them.
func (m machineMap) fillParams(page, header []byte, disk uint64, diskSize int64, cmdline uint64) {
	copy(page[:pageSize], m.params)
	clear(page[offEFI : offEFI+32])
	clear(page[offHeader:offE820])
	copy(page[offHeader:], header[offHeader:])
	page[offLoader] = otherLoader
	le.PutUint32(page[offRamdisk:], uint32(disk))
	le.PutUint32(page[offRamdiskSize:], uint32(diskSize))
	le.PutUint32(page[offCmdline:], uint32(cmdline))
	le.PutUint64(page[offSetupData:], 0)
	if m.rsdp != 0 {
		le.PutUint64(page[offRSDP:], m.rsdp)
	}
	clear(page[offE820 : offE820+maxE820*20])
	count := min(len(m.ranges), maxE820)
	page[offE820Count] = byte(count)
	for i, r := range m.ranges[:count] {
		at := page[offE820+20*i:]
		le.PutUint64(at, r.start)
		le.PutUint64(at[8:], r.end-r.start)
		le.PutUint32(at[16:], r.kind)
	}
}

// lowest finds memory at or above from; the first MiB is left alone.
func (m machineMap) lowest(from, align, size uint64) (uint64, bool) {
	for _, r := range m.ranges {
		at := max(r.start, from, 1<<20)
		at = (at + align - 1) / align * align
		if r.kind == usable && at+size <= r.end && at+size <= 1<<32 {
			return at, true
		}
	}
	return 0, false
}

// highest finds memory that ends at or below to and begins at or above floor.
func (m machineMap) highest(to, size, floor uint64) (uint64, bool) {
	for _, r := range slices.Backward(m.ranges) {
		end := min(r.end, to) / pageSize * pageSize
		if r.kind == usable && end >= size && end-size >= max(r.start, floor) {
			return end - size, true
		}
	}
	return 0, false
}

// firstCode is what runs after the old kernel, at address at: it loads segment
// registers as the boot protocol wants them (code 0x10, data 0x18), puts the
// address of the boot parameters into RSI, and goes to the kernel's entry.
func firstCode(at, params, entry uint64) []byte {
	const table, pointer, stack = 0x100, 0x120, 0x800
	code := make([]byte, pageSize)
	b := []byte{0x0f, 0x01, 0x15} // lgdt [rip+pointer]
	b = le.AppendUint32(b, pointer-7)
	b = append(b,
		0xb8, 0x18, 0, 0, 0, // mov eax, 0x18
		0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0x8e, 0xe0, 0x8e, 0xe8, // mov ds, es, ss, fs, gs, eax
		0x48, 0xbc) // mov rsp, ...
	b = le.AppendUint64(b, at+stack)
	b = append(b, 0x48, 0xbe) // mov rsi, ...
	b = le.AppendUint64(b, params)
	b = append(b, 0x48, 0xb8) // mov rax, ...
	b = le.AppendUint64(b, entry)
	b = append(b, 0x6a, 0x10, 0x50, 0x48, 0xcb) // push 0x10; push rax; retfq
	copy(code, b)
	le.PutUint64(code[table+0x10:], 0x00af9a000000ffff)
	le.PutUint64(code[table+0x18:], 0x00cf92000000ffff)
	le.PutUint16(code[pointer:], 0x1f)
	le.PutUint64(code[pointer+2:], at+table)
	return code
}

// readMachineMap reads what the running kernel knows of the firmware.
func readMachineMap(root fs.FS) (machineMap, error) {
	var m machineMap
	if params, err := fs.ReadFile(root, "sys/kernel/boot_params/data"); err == nil && len(params) == pageSize {
		m.params = params
	}
	entries, err := fs.ReadDir(root, "sys/firmware/memmap")
	if err != nil {
		return m, fmt.Errorf("read the firmware's memory map: %w", err)
	}
	for _, e := range entries {
		r, err := readRange(root, "sys/firmware/memmap/"+e.Name())
		if err != nil {
			return m, fmt.Errorf("read the firmware's memory map: %w", err)
		}
		m.ranges = append(m.ranges, r)
	}
	slices.SortFunc(m.ranges, func(a, b memoryRange) int {
		if a.start < b.start {
			return -1
		}
		return 1
	})
	if table, err := fs.ReadFile(root, "sys/firmware/efi/systab"); err == nil {
		for line := range strings.Lines(string(table)) {
			if text, ok := strings.CutPrefix(strings.TrimSpace(line), "ACPI20="); ok {
				if m.rsdp, err = strconv.ParseUint(text, 0, 64); err != nil {
					return m, fmt.Errorf("read ACPI's root pointer: %w", err)
				}
			}
		}
	}
	return m, nil
}

// Names of /sys/firmware/memmap, arch/x86/kernel/e820.c. What is not known is
// reserved.
func rangeKind(name string) uint32 {
	switch name {
	case "System RAM":
		return usable
	case "ACPI Tables":
		return 3
	case "ACPI Non-volatile Storage":
		return 4
	case "Unusable memory":
		return 5
	}
	return 2
}

func readRange(root fs.FS, dir string) (memoryRange, error) {
	var r memoryRange
	kind, err := fs.ReadFile(root, dir+"/type")
	if err != nil {
		return r, err
	}
	r.kind = rangeKind(strings.TrimSpace(string(kind)))
	for name, into := range map[string]*uint64{"start": &r.start, "end": &r.end} {
		text, err := fs.ReadFile(root, dir+"/"+name)
		if err != nil {
			return r, err
		}
		if *into, err = strconv.ParseUint(strings.TrimSpace(string(text)), 0, 64); err != nil {
			return r, err
		}
	}
	if r.end++; r.end <= r.start {
		return r, fmt.Errorf("%s ends before it begins", dir)
	}
	return r, nil
}
