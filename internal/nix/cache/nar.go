package cache

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"xnodeos.org/internal/mirror"
	"xnodeos.org/internal/nix/narinfo"
	"xnodeos.org/internal/xzhead"
)

// NAR is the uncompressed NAR of an offer, as it comes: at most as long as the
// closure list says. Its error is io.EOF after exactly so many bytes, a *Fault
// that is written down, or the context's. Whether the bytes are right is for
// the reader to find out by their hash.
type NAR struct {
	set    *Set
	offer  *Offer
	in     *stream
	data   io.Reader
	decode *Decoder
	held   int64 // of Set.memory
	left   int64
	err    error
}

// A Decoder keeps what unpacking NARs one after the other allocates. The zero
// value is ready; it serves one NAR at a time.
type Decoder struct {
	head  *bufio.Reader
	zstd  *zstd.Decoder
	limit uint64 // window of zstd
}

// Prepare asks for the NAR of an offer before its turn: the answer's way here
// costs no time then, and a small one lies in the kernel's buffers. Open takes
// it over; an offer that is not opened needs a Close. ctx must live until then.
func (s *Set) Prepare(ctx context.Context, o *Offer) {
	o.in = s.narStream(ctx, o)
	o.in.prepare()
}

// Close lets go of what Prepare asked for. After Open it does nothing.
func (o *Offer) Close() {
	if o.in != nil {
		o.in.Close()
		o.in = nil
	}
}

func (s *Set) narStream(ctx context.Context, o *Offer) *stream {
	// Compressing a NAR never makes it much longer; what feeds us endless
	// empty frames is cut off here.
	return s.stream(ctx, o.from, o.Info.URL, o.Info.NarSize+o.Info.NarSize/16+1<<20)
}

// Open begins to read the NAR of an offer. tee, if not nil, gets the
// compressed bytes and must never fail. ctx must live until Close.
func (s *Set) Open(ctx context.Context, o *Offer, d *Decoder, tee io.Writer) *NAR {
	asked := o.in
	if o.in = nil; asked == nil {
		asked = s.narStream(ctx, o)
	}
	n := &NAR{set: s, offer: o, in: asked, decode: d, left: o.Info.NarSize}
	var in io.Reader = n.in
	if tee != nil {
		in = io.TeeReader(in, tee)
	}
	if d.head == nil {
		d.head = bufio.NewReaderSize(in, 32<<10)
	} else {
		d.head.Reset(in)
	}
	return n
}

// Close ends the reading.
func (n *NAR) Close() {
	n.release()
	n.in.Close()
	if n.decode.zstd != nil {
		_ = n.decode.zstd.Reset(nil) // lets go of the input; never fails
	}
}

func (n *NAR) release() {
	n.set.memory.Release(n.held)
	n.held = 0
}

// Read implements io.Reader.
func (n *NAR) Read(p []byte) (int, error) {
	if n.err != nil {
		return 0, n.err
	}
	if n.data == nil {
		if n.err = n.begin(); n.err != nil {
			n.err = n.explain(n.err)
			return 0, n.err
		}
	}
	if n.left == 0 {
		n.err = n.finish()
		return 0, n.err
	}
	got, err := n.data.Read(p[:min(int64(len(p)), n.left)])
	n.left -= int64(got)
	if err != nil && !(errors.Is(err, io.EOF) && n.left == 0) {
		n.err = n.explain(err)
		if got == 0 {
			return 0, n.err
		}
	}
	return got, nil
}

// finish sees that nothing follows, neither in the NAR nor behind it.
func (n *NAR) finish() error {
	var more [1]byte
	for range 100 {
		switch got, err := n.data.Read(more[:]); {
		case got > 0:
			return n.fault(TooLarge, "it unpacks to more than the %d bytes of the closure list", n.offer.Info.NarSize)
		case errors.Is(err, io.EOF) && n.in.err != nil && !errors.Is(n.in.err, io.EOF):
			return n.in.err
		case errors.Is(err, io.EOF):
			if _, err := n.decode.head.ReadByte(); err == nil {
				return n.fault(mirror.WrongFile, "bytes follow its end")
			} else if !errors.Is(err, io.EOF) {
				return n.explain(err)
			}
			n.release()
			return io.EOF
		case err != nil:
			return n.explain(err)
		}
	}
	return n.fault(mirror.WrongFile, "it does not end")
}

func (n *NAR) fault(kind mirror.FaultKind, format string, args ...any) *mirror.Fault {
	f := mirror.Faultf(kind, format, args...).In(n.offer.Info.URL)
	n.set.blame(n.offer.from, f)
	return f
}

// explain tells whose error it is: the stream's own stays as it is; all else is
// about bytes.
func (n *NAR) explain(err error) error {
	var fault *mirror.Fault
	if errors.As(err, &fault) && fault.Kind == TooLarge && (n.in.err == nil || errors.Is(n.in.err, io.EOF)) {
		return n.fault(TooLarge, "%w", fault.Err)
	}
	if in := n.in.err; in != nil && !errors.Is(in, io.EOF) {
		if errors.Is(in, ErrNotFound) {
			return n.fault(mirror.WrongFile, "the narinfo names it, but the cache does not have it")
		}
		return in
	}
	if errors.Is(err, io.EOF) {
		return n.fault(mirror.WrongFile, "it unpacks to %d bytes, the closure list says %d", n.offer.Info.NarSize-n.left, n.offer.Info.NarSize)
	}
	return n.fault(mirror.WrongFile, "unpack %s at byte %d: %w", n.offer.Info.Compression, n.offer.Info.NarSize-n.left, err)
}

// begin makes the decompressor, once it is known how much memory it takes.
func (n *NAR) begin() error {
	d := n.decode
	switch n.offer.Info.Compression {
	case narinfo.Zstd:
		window, err := zstdWindow(d.head)
		if err != nil {
			return err
		}
		if err := n.hold(window); err != nil {
			return err
		}
		n.data, err = d.zstdReader(uint64(window))
		return err
	case narinfo.XZ:
		head, err := d.head.Peek(xzhead.Size)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		window, err := xzhead.Dictionary(head)
		if err != nil {
			return err
		}
		if err := n.hold(window); err != nil {
			return err
		}
		n.data, err = xz.ReaderConfig{DictCap: lzma.MinDictCap, SingleStream: true}.NewReader(newXZWalker(d.head, window))
		return err
	}
	n.data = d.head
	return nil
}

// hold waits until so much memory is free for a decompressor.
func (n *NAR) hold(window int64) error {
	if most := n.set.o.DecodeMemory; window > most {
		return mirror.Faultf(TooLarge, "unpacking takes %d bytes of memory, %d are allowed; push with a smaller window", window, most)
	}
	if err := n.set.memory.Acquire(n.in.ctx, window); err != nil {
		return fmt.Errorf("wait for memory: %w", context.Cause(n.in.ctx))
	}
	n.held = window
	return nil
}

// zstdWindow reads the head of the first frame (RFC 8878, section 3.1.1.1).
func zstdWindow(r *bufio.Reader) (int64, error) {
	head, err := r.Peek(zstd.HeaderMaxSize)
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	var h zstd.Header
	if err := h.Decode(head); err != nil {
		return 0, err
	}
	if h.Skippable {
		return 0, errors.New("it begins with a skippable frame")
	}
	window := h.WindowSize
	if h.SingleSegment && h.HasFCS {
		window = h.FrameContentSize
	}
	if window > 1<<40 {
		window = 1 << 40
	}
	return int64(max(window, zstd.MinWindowSize)), nil
}

// smallWindow is what every decoder that is kept is made for.
const smallWindow = pushWindow

// zstdReader returns a decoder that never takes more than about the window,
// whatever later frames ask for. One for usual windows is kept.
func (d *Decoder) zstdReader(window uint64) (io.Reader, error) {
	limit := max(window, smallWindow)
	if d.zstd != nil && d.limit == limit {
		return d.zstd, d.zstd.Reset(d.head)
	}
	if d.zstd != nil {
		d.zstd.Close()
	}
	dec, err := zstd.NewReader(d.head, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(limit), zstd.WithDecoderMaxMemory(limit))
	if err != nil {
		return nil, err
	}
	d.zstd, d.limit = dec, limit
	return dec, nil
}

// Close frees what the decoder kept. It is ready for use after that as well.
func (d *Decoder) Close() {
	if d.zstd != nil {
		d.zstd.Close()
	}
	*d = Decoder{}
}
