package cpio

import (
	"encoding/binary"
	"errors"
	"io"
)

const zstdMagic = "\x28\xb5\x2f\xfd"

// zstdFrame passes exactly one zstd frame on and then ends: the kernel too
// looks for a new magic after each frame. It walks the frame's outline as RFC
// 8878 section 3.1.1 has it and leaves the contents to the decoder.
type zstdFrame struct {
	in      io.Reader
	pending []byte // of the outline, read but not yet passed on
	body    int64  // bytes to pass on before the next piece of outline
	started bool
	last    bool // the last block is underway
	sum     int64
	done    bool
}

var errZstdHeader = errors.New("reserved bits in the zstd frame header")

func (f *zstdFrame) Read(p []byte) (int, error) {
	for len(f.pending) == 0 && f.body == 0 {
		if f.done {
			return 0, io.EOF
		}
		if err := f.outline(); err != nil {
			return 0, err
		}
	}
	if len(f.pending) > 0 {
		n := copy(p, f.pending)
		f.pending = f.pending[n:]
		return n, nil
	}
	n, err := f.in.Read(p[:min(int64(len(p)), f.body)])
	f.body -= int64(n)
	if errors.Is(err, io.EOF) && f.body > 0 {
		err = io.ErrUnexpectedEOF
	} else if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// outline reads the next header: of the frame, then of each block.
func (f *zstdFrame) outline() error {
	if !f.started {
		f.started = true
		return f.frameHeader()
	}
	if f.last {
		f.body, f.done = f.sum, true
		return nil
	}
	if err := f.take(3); err != nil {
		return err
	}
	h := uint32(f.pending[0]) | uint32(f.pending[1])<<8 | uint32(f.pending[2])<<16
	f.last = h&1 != 0
	f.body = int64(h >> 3)
	switch h >> 1 & 3 {
	case 1: // RLE: one byte, repeated
		f.body = 1
	case 3:
		return errors.New("reserved zstd block type")
	}
	return nil
}

func (f *zstdFrame) frameHeader() error {
	if err := f.take(5); err != nil {
		return err
	}
	if binary.LittleEndian.Uint32(f.pending) != binary.LittleEndian.Uint32([]byte(zstdMagic)) {
		return errors.New("not a zstd frame")
	}
	d := f.pending[4]
	if d&0x08 != 0 {
		return errZstdHeader
	}
	if d&0x04 != 0 {
		f.sum = 4
	}
	rest := []int{0, 1, 2, 4}[d&3] // dictionary id
	single := d&0x20 != 0
	if !single {
		rest++ // window descriptor
	}
	switch d >> 6 {
	case 0:
		if single {
			rest++
		}
	case 1:
		rest += 2
	case 2:
		rest += 4
	case 3:
		rest += 8
	}
	return f.take(rest)
}

// take appends n bytes of the input to what is passed on.
func (f *zstdFrame) take(n int) error {
	start := len(f.pending)
	f.pending = append(f.pending, make([]byte, n)...)
	_, err := io.ReadFull(f.in, f.pending[start:])
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
