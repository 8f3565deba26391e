package cpio

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Writer writes one archive. Methods must not be called from two goroutines
// at once. After an error the archive is useless and every later call returns
// the same error.
type Writer struct {
	w       io.Writer
	written int64
	ino     uint32
	seen    map[string]bool // name -> is a folder
	err     error
	closed  bool
}

// NewWriter returns a Writer on w. w is written in many small pieces: hand
// over something buffered.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, seen: make(map[string]bool)}
}

// Dir adds a folder with the permission bits perm. A folder that was already
// made for an entry below it, or by an earlier call, is left as it is: to give
// a parent other bits than 0755, name it before its contents.
func (w *Writer) Dir(name string, perm uint32) error {
	if w.err != nil {
		return w.err
	}
	if err := checkName(name); err != nil {
		return w.fail("folder", name, err)
	}
	if isDir, ok := w.seen[name]; ok {
		if isDir {
			return nil
		}
		return w.fail("folder", name, errors.New("was already written as something else"))
	}
	return w.entry("folder", &Header{Name: name, Mode: TypeDir | perm&0o7777})
}

// File adds an ordinary file whose body is the next size bytes of r, which
// must then end. size may be at most 4 GiB - 1, the format's limit.
func (w *Writer) File(name string, perm uint32, size int64, r io.Reader) error {
	if size < 0 || size > maxSize {
		return w.fail("file", name, fmt.Errorf("size %d; cpio holds at most %d bytes a file", size, int64(maxSize)))
	}
	if err := w.entry("file", &Header{Name: name, Mode: TypeFile | perm&0o7777, Size: size}); err != nil {
		return err
	}
	n, err := io.Copy(&counter{w}, io.LimitReader(r, size))
	if err != nil {
		return w.fail("file", name, err)
	}
	if n != size {
		return w.fail("file", name, fmt.Errorf("ended after %d of %d bytes: %w", n, size, io.ErrUnexpectedEOF))
	}
	var more [1]byte
	if _, err := io.ReadFull(r, more[:]); err == nil {
		return w.fail("file", name, fmt.Errorf("is longer than the announced %d bytes", size))
	} else if !errors.Is(err, io.EOF) {
		return w.fail("file", name, err)
	}
	return w.pad("file", name)
}

// Symlink adds a symbolic link. The target is kept as it is: it may be
// absolute or leave the archive.
func (w *Writer) Symlink(name, target string) error {
	if target == "" || len(target) >= maxName || strings.IndexByte(target, 0) >= 0 {
		return w.fail("symlink", name, fmt.Errorf("target %q is not a path", target))
	}
	return w.body("symlink", &Header{Name: name, Mode: TypeSymlink | 0o777}, target)
}

// Device adds a device node. mode holds the type, TypeChar or TypeBlock, and
// the permission bits.
func (w *Writer) Device(name string, mode, major, minor uint32) error {
	if t := mode & TypeMask; t != TypeChar && t != TypeBlock {
		return w.fail("device", name, fmt.Errorf("mode %#o is neither a character nor a block device", mode))
	}
	return w.entry("device", &Header{Name: name, Mode: mode & (TypeMask | 0o7777), Major: major, Minor: minor})
}

// Close writes the trailer and pads the archive to a multiple of 4 bytes, so
// that a further archive may follow. It does not close the underlying writer.
func (w *Writer) Close() error {
	if w.err != nil || w.closed {
		return w.err
	}
	w.closed = true
	w.ino = 0
	if err := w.header(&Header{Name: trailer}, 0); err != nil {
		return w.fail("trailer", trailer, err)
	}
	return nil
}

func (w *Writer) body(kind string, h *Header, content string) error {
	h.Size = int64(len(content))
	if err := w.entry(kind, h); err != nil {
		return err
	}
	if _, err := io.WriteString(&counter{w}, content); err != nil {
		return w.fail(kind, h.Name, err)
	}
	return w.pad(kind, h.Name)
}

// entry writes the header of a new entry and, before it, the folders that it
// needs: the kernel makes no missing parents, it drops the entry.
func (w *Writer) entry(kind string, h *Header) error {
	if w.err != nil {
		return w.err
	}
	if w.closed {
		return w.fail(kind, h.Name, errors.New("the archive is closed"))
	}
	if err := checkName(h.Name); err != nil {
		return w.fail(kind, h.Name, err)
	}
	if _, ok := w.seen[h.Name]; ok {
		return w.fail(kind, h.Name, errors.New("was already written"))
	}
	for i := range len(h.Name) {
		if h.Name[i] != '/' {
			continue
		}
		parent := h.Name[:i]
		if isDir, ok := w.seen[parent]; ok {
			if !isDir {
				return w.fail(kind, h.Name, fmt.Errorf("its parent %q is not a folder", parent))
			}
			continue
		}
		if err := w.add(&Header{Name: parent, Mode: TypeDir | 0o755}); err != nil {
			return w.fail("folder", parent, err)
		}
	}
	if err := w.add(h); err != nil {
		return w.fail(kind, h.Name, err)
	}
	return nil
}

func (w *Writer) add(h *Header) error {
	w.seen[h.Name] = h.IsDir()
	w.ino++
	nlink := uint32(1)
	if h.IsDir() {
		nlink = 2
	}
	return w.header(h, nlink)
}

func (w *Writer) header(h *Header, nlink uint32) error {
	c := &counter{w}
	if h.Name == trailer {
		nlink = 1
	}
	// magic, ino, mode, uid, gid, nlink, mtime, filesize, maj, min, rmaj, rmin, namesize, chksum
	_, err := fmt.Fprintf(c, "%s%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		magic, w.ino, h.Mode, 0, 0, nlink, 0, h.Size, 0, 0, h.Major, h.Minor, len(h.Name)+1, 0, h.Name)
	if err != nil {
		return err
	}
	return w.zeros()
}

func (w *Writer) zeros() error {
	_, err := (&counter{w}).Write(make([]byte, pad4(w.written)))
	return err
}

func (w *Writer) pad(kind, name string) error {
	if err := w.zeros(); err != nil {
		return w.fail(kind, name, err)
	}
	return nil
}

func (w *Writer) fail(kind, name string, err error) error {
	if w.err == nil {
		w.err = fmt.Errorf("write cpio %s %q: %w", kind, name, err)
	}
	return w.err
}

// counter passes bytes on and counts them: padding depends on the offset.
type counter struct{ w *Writer }

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.w.Write(p)
	c.w.written += int64(n)
	return n, err
}
