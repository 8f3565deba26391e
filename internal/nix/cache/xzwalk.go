package cache

import (
	"errors"
	"fmt"
	"io"

	"xnodeos.org/internal/mirror"
	"xnodeos.org/internal/xzhead"
)

// xzWalker passes an xz stream on and looks at the head of each of its blocks
// (xz-file-format.txt, version 1.2.1, sections 2 and 3): every one may ask for a
// dictionary of its own, and the decoder would allocate what it asks for.
type xzWalker struct {
	r     io.Reader
	limit int64 // bytes of a dictionary

	next  func(*xzWalker, []byte) error // takes the piece of outline that need counts
	piece []byte
	need  int   // bytes of the piece that are still to come
	skip  int64 // bytes before it that do not matter
	check int64 // bytes behind each block
	size  int64 // of the block's compressed data so far
	err   error
}

var errXZ = errors.New("damaged xz stream")

func newXZWalker(r io.Reader, limit int64) *xzWalker {
	return &xzWalker{r: r, limit: limit, next: (*xzWalker).streamHead, need: 12}
}

// Read implements io.Reader. A block that asks for too much ends it before the
// decoder sees the block's head whole.
func (w *xzWalker) Read(p []byte) (int, error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err := w.r.Read(p)
	if walk := w.walk(p[:n]); walk != nil {
		w.err = walk
		return 0, walk
	}
	return n, err
}

func (w *xzWalker) walk(p []byte) error {
	for len(p) > 0 && w.next != nil {
		if w.skip > 0 {
			jump := min(w.skip, int64(len(p)))
			w.skip -= jump
			p = p[jump:]
			continue
		}
		take := min(w.need, len(p))
		w.piece = append(w.piece, p[:take]...)
		p = p[take:]
		if w.need -= take; w.need > 0 {
			continue
		}
		piece := w.piece
		w.piece = w.piece[:0]
		if err := w.next(w, piece); err != nil {
			return err
		}
	}
	return nil
}

func (w *xzWalker) expect(need int, next func(*xzWalker, []byte) error) {
	w.need, w.next = need, next
}

func (w *xzWalker) streamHead(p []byte) error {
	w.check = [...]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[p[7]&15]
	w.expect(1, (*xzWalker).blockStart)
	return nil
}

func (w *xzWalker) blockStart(p []byte) error {
	if p[0] == 0 { // the index: no more blocks
		w.next = nil
		return nil
	}
	length := int(p[0])
	w.expect((length+1)*4-1, func(w *xzWalker, rest []byte) error { return w.blockHead(byte(length), rest) })
	return nil
}

func (w *xzWalker) blockHead(length byte, rest []byte) error {
	head := append([]byte("\xfd7zXZ\x00\x00\x00\x00\x00\x00\x00"), length)
	window, err := xzhead.Dictionary(append(head, rest...))
	if err != nil {
		return err
	}
	if window > w.limit {
		return mirror.Faultf(TooLarge, "a later block takes %d bytes of memory to unpack, the first takes %d", window, w.limit)
	}
	w.size = 0
	w.expect(1, (*xzWalker).chunk)
	return nil
}

// chunk is LZMA2's control byte.
func (w *xzWalker) chunk(p []byte) error {
	switch c := p[0]; {
	case c == 0:
		w.size++
		w.skip = -w.size&3 + w.check
		w.expect(1, (*xzWalker).blockStart)
	case c == 1 || c == 2: // uncompressed
		w.expect(2, func(w *xzWalker, p []byte) error { return w.data(3, p[0], p[1]) })
	case c >= 0xc0: // with new properties
		w.expect(5, func(w *xzWalker, p []byte) error { return w.data(6, p[2], p[3]) })
	case c >= 0x80:
		w.expect(4, func(w *xzWalker, p []byte) error { return w.data(5, p[2], p[3]) })
	default:
		return fmt.Errorf("%w: control byte %#x", errXZ, c)
	}
	return nil
}

// data passes a chunk's bytes; head is the length of what came before them.
func (w *xzWalker) data(head int64, high, low byte) error {
	w.skip = int64(high)<<8 + int64(low) + 1
	w.size += head + w.skip
	w.expect(1, (*xzWalker).chunk)
	return nil
}
