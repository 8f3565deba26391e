package daemon

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Bounds of what a daemon says; it runs as root, but a reader that believes a
// length can be brought down by one flipped bit.
const (
	maxString = 1 << 20
	maxCount  = 1 << 20 // strings in a list
	maxList   = 64 << 20
	maxFields = 64
)

// ErrProtocol is in every error about what the daemon said.
var ErrProtocol = errors.New("nix-daemon broke the protocol")

func protocolError(text string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(text, args...))
}

// reader reads the daemon's words. Its first error stays.
type reader struct {
	r   *bufio.Reader
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *reader) full(p []byte) {
	if r.err != nil {
		return
	}
	if _, err := io.ReadFull(r.r, p); err != nil {
		r.fail(wireError("read from", err))
	}
}

// wireError tells the end of a connection from other errors of it.
func wireError(verb string, err error) error {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed, os.ErrClosed, unix.ECONNRESET, unix.EPIPE} {
		if errors.Is(err, end) {
			return ErrClosed
		}
	}
	return fmt.Errorf("%s nix-daemon: %w", verb, err)
}

func (r *reader) number() uint64 {
	var b [8]byte
	r.full(b[:])
	if r.err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(b[:])
}

func (r *reader) flag() bool {
	n := r.number()
	if n > 1 {
		r.fail(protocolError("a truth value of %d", n))
	}
	return n == 1
}

func (r *reader) text() string {
	size := r.number()
	if size > maxString {
		r.fail(protocolError("a text of %d bytes; %d are allowed", size, maxString))
	}
	if r.err != nil {
		return ""
	}
	p := make([]byte, (size+7)&^7)
	r.full(p)
	if r.err != nil {
		return ""
	}
	for _, b := range p[size:] {
		if b != 0 {
			r.fail(protocolError("padding is not zero"))
		}
	}
	return string(p[:size])
}

func (r *reader) texts() []string {
	count := r.number()
	if count > maxCount {
		r.fail(protocolError("a list of %d texts; %d are allowed", count, maxCount))
	}
	all, total := []string{}, 0
	for range count {
		if r.err != nil {
			return nil
		}
		s := r.text()
		if total += len(s); total > maxList {
			r.fail(protocolError("a list of more than %d bytes", maxList))
		}
		all = append(all, s)
	}
	return all
}

// appendNumber, appendText and appendTexts write words of ours.
func appendNumber(b []byte, n uint64) []byte { return binary.LittleEndian.AppendUint64(b, n) }

func appendText(b []byte, s string) []byte {
	b = append(appendNumber(b, uint64(len(s))), s...)
	return append(b, make([]byte, -len(s)&7)...)
}

func appendTexts(b []byte, all []string) []byte {
	b = appendNumber(b, uint64(len(all)))
	for _, s := range all {
		b = appendText(b, s)
	}
	return b
}
