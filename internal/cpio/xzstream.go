package cpio

import (
	"errors"
	"io"

	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"xnodeos.org/internal/xzhead"
)

// xzStream reads exactly one xz stream from an input.
type xzStream struct {
	in *input
	r  *xz.Reader
}

func newXZStream(in *input) (io.Reader, error) {
	head, err := in.r.Peek(xzhead.Size)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if err := xzhead.Check(head, maxWindow); err != nil {
		return nil, err
	}
	r, err := xz.ReaderConfig{DictCap: lzma.MinDictCap, SingleStream: true}.NewReader(in)
	return &xzStream{in, r}, err
}

// Read gives back the one byte that the library takes behind the stream to see
// whether something follows. It has no value for that error, only its text;
// TestInitrd fails should the text change.
func (x *xzStream) Read(p []byte) (int, error) {
	n, err := x.r.Read(p)
	if err != nil && err.Error() == "xz: unexpected data after stream" {
		if x.in.err != nil {
			return n, x.in.err
		}
		x.in.unread()
		return n, io.EOF
	}
	return n, err
}
