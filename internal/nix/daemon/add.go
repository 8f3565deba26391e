package daemon

import (
	"context"
	"fmt"
	"net"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/narinfo"
)

// Add is a path on its way into the store: NAR bytes by Write, then exactly one
// of Commit and Abort.
//
// The daemon registers a path as soon as its NAR is whole, hash and size are
// those of the PathInfo and its references are there. It must get the last
// bytes only when the caller would have it so.
type Add struct {
	c      *Conn
	ctx    context.Context // of the one operation
	path   string
	stop   func()
	frame  []byte
	answer chan error // of the daemon, which may say a lot before it has all
	done   bool
}

// FrameSize is how many bytes of a NAR are best written at a time.
const FrameSize = 64 << 10

// Add begins to add a path with its signatures, which the daemon checks. The
// connection is busy until Commit or Abort.
func (c *Conn) Add(ctx context.Context, info nix.PathInfo, sigs []narinfo.Signature) (*Add, error) {
	if c.broken != nil {
		return nil, c.broken
	}
	a := &Add{c: c, ctx: ctx, path: info.Path, stop: c.watch(ctx), answer: make(chan error, 1)}
	texts := make([]string, len(sigs))
	for i, s := range sigs {
		texts[i] = s.String()
	}
	b := appendText(appendNumber(nil, opAddToStoreNar), info.Path)
	b = appendText(b, "") // deriver: a node has none of them
	b = appendText(b, info.NarHash.Hex())
	b = appendTexts(b, info.References)
	b = appendNumber(b, 0) // time of registration: now
	b = appendNumber(b, uint64(info.NarSize))
	b = appendNumber(b, 0) // not built here
	b = appendTexts(b, texts)
	b = appendText(b, "")  // not addressed by content: counts by signature only
	b = appendNumber(b, 0) // no repair
	b = appendNumber(b, 0) // check signatures
	if err := c.send(b); err != nil {
		a.stop()
		return nil, c.finish(ctx, "add "+info.Path, err)
	}
	// The daemon owes no answer before it has all: waiting for it has no limit
	// here, and gets one by Commit.
	go func() { a.answer <- c.drainSlowly() }()
	return a, nil
}

// Write sends a part of the NAR. After an error only Abort is of use: it
// returns what the daemon said.
func (a *Add) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		part := p[done:min(len(p), done+FrameSize)]
		if err := a.send(part); err != nil {
			return done, a.c.cause(a.ctx, fmt.Errorf("add %s: %w", a.path, err))
		}
		done += len(part)
	}
	return len(p), nil
}

// send writes one frame, without a copy of its bytes where the connection is a socket.
func (a *Add) send(part []byte) error {
	a.frame = appendNumber(a.frame[:0], uint64(len(part)))
	conn, ok := a.c.rw.(net.Conn)
	if !ok {
		a.frame = append(a.frame, part...)
		return a.c.send(a.frame)
	}
	both := net.Buffers{a.frame, part}
	if _, err := both.WriteTo(conn); err != nil {
		return wireError("write to", err)
	}
	return nil
}

// Commit says that the NAR was whole and waits until the path is registered.
// An *Error is the daemon's reason against it; the connection lives on then.
func (a *Add) Commit() error {
	if a.done {
		panic("BUG: daemon: Commit of a finished Add")
	}
	a.done = true
	defer a.stop()
	err := a.c.send(appendNumber(nil, 0))
	defer a.c.patience()()
	if answer := <-a.answer; answer != nil || err == nil {
		err = answer // it knows better why writing failed
	}
	return a.c.finish(a.ctx, "add "+a.path, err)
}

// Abort cuts the connection before the NAR is whole, so that nothing is
// registered. It returns what the daemon had said against it, if anything.
func (a *Add) Abort() error {
	if a.done {
		return nil
	}
	a.done = true
	defer a.stop()
	var err error
	select {
	case err = <-a.answer: // said before we cut it
	default:
		a.c.Close()
		<-a.answer
	}
	a.c.broken = fmt.Errorf("add %s: it was given up: %w", a.path, ErrClosed)
	a.c.Close()
	return err
}
