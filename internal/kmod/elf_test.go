package kmod

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"strings"
	"testing"
)

// module makes the smallest file that depmod and debug/elf take for a kernel
// module: a relocatable ELF file whose only content is .modinfo.
func module(tb testing.TB, fields ...string) []byte {
	tb.Helper()
	modinfo := strings.Join(fields, "\x00") + "\x00"
	names := "\x00.modinfo\x00.symtab\x00.strtab\x00.shstrtab\x00"
	at := func(name string) uint32 { return uint32(strings.Index(names, "\x00"+name+"\x00") + 1) }
	const header = 64
	offset := uint64(header)
	body := &bytes.Buffer{}
	section := func(name string, kind elf.SectionType, data string, link, info uint32, entsize uint64) elf.Section64 {
		s := elf.Section64{Name: at(name), Type: uint32(kind), Off: offset, Size: uint64(len(data)), Link: link, Info: info, Addralign: 1, Entsize: entsize}
		body.WriteString(data)
		offset += uint64(len(data))
		return s
	}
	sections := []elf.Section64{
		{},
		section(".modinfo", elf.SHT_PROGBITS, modinfo, 0, 0, 0),
		section(".symtab", elf.SHT_SYMTAB, strings.Repeat("\x00", elf.Sym64Size), 3, 1, elf.Sym64Size),
		section(".strtab", elf.SHT_STRTAB, "\x00", 0, 0, 0),
		section(".shstrtab", elf.SHT_STRTAB, names, 0, 0, 0),
	}
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Shoff: offset, Ehsize: header,
		Shentsize: 64, Shnum: uint16(len(sections)), Shstrndx: 4}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	var out bytes.Buffer
	for _, part := range []any{h, body.Bytes(), sections} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			tb.Fatal(err)
		}
	}
	return out.Bytes()
}
