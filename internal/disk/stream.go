package disk

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

// File is content with a name and a size that is known before it is read.
// Open is called once for each image written; it must give Size bytes.
type File struct {
	Name string
	Size int64
	Open func() (io.ReadCloser, error)
}

// Bytes is a File whose content is in memory.
func Bytes(name string, data []byte) File {
	return File{Name: name, Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}}
}

// Segment places content in an image. Generated says that the bytes are made
// by the layout itself (tables, directories) and are not a file of the caller.
type Segment struct {
	File
	Offset    int64
	Generated bool
}

// Image is Size bytes: segments in the order of their offsets, zeros between.
type Image struct {
	Size     int64
	Segments []Segment
}

// Validate reports segments that overlap, are out of order or lie outside.
func (m Image) Validate() error {
	var end int64
	for _, s := range m.Segments {
		if s.Size < 0 || s.Offset < end || s.Size > m.Size-s.Offset {
			return fmt.Errorf("segment %q: %d bytes at %d do not fit behind %d in %d bytes", s.Name, s.Size, s.Offset, end, m.Size)
		}
		end = s.Offset + s.Size
	}
	return nil
}

// Write streams the image to w in one pass, without seeking. progress, if not
// nil, is told the number of bytes written so far, about once a MiB.
func (m Image) Write(ctx context.Context, w io.Writer, progress func(done int64)) error {
	if err := m.Validate(); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	s := &stream{ctx: ctx, w: w, progress: progress, buf: make([]byte, 1<<20), zeros: make([]byte, 1<<20)}
	for _, seg := range m.Segments {
		if err := s.zeroTo(seg.Offset); err != nil {
			return err
		}
		if err := s.segment(seg); err != nil {
			return err
		}
	}
	return s.zeroTo(m.Size)
}

type stream struct {
	ctx        context.Context //nolint:containedctx // lives only as long as one Write
	w          io.Writer
	progress   func(int64)
	done       int64
	buf, zeros []byte
}

func (s *stream) put(b []byte) error {
	if err := s.ctx.Err(); err != nil {
		return fmt.Errorf("write image at byte %d: %w", s.done, err)
	}
	n, err := s.w.Write(b)
	s.done += int64(n)
	if err != nil {
		return fmt.Errorf("write image at byte %d: %w", s.done, err)
	}
	if s.progress != nil {
		s.progress(s.done)
	}
	return nil
}

func (s *stream) zeroTo(offset int64) error {
	for s.done < offset {
		if err := s.put(s.zeros[:min(int64(len(s.zeros)), offset-s.done)]); err != nil {
			return err
		}
	}
	return nil
}

func (s *stream) segment(seg Segment) (err error) {
	r, err := seg.Open()
	if err != nil {
		return fmt.Errorf("write image: %q: %w", seg.Name, err)
	}
	defer func() {
		if cerr := r.Close(); cerr != nil {
			err = errors.Join(err, fmt.Errorf("close %q: %w", seg.Name, cerr))
		}
	}()
	for left := seg.Size; left > 0; {
		b := s.buf[:min(int64(len(s.buf)), left)]
		if n, err := io.ReadFull(r, b); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("write image: read %q: got %d of %d bytes: %w", seg.Name, seg.Size-left+int64(n), seg.Size, err)
		}
		if err := s.put(b); err != nil {
			return err
		}
		left -= int64(len(b))
	}
	if n, err := io.ReadFull(r, s.buf[:1]); n != 0 {
		return fmt.Errorf("write image: %q is longer than the %d bytes it was planned with; it changed while the image was written", seg.Name, seg.Size)
	} else if !errors.Is(err, io.EOF) {
		return fmt.Errorf("write image: read %q: %w", seg.Name, err)
	}
	return nil
}
