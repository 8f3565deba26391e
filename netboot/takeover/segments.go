package takeover

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const (
	entry64     = 0x200 // of the protected-mode part
	xlfKernel64 = 1
)

// segment is a piece of memory as kexec_load takes it: size bytes at address,
// data first and zeros behind.
type segment struct {
	data    []byte
	address uint64
	size    uint64
}

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
	room := uint64(pageUp(max(initSize(image), int64(len(protected)))))
	align := max(uint64(le.Uint32(header[offAlignment:])), pageSize)
	if align&(align-1) != 0 {
		return nil, 0, fmt.Errorf("the kernel wants to lie at a multiple of %#x, which is no power of two", align)
	}
	base, ok := m.lowest(le.Uint64(header[offPreferred:]), align, room)
	if !ok {
		return nil, 0, fmt.Errorf("no %d MiB of memory in one piece for the kernel", mib(int64(room)))
	}
	top := min(uint64(le.Uint32(header[offInitrdMax:]))+1, 1<<32)
	disk, ok := m.highest(top, uint64(pageUp(initrd.size)), base+room)
	if !ok {
		return nil, 0, fmt.Errorf("no %d MiB of memory in one piece below %#x for the initrd", mib(initrd.size), top)
	}
	// Boot parameters, command line, first code, and what the parameters point to.
	setup, _ := m.setupData(0)
	paramsSize := 3*pageSize + uint64(pageUp(int64(len(setup))))
	params, ok := m.highest(disk, paramsSize, base+room)
	if !ok {
		return nil, 0, errors.New("no memory for the boot parameters")
	}
	page := make([]byte, paramsSize)
	at := placement{disk: disk, diskSize: initrd.size, cmdline: params + pageSize, setup: params + 3*pageSize}
	setup, at.efiMap = m.setupData(at.setup)
	m.fillParams(page, header, at)
	copy(page[pageSize:2*pageSize-1], cmdline)
	copy(page[2*pageSize:], firstCode(params+2*pageSize, params, base+entry64))
	copy(page[3*pageSize:], setup)
	// All of the room, and not only the kernel as it is: the old kernel keeps the
	// page tables that are in force until the new one has its own somewhere
	// beside the segments, and the new one unpacks itself over its room first.
	segments := []segment{{protected, base, room}, {page, params, paramsSize}}
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
	if start >= len(image) || end < offInitSize+4 || end > offE820 || le.Uint16(image[offVersion:]) < 0x20c || le.Uint16(image[offXLoad:])&xlfKernel64 == 0 {
		return nil, nil, errors.New("the kernel has no 64-bit entry (boot protocol 2.12)")
	}
	return image[:end:end], image[start:], nil
}

// initSize is the memory that a kernel takes to unpack itself; 0 if it does
// not say.
func initSize(image []byte) int64 {
	header, _, err := splitImage(image)
	if err != nil {
		return 0
	}
	return int64(le.Uint32(header[offInitSize:]))
}

// lowest finds memory at or above from; the first MiB is left alone.
func (m machineMap) lowest(from, align, size uint64) (uint64, bool) {
	if from >= 1<<32 {
		return 0, false
	}
	for _, r := range m.free {
		at := max(r.start, from, 1<<20)
		at = (at + align - 1) / align * align
		if at+size <= r.end && at+size <= 1<<32 {
			return at, true
		}
	}
	return 0, false
}

// highest finds memory that ends at or below to and begins at or above floor.
func (m machineMap) highest(to, size, floor uint64) (uint64, bool) {
	for _, r := range slices.Backward(m.free) {
		end := min(r.end, to) / pageSize * pageSize
		if end >= size && end-size >= max(r.start, floor) {
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
