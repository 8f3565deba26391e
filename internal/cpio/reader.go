package cpio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ErrCompressed is in the chain of the error of [Reader.Next] when the stream
// begins with the magic of a compressed format. [Segments] takes such a
// stream apart.
var ErrCompressed = errors.New("stream is compressed")

// FormatError says where an archive breaks the format.
type FormatError struct {
	Offset int64  // of the entry's header in the stream
	Name   string // of the entry, "" if it was not read yet
	Reason string
}

func (e *FormatError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("read cpio: entry at byte %d: %s", e.Offset, e.Reason)
	}
	return fmt.Sprintf("read cpio: entry %q at byte %d: %s", e.Name, e.Offset, e.Reason)
}

// Reader reads one archive. It takes no byte beyond the trailer and its
// padding from the underlying reader.
type Reader struct {
	r      io.Reader
	offset int64
	left   int64 // of the current body
	pad    int64 // after the current body
	start  int64 // of the current header
	err    error
}

// NewReader returns a Reader on r, which is read in small pieces.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next skips what is left of the current body and returns the next entry. It
// returns io.EOF after the trailer, and io.ErrUnexpectedEOF in the chain of
// its error where the stream ends before it.
func (r *Reader) Next() (*Header, error) {
	if r.err != nil {
		return nil, r.err
	}
	h, err := r.next()
	if err != nil {
		r.err = err
		return nil, err
	}
	return h, nil
}

// Read reads the body of the current entry; it returns io.EOF at its end.
func (r *Reader) Read(p []byte) (int, error) {
	if r.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.r.Read(p)
	r.offset += int64(n)
	r.left -= int64(n)
	if errors.Is(err, io.EOF) && r.left > 0 {
		err = fmt.Errorf("read cpio: body of the entry at byte %d: %w", r.start, io.ErrUnexpectedEOF)
	} else if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (r *Reader) next() (*Header, error) {
	if err := r.skip(r.left + r.pad); err != nil {
		return nil, err
	}
	r.left, r.pad, r.start = 0, 0, r.offset
	var raw [headerSize]byte
	n, err := r.full(raw[:])
	if n >= len(magic) {
		if err := r.checkMagic(raw[:n]); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	field, err := parseFields(raw[:])
	if err != nil {
		return nil, r.bad("", "%s", err)
	}
	nameSize := field[11]
	if nameSize < 2 || nameSize > maxName {
		return nil, r.bad("", "name of %d bytes with its NUL; allowed are 2 to %d", nameSize, maxName)
	}
	name, err := r.name(int64(nameSize))
	if err != nil {
		return nil, err
	}
	h := &Header{Name: name, Ino: field[0], Mode: field[1], UID: field[2], GID: field[3],
		MTime: field[5], Size: int64(field[6]), Major: field[9], Minor: field[10]}
	if name == trailer {
		if h.Size != 0 {
			return nil, r.bad(name, "the trailer has a body")
		}
		return nil, io.EOF
	}
	return h, r.accept(h)
}

func (r *Reader) checkMagic(raw []byte) error {
	switch string(raw[:len(magic)]) {
	case magic, magicCRC:
		return nil
	case "070707":
		return r.bad("", "old portable (odc) cpio; only newc is read; repack with cpio -H newc")
	default:
		if name := compression(raw); name != "" && r.start == 0 {
			return fmt.Errorf("read cpio: %w with %s; decompress it first", ErrCompressed, name)
		}
		return r.bad("", "magic %q is not that of a newc archive", raw[:len(magic)])
	}
}

// parseFields reads the 13 fields of eight hex digits after the magic.
func parseFields(raw []byte) ([13]uint32, error) {
	var field [13]uint32
	for i := range field {
		text := string(raw[6+8*i : 14+8*i])
		v, err := strconv.ParseUint(text, 16, 32)
		if err != nil || strings.ContainsAny(text, "+-_") {
			return field, fmt.Errorf("header field %d is %q, not eight hex digits", i+1, text)
		}
		field[i] = uint32(v)
	}
	return field, nil
}

func (r *Reader) name(size int64) (string, error) {
	raw := make([]byte, size+pad4(headerSize+size))
	if _, err := r.full(raw); err != nil {
		return "", err
	}
	name := raw[:size]
	if bytes.IndexByte(name, 0) != len(name)-1 {
		return "", r.bad(string(bytes.TrimRight(name, "\x00")), "the name does not end with its only NUL byte")
	}
	return string(name[:size-1]), nil
}

// accept checks and cleans the name, and sets up the reading of the body.
func (r *Reader) accept(h *Header) error {
	raw := h.Name
	if raw != "." {
		h.Name = strings.TrimPrefix(raw, "./")
		if err := checkName(h.Name); err != nil {
			return r.bad(raw, "%s", err)
		}
	}
	switch h.Mode & TypeMask {
	case TypeFile:
	case TypeSymlink:
		if h.Size == 0 || h.Size >= maxName {
			return r.bad(raw, "symlink target of %d bytes; allowed are 1 to %d", h.Size, maxName-1)
		}
	case TypeDir, TypeChar, TypeBlock, TypeFIFO, TypeSocket:
		if h.Size != 0 {
			return r.bad(raw, "has a body of %d bytes, but mode %#o is no file", h.Size, h.Mode)
		}
	default:
		return r.bad(raw, "mode %#o has no known file type", h.Mode)
	}
	r.left, r.pad = h.Size, pad4(h.Size)
	return nil
}

func (r *Reader) full(p []byte) (int, error) {
	n, err := io.ReadFull(r.r, p)
	r.offset += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("read cpio: byte %d: no trailer: %w", r.offset, io.ErrUnexpectedEOF)
	} else if err != nil {
		err = fmt.Errorf("read cpio: byte %d: %w", r.offset, err)
	}
	return n, err
}

func (r *Reader) skip(n int64) error {
	if n == 0 {
		return nil
	}
	done, err := io.CopyN(io.Discard, r.r, n)
	r.offset += done
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("read cpio: body of the entry at byte %d: %w", r.start, err)
	}
	return nil
}

func (r *Reader) bad(name, format string, args ...any) error {
	return &FormatError{Offset: r.start, Name: name, Reason: fmt.Sprintf(format, args...)}
}
