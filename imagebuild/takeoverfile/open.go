package takeoverfile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"xnodeos.org/internal/cpio"
)

// ErrNoArchive says that a file does not end in a trailer: it is the bare
// program, or something else.
var ErrNoArchive = errors.New("no takeover file: there is no trailer at its end")

// DamagedError says that the file is not what Layout makes.
type DamagedError struct{ Reason string }

func (e *DamagedError) Error() string {
	return "takeover file is damaged: " + e.Reason + "; copy or build it again"
}

func damaged(format string, args ...any) error {
	return &DamagedError{Reason: fmt.Sprintf(format, args...)}
}

// File is an opened takeover file. Payload is nil where none is embedded.
type File struct {
	Program  Part // Name is "program"
	Kernel   Part
	Initrd   Part
	Manifest Part
	Cmdline  Part
	Payload  *Part
	SHA256   [sha256.Size]byte // what the trailer promises

	r    io.ReaderAt
	plan *plan
	size int64
}

// Open reads trailer and archive of a file of size bytes, and checks every
// byte that is no part. The parts themselves are checked by Verify. Errors
// other than ErrNoArchive and *DamagedError come from r.
func Open(r io.ReaderAt, size int64) (*File, error) {
	f := &File{r: r, size: size}
	start, err := f.readTrailer()
	if err != nil {
		return nil, err
	}
	n, err := f.walk(start)
	if err != nil {
		return nil, err
	}
	if n.program, err = f.programSize(start); err != nil {
		return nil, err
	}
	if f.plan, err = place(n); err != nil {
		return nil, damaged("%v", err)
	}
	f.Program = Part{Name: "program", Size: n.program}
	f.Kernel, f.Initrd, f.Manifest, f.Cmdline = f.plan.parts[0], f.plan.parts[1], f.plan.parts[2], f.plan.parts[3]
	if len(f.plan.parts) == 5 {
		f.Payload = &f.plan.parts[4]
	}
	return f, f.compare()
}

func (f *File) readTrailer() (start int64, err error) {
	if f.size < trailerSize {
		return 0, ErrNoArchive
	}
	trailer, err := f.read(f.size-trailerSize, trailerSize)
	if err != nil {
		return 0, err
	}
	if string(trailer[:len(magic)]) != magic {
		return 0, ErrNoArchive
	}
	offset, length := binary.LittleEndian.Uint64(trailer[16:]), binary.LittleEndian.Uint64(trailer[24:])
	copy(f.SHA256[:], trailer[32:])
	whole := uint64(f.size - trailerSize)
	if offset > whole || length != whole-offset || offset%pageSize != 0 || offset == 0 || offset > maxProgram+pageSize {
		return 0, damaged("the trailer places %d bytes of archive at byte %d of %d", length, offset, f.size)
	}
	return int64(offset), nil
}

// walk reads the sizes of the parts from the archive's headers.
func (f *File) walk(start int64) (sizes, error) {
	n := sizes{payload: -1}
	at := start
	for _, want := range []struct {
		name string
		size *int64
		most int64
	}{
		{KernelName, &n.kernel, maxSmall}, {InitrdName, &n.initrd, maxSmall}, {ManifestName, &n.manifest, maxText},
		{CmdlineName, &n.cmdline, maxText}, {PayloadName, &n.payload, maxPayload},
	} {
		h, err := cpio.NewReader(io.NewSectionReader(f.r, at, f.size-trailerSize-at)).Next()
		if errors.Is(err, io.EOF) && want.name == PayloadName {
			return n, nil
		}
		if err != nil {
			return n, damaged("archive at byte %d: %v", at, err)
		}
		head := int64(110 + len(h.Name) + 1)
		head += pad(head, 4)
		if h.Name != want.name || h.Size < 1 || h.Size > want.most || h.Size > f.size-trailerSize-at-head {
			return n, damaged("archive at byte %d: %q with %d bytes; expected %s", at, h.Name, h.Size, want.name)
		}
		*want.size = h.Size
		at += head + h.Size + pad(h.Size, 4)
	}
	return n, nil
}

// programSize finds where the program ends: zeros fill the last page before
// the archive. A program that itself ends in zeros is seen shorter, which
// changes nothing: the bytes are the same.
func (f *File) programSize(start int64) (int64, error) {
	last, err := f.read(start-pageSize, pageSize)
	if err != nil {
		return 0, err
	}
	n := int64(len(bytes.TrimRight(last, "\x00")))
	if n == 0 {
		return 0, damaged("a page of zeros before the archive")
	}
	return start - pageSize + n, nil
}

// compare checks the bytes between the parts.
func (f *File) compare() error {
	at := f.plan.start
	for i, p := range f.plan.parts {
		if err := f.equal(at, f.plan.heads[i]); err != nil {
			return err
		}
		at = p.Offset + p.Size
	}
	if err := f.equal(at, f.plan.end); err != nil {
		return err
	}
	if at += int64(len(f.plan.end)); at != f.size-trailerSize {
		return damaged("%d bytes between archive and trailer", f.size-trailerSize-at)
	}
	return nil
}

func (f *File) equal(at int64, want []byte) error {
	if int64(len(want)) > f.size-trailerSize-at {
		return damaged("the archive is cut at byte %d", f.size-trailerSize)
	}
	got, err := f.read(at, int64(len(want)))
	if err == nil && !bytes.Equal(got, want) {
		err = damaged("archive header at byte %d", at)
	}
	return err
}

func (f *File) read(at, size int64) ([]byte, error) {
	data := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f.r, at, size), data); err != nil {
		return nil, fmt.Errorf("read takeover file at byte %d: %w", at, err)
	}
	return data, nil
}

// Section returns the bytes of a part.
func (f *File) Section(p Part) *io.SectionReader { return io.NewSectionReader(f.r, p.Offset, p.Size) }

// Bytes reads a part into memory.
func (f *File) Bytes(p Part) ([]byte, error) { return f.read(p.Offset, p.Size) }

// Line returns the command line.
func (f *File) Line() (string, error) {
	data, err := f.Bytes(f.Cmdline)
	if err != nil {
		return "", err
	}
	line, ok := bytes.CutSuffix(data, []byte("\n"))
	if !ok || bytes.ContainsAny(line, "\n\r\x00") {
		return "", damaged("%s is not one line", CmdlineName)
	}
	return string(line), nil
}

// Verify compares everything before the payload's content with the trailer's
// hash. The payload is for the manifest to judge.
func (f *File) Verify(ctx context.Context) error {
	end := f.size - trailerSize
	if f.Payload != nil {
		end = f.Payload.Offset
	}
	hash := sha256.New()
	for at := int64(0); at < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		data, err := f.read(at, min(1<<20, end-at))
		if err != nil {
			return err
		}
		hash.Write(data)
		at += int64(len(data))
	}
	if got := hash.Sum(nil); !slices.Equal(got, f.SHA256[:]) {
		return damaged("sha256 of its first %d bytes is %x; the trailer says %x", end, got, f.SHA256)
	}
	return nil
}
