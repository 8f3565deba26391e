package takeover

import (
	"cmp"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
)

// memoryRange is a line of the firmware's memory map. kind is e820's number.
type memoryRange struct {
	start, end uint64 // end is the first byte behind
	kind       uint32
}

const usable = 1

// machineMap is what the new kernel must be told of the machine, because no
// firmware tells it.
type machineMap struct {
	params []byte        // boot parameters of the running kernel; may be nil
	ranges []memoryRange // in order; neighbours of one kind are one
	free   []memoryRange // where something may be placed; in order
	rsdp   uint64        // address of ACPI's root pointer on UEFI; 0: let the kernel search
	efi    *efiServices  // nil on BIOS, and where the running kernel does not use them
}

// efiServices is what a kernel needs to call UEFI's services where the kernel
// before it has mapped them: they can be moved only once.
type efiServices struct {
	vendor, services, config, smbios uint64
	runtime                          []byte // EFI_MEMORY_DESCRIPTORs
}

// efiDescriptorSize is that of EFI_MEMORY_DESCRIPTOR version 1, UEFI 2.10, 7.2.3.
const efiDescriptorSize = 40

// tables is struct efi_setup_data, arch/x86/include/asm/efi.h.
func (e *efiServices) tables() []byte {
	data := make([]byte, 12*8)
	for i, v := range []uint64{e.vendor, e.services, e.config, e.smbios} {
		le.PutUint64(data[8*i:], v)
	}
	return data
}

// readMachineMap reads what the running kernel knows of the firmware.
func readMachineMap(root fs.FS) (machineMap, error) {
	m := machineMap{}
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
	m.ranges = joinRanges(m.ranges)
	m.free = freeRanges(root, m.ranges)
	table := readTable(root)
	if text := table["ACPI20"]; text != "" {
		if m.rsdp, err = strconv.ParseUint(text, 0, 64); err != nil {
			return m, fmt.Errorf("read ACPI's root pointer: %w", err)
		}
	}
	if m.efi, err = readEFI(root, table); err != nil {
		return m, fmt.Errorf("read UEFI's services: %w", err)
	}
	if m.params == nil {
		m.efi = nil // the address of its system table is there and nowhere else
	}
	return m, nil
}

// joinRanges sorts, and makes one of neighbours of the same kind: UEFI's maps
// are long, and the boot parameters are not.
func joinRanges(list []memoryRange) []memoryRange {
	slices.SortFunc(list, func(a, b memoryRange) int { return cmp.Compare(a.start, b.start) })
	var joined []memoryRange
	for _, r := range list {
		if last := len(joined) - 1; last >= 0 && joined[last].end == r.start && joined[last].kind == r.kind {
			joined[last].end = r.end
			continue
		}
		joined = append(joined, r)
	}
	return joined
}

// freeRanges is the usable memory without what the running kernel has set
// aside in it: tables of the firmware that the next kernel reads again. Where
// the kernel does not show its addresses, it is all of the usable memory.
func freeRanges(root fs.FS, ranges []memoryRange) []memoryRange {
	var free []memoryRange
	memory := systemMemory(root)
	for _, r := range ranges {
		if r.kind != usable {
			continue
		}
		if memory == nil {
			free = append(free, r)
			continue
		}
		for _, s := range memory {
			if start, end := max(r.start, s.start), min(r.end, s.end); start < end {
				free = append(free, memoryRange{start, end, usable})
			}
		}
	}
	return free
}

// systemMemory reads the lines "00100000-bfffffff : System RAM" of /proc/iomem.
func systemMemory(root fs.FS) []memoryRange {
	data, err := fs.ReadFile(root, "proc/iomem")
	if err != nil {
		return nil
	}
	var list []memoryRange
	for line := range strings.Lines(string(data)) {
		span, name, _ := strings.Cut(strings.TrimRight(line, "\n"), " : ")
		from, to, _ := strings.Cut(span, "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if name == "System RAM" && err1 == nil && err2 == nil && end > start {
			list = append(list, memoryRange{start, end + 1, usable})
		}
	}
	return list
}

// readTable reads the lines NAME=ADDRESS of UEFI's system table.
func readTable(root fs.FS) map[string]string {
	table := map[string]string{}
	data, err := fs.ReadFile(root, "sys/firmware/efi/systab")
	if err != nil {
		return table
	}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			table[name] = value
		}
	}
	return table
}

// readEFI reads where the running kernel has mapped UEFI's services; nil where
// it has not. A firmware of 32 bits cannot be handed on.
func readEFI(root fs.FS, table map[string]string) (*efiServices, error) {
	number := func(name string) (uint64, error) {
		data, err := fs.ReadFile(root, "sys/firmware/efi/"+name)
		if err != nil {
			return 0, err
		}
		return strconv.ParseUint(strings.TrimSpace(string(data)), 0, 64)
	}
	entries, _ := fs.ReadDir(root, "sys/firmware/efi/runtime-map") // not there: nothing is mapped
	if width, _ := number("fw_platform_size"); len(entries) == 0 || width != 64 {
		return nil, nil
	}
	e := &efiServices{}
	var err error
	if e.vendor, err = number("fw_vendor"); err != nil {
		return nil, err
	}
	if e.config, err = number("config_table"); err != nil {
		return nil, err
	}
	e.services, _ = number("runtime") // newer kernels neither tell nor ask
	if text := table["SMBIOS"]; text != "" {
		if e.smbios, err = strconv.ParseUint(text, 0, 64); err != nil {
			return nil, err
		}
	}
	for i := range entries {
		var d [5]uint64
		for j, field := range []string{"type", "phys_addr", "virt_addr", "num_pages", "attribute"} {
			if d[j], err = number(fmt.Sprintf("runtime-map/%d/%s", i, field)); err != nil {
				return nil, err
			}
		}
		for _, v := range d {
			e.runtime = le.AppendUint64(e.runtime, v)
		}
	}
	return e, nil
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
