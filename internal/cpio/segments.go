package cpio

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// signatures are the magics that the kernel looks for at the start of each
// part of an initrd (lib/decompress.c).
var signatures = []struct{ name, magic string }{
	{"gzip", "\x1f\x8b"},
	{"gzip", "\x1f\x9e"},
	{"bzip2", "BZh"},
	{"lzma", "\x5d\x00\x00"},
	{"xz", "\xfd7zXZ\x00"},
	{"lzo", "\x89LZO"},
	{"lz4", "\x02\x21\x4c\x18"},
	{"zstd", zstdMagic},
}

// compression names the format whose magic begins head, or returns "".
func compression(head []byte) string {
	for _, s := range signatures {
		if bytes.HasPrefix(head, []byte(s.magic)) {
			return s.name
		}
	}
	return ""
}

// maxWindow is the largest window that the kernel takes in an initrd
// (ZSTD_WINDOWSIZE_MAX in lib/decompress_unzstd.c, LZMA2 dictionaries alike).
const maxWindow = 128 << 20

// Segment is one part of an initrd file: a plain archive, or a compressed
// stream that holds one or more. Offset and Size are those of its bytes in the
// file; Size is known once the next segment was asked for. Compression is
// "", "gzip", "xz" or "zstd".
type Segment struct {
	Offset      int64
	Size        int64
	Compression string
}

// Initrd takes an initrd file apart as the kernel does (init/initramfs.c):
// any number of archives one after another, each plain or compressed, with
// zeros between them. A plain archive begins at a multiple of 4.
type Initrd struct {
	in      *input
	segment *Segment
	plain   io.Reader // what the archives of the segment are read from
	offset  int64     // in plain, of what was read between archives
	archive *Reader
	close   func()
	err     error
}

// NewInitrd returns an Initrd on r, which is read once, from front to back.
func NewInitrd(r io.Reader) *Initrd {
	return &Initrd{in: &input{r: bufio.NewReaderSize(r, 64<<10)}, close: func() {}}
}

// Next goes on to the next archive, after reading the rest of the current one.
// The segment is that of the archive; two archives of one compressed stream
// have the same. At the end of the file it returns io.EOF. Formats that the
// kernel knows and this package does not are an error that names them.
func (i *Initrd) Next() (*Segment, *Reader, error) {
	if i.err != nil {
		return nil, nil, i.err
	}
	if err := i.next(); err != nil {
		i.close()
		i.err = err
		if !errors.Is(err, io.EOF) {
			i.err = fmt.Errorf("read initrd: %w", err)
		}
		return nil, nil, i.err
	}
	return i.segment, i.archive, nil
}

func (i *Initrd) next() error {
	if i.archive != nil {
		if err := drain(i.archive); err != nil {
			return err
		}
		i.offset += i.archive.offset
		i.archive = nil
	}
	if i.segment != nil && i.segment.Compression != "" {
		more, err := i.inside()
		if err != nil || more {
			return err
		}
	}
	if i.segment != nil {
		i.segment.Size = i.in.offset - i.segment.Offset
	}
	return i.begin()
}

// inside goes on to the next archive within a compressed stream.
func (i *Initrd) inside() (more bool, err error) {
	first, err := i.skipZeros(i.plain)
	if errors.Is(err, io.EOF) {
		i.close()
		i.close = func() {}
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("%s stream at byte %d: %w", i.segment.Compression, i.segment.Offset, err)
	}
	if first != magic[0] || i.offset%4 != 0 {
		return false, fmt.Errorf("%s stream at byte %d: junk after an archive", i.segment.Compression, i.segment.Offset)
	}
	i.archive = NewReader(io.MultiReader(bytes.NewReader([]byte{first}), i.plain))
	return true, nil
}

func (i *Initrd) skipZeros(r io.Reader) (byte, error) {
	var one [1]byte
	for {
		if _, err := io.ReadFull(r, one[:]); err != nil || one[0] != 0 {
			return one[0], err
		}
		i.offset++
	}
}

// begin starts the next segment of the file.
func (i *Initrd) begin() error {
	for {
		c, err := i.in.ReadByte()
		if err != nil {
			return err
		}
		if c != 0 {
			i.in.unread()
			break
		}
	}
	head, err := i.in.r.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	i.segment = &Segment{Offset: i.in.offset, Compression: compression(head)}
	i.offset = 0
	if i.segment.Compression == "" {
		if i.segment.Offset%4 != 0 && len(head) > 0 && head[0] == magic[0] {
			return fmt.Errorf("the archive at byte %d does not begin at a multiple of 4, which the kernel wants", i.segment.Offset)
		}
		i.plain = i.in
		i.archive = NewReader(i.in)
		return nil
	}
	if err := i.open(); err != nil {
		return fmt.Errorf("%s stream at byte %d: %w", i.segment.Compression, i.segment.Offset, err)
	}
	more, err := i.inside()
	if err == nil && !more {
		err = fmt.Errorf("%s stream at byte %d: holds no archive", i.segment.Compression, i.segment.Offset)
	}
	return err
}

// open puts a decompressor on the input that takes no byte too many.
func (i *Initrd) open() error {
	switch i.segment.Compression {
	case "zstd":
		r, err := zstd.NewReader(&zstdFrame{in: i.in}, zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return err
		}
		i.plain, i.close = bufio.NewReader(r), r.Close
	case "gzip":
		r, err := gzip.NewReader(i.in)
		if err != nil {
			return err
		}
		r.Multistream(false)
		i.plain = bufio.NewReader(r)
	case "xz":
		r, err := newXZStream(i.in)
		if err != nil {
			return err
		}
		i.plain = bufio.NewReader(r)
	default:
		return errors.New("this format is not read here; known are gzip, xz and zstd")
	}
	return nil
}

func drain(r *Reader) error {
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// input counts what is taken from a file and gives single bytes, so that no
// decompressor puts a buffer of its own in front of it.
type input struct {
	r      *bufio.Reader
	offset int64
	err    error // of the last Read
}

func (i *input) Read(p []byte) (int, error) {
	n, err := i.r.Read(p)
	i.offset += int64(n)
	i.err = err
	return n, err
}

func (i *input) ReadByte() (byte, error) {
	c, err := i.r.ReadByte()
	if err == nil {
		i.offset++
	}
	return c, err
}

// unread gives back the byte of the last ReadByte.
func (i *input) unread() {
	if err := i.r.UnreadByte(); err != nil {
		panic("BUG: unread without a read: " + err.Error())
	}
	i.offset--
}
