package takeoverfile

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"xnodeos.org/internal/cpio"
	"xnodeos.org/internal/disk"
)

// Names of the parts, in their order in the archive.
const (
	KernelName   = "vmlinuz"
	InitrdName   = "initrd"
	ManifestName = "manifest.json"
	CmdlineName  = "cmdline"
	PayloadName  = "system.squashfs"
)

const (
	magic       = "XNODE-TAKEOVER-1"
	trailerSize = 64
	pageSize    = 4096
)

// Bounds of what Open reads into memory or believes.
const (
	maxProgram = 256 << 20
	maxSmall   = 1 << 30 // kernel and initrd, each
	maxText    = 16 << 20
	maxPayload = 1<<32 - 1 // a newc archive has eight hex digits
)

// Spec is what a takeover file is made of. Cmdline is one line without its
// end. Payload is nil where the new system fetches it.
type Spec struct {
	Program  []byte
	Kernel   []byte
	Initrd   []byte
	Manifest []byte
	Cmdline  string
	Payload  *disk.File
}

// Layout places the parts. The payload is read only when the image is written.
func Layout(s Spec) (*disk.Image, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("takeover file: %w", err)
	}
	plan, err := place(s.sizes())
	if err != nil {
		return nil, fmt.Errorf("takeover file: %w", err)
	}
	image := &disk.Image{}
	contents := map[string][]byte{
		KernelName: s.Kernel, InitrdName: s.Initrd, ManifestName: s.Manifest, CmdlineName: []byte(s.Cmdline + "\n"),
	}
	hash := sha256.New()
	position := int64(0)
	add := func(f disk.File, generated bool) {
		image.Segments = append(image.Segments, disk.Segment{File: f, Offset: position, Generated: generated})
		position += f.Size
	}
	small := func(name string, data []byte, generated bool) {
		hash.Write(data)
		add(disk.Bytes(name, data), generated)
	}
	small("program", s.Program, false)
	small("padding", make([]byte, pad(position, pageSize)), true)
	for i, p := range plan.parts {
		small("archive", plan.heads[i], true)
		if p.Name == PayloadName {
			add(*s.Payload, false)
		} else {
			small(p.Name, contents[p.Name], false)
		}
	}
	if s.Payload == nil {
		hash.Write(plan.end)
	}
	add(disk.Bytes("archive", plan.end), true)
	add(disk.Bytes("trailer", trailerBytes(plan.start, position-plan.start, hash.Sum(nil))), true)
	image.Size = position
	return image, nil
}

func (s Spec) check() error {
	if err := checkProgram(s.Program); err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		size int64
		most int64
	}{
		{KernelName, int64(len(s.Kernel)), maxSmall}, {InitrdName, int64(len(s.Initrd)), maxSmall},
		{ManifestName, int64(len(s.Manifest)), maxText}, {CmdlineName, int64(len(s.Cmdline)), maxText},
	} {
		if part.size == 0 || part.size > part.most {
			return fmt.Errorf("%s has %d bytes; allowed are 1 to %d", part.name, part.size, part.most)
		}
	}
	if bytes.ContainsAny([]byte(s.Cmdline), "\n\r\x00") {
		return fmt.Errorf("%s contains a line break or NUL", CmdlineName)
	}
	if s.Payload != nil && (s.Payload.Size < 1 || s.Payload.Size > maxPayload) {
		return fmt.Errorf("%s has %d bytes; the archive takes 1 to %d: name a --payload-url instead of embedding it", PayloadName, s.Payload.Size, int64(maxPayload))
	}
	return nil
}

// checkProgram wants what runs on any Linux as it is: static, for x86-64, and
// without something behind it that was taken for the archive.
func checkProgram(program []byte) error {
	if len(program) > maxProgram {
		return fmt.Errorf("program has %d bytes; allowed are %d", len(program), maxProgram)
	}
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("program: %w", err)
	}
	if f.Class != elf.ELFCLASS64 || f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("program is for %s, %s; want a 64-bit x86-64 program", f.Machine, f.Class)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return errors.New("program needs a dynamic loader, which the old system may not have; build it with CGO_ENABLED=0")
		}
	}
	if len(program) >= trailerSize && string(program[len(program)-trailerSize:][:len(magic)]) == magic {
		return errors.New("program is a takeover file itself; want the bare xnode-takeover")
	}
	return nil
}

// sizes are the lengths that decide the layout. payload is -1 for none.
type sizes struct{ program, kernel, initrd, manifest, cmdline, payload int64 }

func (s Spec) sizes() sizes {
	n := sizes{int64(len(s.Program)), int64(len(s.Kernel)), int64(len(s.Initrd)), int64(len(s.Manifest)), int64(len(s.Cmdline)) + 1, -1}
	if s.Payload != nil {
		n.payload = s.Payload.Size
	}
	return n
}

// Part is one file of the archive, where it lies in the whole file.
type Part struct {
	Name   string
	Offset int64
	Size   int64
}

// plan is where everything lies: heads[i] stands before parts[i], end behind
// the last. start is the archive's offset.
type plan struct {
	start int64
	parts []Part
	heads [][]byte
	end   []byte
}

func place(n sizes) (*plan, error) {
	p := &plan{start: n.program + pad(n.program, pageSize)}
	at := p.start
	take := &gaps{}
	w := cpio.NewWriter(take)
	for _, part := range []Part{
		{KernelName, 0, n.kernel}, {InitrdName, 0, n.initrd}, {ManifestName, 0, n.manifest}, {CmdlineName, 0, n.cmdline}, {PayloadName, 0, n.payload},
	} {
		if part.Size < 0 {
			continue
		}
		if err := w.File(part.Name, 0o444, part.Size, take.body(part.Size)); err != nil {
			return nil, err
		}
		head := take.heads[len(take.heads)-1]
		at += int64(len(head))
		part.Offset = at
		at += part.Size
		p.parts, p.heads = append(p.parts, part), append(p.heads, head)
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	p.end = take.current
	return p, nil
}

// gaps keeps what a cpio writer writes between the contents of files. The
// contents themselves, zeros here, are not kept.
type gaps struct {
	heads   [][]byte
	current []byte
	skip    int64
}

func (g *gaps) Write(b []byte) (int, error) {
	n := min(g.skip, int64(len(b)))
	g.skip -= n
	g.current = append(g.current, b[n:]...)
	return len(b), nil
}

// body is the content of a file; its first read ends the head.
func (g *gaps) body(size int64) io.Reader { return &hollow{g: g, left: size} }

type hollow struct {
	g     *gaps
	left  int64
	begun bool
}

func (h *hollow) Read(b []byte) (int, error) {
	if !h.begun {
		h.begun = true
		h.g.heads = append(h.g.heads, h.g.current)
		h.g.current, h.g.skip = nil, h.left
	}
	if h.left == 0 {
		return 0, io.EOF
	}
	n := min(h.left, int64(len(b)))
	clear(b[:n])
	h.left -= n
	return int(n), nil
}

func trailerBytes(offset, length int64, sum []byte) []byte {
	t := make([]byte, 0, trailerSize)
	t = append(t, magic...)
	t = binary.LittleEndian.AppendUint64(t, uint64(offset))
	t = binary.LittleEndian.AppendUint64(t, uint64(length))
	return append(t, sum...)
}

func pad(n, to int64) int64 { return (to - n%to) % to }
