// Package uki puts a unified kernel image together and takes one apart: the
// systemd EFI stub with kernel, initrd and command line as PE sections
// (https://uapi-group.org/specifications/specs/unified_kernel_image/).
//
// The image is one EFI program that a firmware starts from an EFI system
// partition, a medium or an HTTP server, with nothing beside it. The same
// parts give the same bytes. The package does not sign, and does not judge
// what is in a section.
package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
)

// Section is one part of the image. Name has at most 8 bytes, as in ".linux".
type Section struct {
	Name string
	Data []byte
}

// Places in the headers, Microsoft's "PE Format": the offset of the COFF
// header stands at 0x3c of the DOS header; the others count from the COFF
// header's signature.
const (
	lfanew         = 0x3c
	numberSections = 4 + 2
	sizeOptional   = 4 + 16
	optional       = 4 + 20
	sizeOfImage    = optional + 56
	checkSum       = optional + 64
	sectionHeader  = 40
	// readOnlyData is IMAGE_SCN_CNT_INITIALIZED_DATA | IMAGE_SCN_MEM_READ.
	readOnlyData = 0x40000040
)

var le = binary.LittleEndian

// headers are the few numbers of a PE file that change when sections are added.
type headers struct {
	at        int // of the PE signature
	table     int // of the section table
	sections  int
	fileAlign uint32
	virtAlign uint32
	room      int    // bytes of headers
	end       uint32 // first free virtual address
	fileEnd   int    // first byte behind the last section's data
}

// ErrNotPE says that a file is not a 64-bit EFI program.
var ErrNotPE = errors.New("not a 64-bit EFI program")

func parse(file []byte) (*headers, error) {
	f, err := pe.NewFile(bytes.NewReader(file))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotPE, err)
	}
	opt, ok := f.OptionalHeader.(*pe.OptionalHeader64)
	if !ok || f.Machine != pe.IMAGE_FILE_MACHINE_AMD64 {
		return nil, ErrNotPE
	}
	h := &headers{
		at: int(le.Uint32(file[lfanew:])), sections: len(f.Sections),
		fileAlign: opt.FileAlignment, virtAlign: opt.SectionAlignment, room: int(opt.SizeOfHeaders),
	}
	h.table = h.at + optional + int(le.Uint16(file[h.at+sizeOptional:]))
	if h.fileAlign == 0 || h.virtAlign == 0 || h.room > len(file) || h.table+h.sections*sectionHeader > h.room {
		return nil, fmt.Errorf("%w: headers are damaged", ErrNotPE)
	}
	for _, s := range f.Sections {
		if uint64(s.Offset)+uint64(s.Size) > uint64(len(file)) {
			return nil, fmt.Errorf("%w: section %q lies outside the file", ErrNotPE, s.Name)
		}
		h.end = max(h.end, alignUp(s.VirtualAddress+max(s.VirtualSize, s.Size), h.virtAlign))
		h.fileEnd = max(h.fileEnd, int(s.Offset+s.Size))
	}
	return h, nil
}

// Build appends the sections to the stub, in their order. .linux should come
// last: some kernels unpack themselves in place, beyond their section's end.
func Build(stub []byte, sections []Section) ([]byte, error) {
	h, err := parse(stub)
	if err != nil {
		return nil, fmt.Errorf("EFI stub: %w; it comes with Debian's package systemd-boot-efi", err)
	}
	free := h.table + (h.sections+len(sections))*sectionHeader
	if free > h.room {
		return nil, fmt.Errorf("EFI stub: its headers have room for %d more sections, %d are needed", (h.room-h.table)/sectionHeader-h.sections, len(sections))
	}
	size := alignUp(uint32(len(stub)), h.fileAlign)
	for _, s := range sections {
		if len(s.Name) > 8 || len(s.Data) == 0 || uint64(size)+uint64(len(s.Data)) > 1<<31 {
			return nil, fmt.Errorf("section %q: %d bytes do not fit into an EFI program", s.Name, len(s.Data))
		}
		size = alignUp(size+uint32(len(s.Data)), h.fileAlign)
	}
	out := make([]byte, size)
	copy(out, stub)
	at, address := alignUp(uint32(len(stub)), h.fileAlign), h.end
	for i, s := range sections {
		header := out[h.table+(h.sections+i)*sectionHeader:][:sectionHeader]
		clear(header)
		raw := alignUp(uint32(len(s.Data)), h.fileAlign)
		copy(header, s.Name)
		le.PutUint32(header[8:], uint32(len(s.Data)))
		le.PutUint32(header[12:], address)
		le.PutUint32(header[16:], raw)
		le.PutUint32(header[20:], at)
		le.PutUint32(header[36:], readOnlyData)
		copy(out[at:], s.Data)
		at, address = at+raw, alignUp(address+uint32(len(s.Data)), h.virtAlign)
	}
	le.PutUint16(out[h.at+numberSections:], uint16(h.sections+len(sections)))
	le.PutUint32(out[h.at+sizeOfImage:], address)
	le.PutUint32(out[h.at+checkSum:], sum(out, h.at+checkSum))
	return out, nil
}

// Parse takes an image apart: the stub as it was given to Build, except for
// its checksum, and the sections that were added, the first being named first.
// A wrong checksum is an error: firmware does not look, so this finds damage
// in the stub.
func Parse(file []byte, first string) (stub []byte, sections []Section, err error) {
	h, err := parse(file)
	if err != nil {
		return nil, nil, err
	}
	if want := sum(file, h.at+checkSum); le.Uint32(file[h.at+checkSum:]) != want {
		return nil, nil, fmt.Errorf("PE checksum is %#x; the bytes give %#x", le.Uint32(file[h.at+checkSum:]), want)
	}
	f, err := pe.NewFile(bytes.NewReader(file))
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrNotPE, err)
	}
	own := -1
	for i, s := range f.Sections {
		if s.Name == first && own < 0 {
			own = i
		}
		if own < 0 {
			continue
		}
		if s.VirtualSize > s.Size {
			return nil, nil, fmt.Errorf("section %q is longer in memory than in the file", s.Name)
		}
		sections = append(sections, Section{s.Name, file[s.Offset : s.Offset+s.VirtualSize]})
	}
	if own < 0 {
		return nil, nil, fmt.Errorf("no section %q: not an image of xnodeos", first)
	}
	return unbuild(file, h, f, own), sections, nil
}

// unbuild undoes what Build did to the stub's headers.
func unbuild(file []byte, h *headers, f *pe.File, own int) []byte {
	stub := bytes.Clone(file[:f.Sections[own].Offset])
	clear(stub[h.table+own*sectionHeader : h.table+h.sections*sectionHeader])
	le.PutUint16(stub[h.at+numberSections:], uint16(own))
	le.PutUint32(stub[h.at+sizeOfImage:], f.Sections[own].VirtualAddress)
	return stub
}

// sum is the PE checksum (as ImageHlp's CheckSumMappedFile computes it): the
// 16-bit words added with end-around carry, without the field at skip, plus
// the length.
func sum(file []byte, skip int) uint32 {
	var total uint64
	for i := 0; i < len(file); i += 2 {
		if i == skip || i == skip+2 {
			continue
		}
		word := uint64(file[i])
		if i+1 < len(file) {
			word |= uint64(file[i+1]) << 8
		}
		total += word
	}
	for total > 0xffff {
		total = total>>16 + total&0xffff
	}
	return uint32(total) + uint32(len(file))
}

func alignUp(n, to uint32) uint32 { return (n + to - 1) / to * to }
