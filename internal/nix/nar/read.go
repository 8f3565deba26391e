package nar

import (
	"bufio"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strings"
)

// Reader walks through a NAR like archive/tar: Next for each node in the
// archive's order (a folder before what is in it), Read for a file's bytes.
type Reader struct {
	r     *bufio.Reader
	begun bool
	err   error

	left int64 // bytes of the current file not read yet
	pad  int   // zeros after them
	open bool  // within a regular file's contents

	stack []folder
	path  []byte // of the innermost open folder, without a slash at the end
}

// folder is an open folder: the last name seen in it and where its path ends.
type folder struct {
	last    string
	pathLen int
}

// NewReader returns a reader of one archive. It may read ahead of the
// archive's end, which must be the end of r.
func NewReader(r io.Reader) *Reader {
	return &Reader{r: bufio.NewReaderSize(r, 64<<10)}
}

// Next skips what is left of the current file and returns the next node, or
// io.EOF when the archive ended properly and nothing follows it.
func (r *Reader) Next() (*Header, error) {
	if r.err != nil {
		return nil, r.err
	}
	h, err := r.next()
	if err != nil {
		r.err = err
	}
	return h, err
}

func (r *Reader) next() (*Header, error) {
	if !r.begun {
		r.begun = true
		if err := r.expect(magic); err != nil {
			return nil, err
		}
		return r.node("")
	}
	if r.open {
		if err := r.endFile(); err != nil {
			return nil, err
		}
	}
	for len(r.stack) > 0 {
		word, err := r.word(16)
		if err != nil {
			return nil, err
		}
		switch word {
		case "entry":
			return r.entry()
		case ")":
			r.stack = r.stack[:len(r.stack)-1]
			if err := r.closeEntry(); err != nil {
				return nil, err
			}
		default:
			return nil, formatError("%q in a folder, want an entry or its end", word)
		}
	}
	if _, err := r.r.ReadByte(); err == nil {
		return nil, formatError("bytes after its end")
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return nil, io.EOF
}

// closeEntry reads the bracket that closes the entry around a finished node.
func (r *Reader) closeEntry() error {
	if len(r.stack) == 0 {
		r.path = r.path[:0]
		return nil
	}
	r.path = r.path[:r.stack[len(r.stack)-1].pathLen]
	return r.expect(")")
}

func (r *Reader) entry() (*Header, error) {
	if err := r.expect("(", "name"); err != nil {
		return nil, err
	}
	name, err := r.word(maxName)
	if err != nil {
		return nil, err
	}
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return nil, formatError("%q is not a file name", name)
	}
	top := &r.stack[len(r.stack)-1]
	if name <= top.last {
		return nil, formatError("%q after %q: names must be sorted and differ", name, top.last)
	}
	top.last = name
	if len(r.path) > 0 {
		r.path = append(r.path, '/')
	}
	r.path = append(r.path, name...)
	if len(r.path) > maxPath {
		return nil, formatError("a path is longer than %d bytes", maxPath)
	}
	if err := r.expect("node"); err != nil {
		return nil, err
	}
	return r.node(string(r.path))
}

func (r *Reader) node(path string) (*Header, error) {
	if err := r.expect("(", "type"); err != nil {
		return nil, err
	}
	kind, err := r.word(16)
	if err != nil {
		return nil, err
	}
	switch kind {
	case "regular":
		return r.regular(path)
	case "directory":
		if len(r.stack) == maxDepth {
			return nil, formatError("folders within folders deeper than %d", maxDepth)
		}
		r.stack = append(r.stack, folder{pathLen: len(r.path)})
		return &Header{Path: path, Kind: Directory}, nil
	case "symlink":
		if err := r.expect("target"); err != nil {
			return nil, err
		}
		target, err := r.word(maxTarget)
		if err != nil {
			return nil, err
		}
		if target == "" || strings.Contains(target, "\x00") {
			return nil, formatError("%q is not a symlink's target", target)
		}
		if err := r.expect(")"); err != nil {
			return nil, err
		}
		return &Header{Path: path, Kind: Symlink, Target: target}, r.closeEntry()
	}
	return nil, formatError("unknown type %q", kind)
}

func (r *Reader) regular(path string) (*Header, error) {
	h := &Header{Path: path, Kind: Regular}
	word, err := r.word(16)
	if err != nil {
		return nil, err
	}
	if word == "executable" {
		h.Executable = true
		if err := r.expect(""); err != nil {
			return nil, err
		}
		if word, err = r.word(16); err != nil {
			return nil, err
		}
	}
	if word != "contents" {
		return nil, formatError("%q in a file, want its contents", word)
	}
	size, err := r.number()
	if err != nil {
		return nil, err
	}
	if size > math.MaxInt64-8 {
		return nil, formatError("a file of %d bytes", size)
	}
	h.Size = int64(size)
	r.open, r.left, r.pad = true, h.Size, padding(h.Size)
	return h, nil
}

// Read reads from the current file, up to its end.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.r.Read(p)
	r.left -= int64(n)
	if err != nil {
		err = truncated(err)
		r.err = err
	}
	return n, err
}

// endFile skips the rest of a file and checks what closes it.
func (r *Reader) endFile() error {
	for r.left > 0 {
		n, err := r.r.Discard(int(min(r.left, 1<<30)))
		r.left -= int64(n)
		if err != nil {
			return truncated(err)
		}
	}
	r.open = false
	if err := r.zeros(r.pad); err != nil {
		return err
	}
	if err := r.expect(")"); err != nil {
		return err
	}
	return r.closeEntry()
}

func (r *Reader) number() (uint64, error) {
	var b [8]byte
	if _, err := io.ReadFull(r.r, b[:]); err != nil {
		return 0, truncated(err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

func (r *Reader) zeros(n int) error {
	for range n {
		b, err := r.r.ReadByte()
		if err != nil {
			return truncated(err)
		}
		if b != 0 {
			return formatError("padding is not zero")
		}
	}
	return nil
}

// word reads one length-prefixed text of at most limit bytes.
func (r *Reader) word(limit int) (string, error) {
	size, err := r.number()
	if err != nil {
		return "", err
	}
	if size > uint64(limit) {
		return "", formatError("a word of %d bytes where %d are allowed", size, limit)
	}
	text := make([]byte, size)
	if _, err := io.ReadFull(r.r, text); err != nil {
		return "", truncated(err)
	}
	return string(text), r.zeros(padding(int64(size)))
}

func (r *Reader) expect(words ...string) error {
	for _, want := range words {
		got, err := r.word(max(16, len(want)))
		if err != nil {
			return err
		}
		if got != want {
			return formatError("%q, want %q", got, want)
		}
	}
	return nil
}

func truncated(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return formatError("it ends too early")
	}
	return err
}
