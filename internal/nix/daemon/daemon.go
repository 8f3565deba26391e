// Package daemon is a client of nix-daemon, by which a user without rights puts
// signed paths into the store: the worker protocol of Nix, version 1.23, over a
// unix socket or any other pair of pipes.
//
// 1.23 is the oldest that sends a NAR in frames (Nix 2.4), and daemons speak the
// lower of both versions, so that every Nix from 2.4 on and Lix are served by
// one dialect. Only a handful of operations is there; nothing is built.
//
// The daemon is asked to trust nothing: signatures are always checked. What it
// says is read with bounds. A Conn is for one goroutine at a time.
package daemon

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/nix"
)

// DefaultSocket is where a machine's nix-daemon listens.
const DefaultSocket = "/nix/var/nix/daemon-socket/socket"

// Words of the protocol (Nix: worker-protocol.hh).
const (
	magicClient = 0x6e697863
	magicDaemon = 0x6478696f

	ourVersion = 1<<8 | 23

	opIsValidPath     = 1
	opAddTempRoot     = 11
	opAddIndirectRoot = 12
	opQueryPathInfo   = 26
	opQueryValidPaths = 31
	opAddToStoreNar   = 39

	sayNext          = 0x6f6c6d67
	sayRead          = 0x64617461
	sayWrite         = 0x64617416
	sayLast          = 0x616c7473
	sayError         = 0x63787470
	sayStartActivity = 0x53545254
	sayStopActivity  = 0x53544f50
	sayResult        = 0x52534c54
)

// ErrClosed says that the daemon closed the connection.
var ErrClosed = errors.New("nix-daemon closed the connection")

// ErrSilent says that the daemon owed an answer for longer than Options.Patience.
var ErrSilent = errors.New("nix-daemon says nothing")

// ErrInvalid says that a path is not in the store.
var ErrInvalid = errors.New("not a valid path of the store")

// Error is an answer of the daemon that says why it did not do something.
type Error struct {
	Message string // as the daemon worded it, without colours, at most 4 KiB
}

func (e *Error) Error() string { return "nix-daemon: " + e.Message }

// Unsigned says whether the daemon missed a signature of a key that it trusts.
func (e *Error) Unsigned() bool {
	return strings.Contains(e.Message, "lacks a") && strings.Contains(e.Message, "signature")
}

// Options of a connection. The zero value is good.
type Options struct {
	// Socket is the daemon's; DefaultSocket.
	Socket string
	// Patience is how long the daemon may say nothing while it owes an answer; 5 minutes.
	Patience time.Duration
	// Note gets what the daemon reports while it works, one line each.
	Note func(line string)
}

// Conn is a connection to a daemon. After an error other than *Error and
// ErrInvalid it is of no more use.
type Conn struct {
	rw      io.ReadWriteCloser
	o       Options
	in      reader
	version uint64
	broken  error
	closed  atomic.Bool
	silent  atomic.Bool // closed because it said nothing
}

// Dial connects to the daemon's socket.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	if o.Socket == "" {
		o.Socket = DefaultSocket
	}
	conn, err := dial(ctx, o.Socket)
	if err != nil {
		return nil, fmt.Errorf("connect to nix-daemon: %w; start it with: systemctl start nix-daemon.socket", err)
	}
	c, err := New(ctx, conn, o)
	if err != nil {
		return nil, fmt.Errorf("connect to nix-daemon at %q: %w", o.Socket, err)
	}
	return c, nil
}

// dial waits while the daemon's queue is full: its own socket has room for five
// that were not let in yet, and a further one is turned away at once.
func dial(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	for pause := 5 * time.Millisecond; ; pause *= 2 {
		conn, err := d.DialContext(ctx, "unix", socket)
		if !errors.Is(err, unix.EAGAIN) || pause > 5*time.Second {
			return conn, err
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// New speaks with a daemon over rw, such as the pipes of `nix-daemon --stdio`,
// and owns rw from now on.
func New(ctx context.Context, rw io.ReadWriteCloser, o Options) (*Conn, error) {
	if o.Patience <= 0 {
		o.Patience = 5 * time.Minute
	}
	if o.Note == nil {
		o.Note = func(string) {}
	}
	c := &Conn{rw: rw, o: o, in: reader{r: bufio.NewReaderSize(rw, 4<<10)}}
	defer c.watch(ctx)()
	if err := c.handshake(); err != nil {
		c.Close()
		return nil, c.cause(ctx, err)
	}
	return c, nil
}

// Close ends the connection, and with it the temporary roots that it made. An
// operation that is under way ends with an error.
func (c *Conn) Close() {
	if !c.closed.Swap(true) {
		_ = c.rw.Close() // all that counts was answered before
	}
}

// Version is what the daemon speaks, as in "1.34".
func (c *Conn) Version() string { return fmt.Sprintf("%d.%d", c.version>>8, c.version&0xff) }

// watch closes the connection when the context ends. The returned function ends
// the watch.
func (c *Conn) watch(ctx context.Context) func() {
	stop := context.AfterFunc(ctx, c.Close)
	return func() { stop() }
}

// cause is err, or why the context ended if it did.
func (c *Conn) cause(ctx context.Context, err error) error {
	if why := context.Cause(ctx); why != nil && err != nil {
		return why
	}
	if err != nil && c.silent.Load() {
		return fmt.Errorf("%w for %s; see: journalctl -u nix-daemon", ErrSilent, c.o.Patience)
	}
	return err
}

func (c *Conn) handshake() error {
	if err := c.send(appendNumber(nil, magicClient)); err != nil {
		return err
	}
	defer c.patience()()
	if magic := c.in.number(); c.in.err == nil && magic != magicDaemon {
		return protocolError("it does not greet as one; is the socket that of nix-daemon?")
	}
	c.version = c.in.number()
	if c.in.err != nil {
		return c.in.err
	}
	if c.version>>8 != 1 || c.version&0xff < ourVersion&0xff {
		return fmt.Errorf("%w: it speaks version %s; 1.23 (Nix 2.4) or a later 1.x is needed", ErrProtocol, c.Version())
	}
	b := appendNumber(nil, ourVersion)
	b = appendNumber(b, 0) // no CPU affinity
	b = appendNumber(b, 0) // no space to reserve
	if err := c.send(b); err != nil {
		return err
	}
	return c.drain()
}

func (c *Conn) send(b []byte) error {
	if _, err := c.rw.Write(b); err != nil {
		return wireError("write to", err)
	}
	return nil
}

// patience bounds how long the next words are waited for.
func (c *Conn) patience() func() {
	timer := time.AfterFunc(c.o.Patience, func() {
		c.silent.Store(true)
		c.Close()
	})
	return func() { timer.Stop() }
}

// do sends a request and waits until the daemon has done it; what it returns is
// read by get. The error is an *Error or ends the connection.
func (c *Conn) do(ctx context.Context, what string, request []byte, get func(*reader)) error {
	if c.broken != nil {
		return c.broken
	}
	defer c.watch(ctx)()
	err := c.send(request)
	if err == nil {
		err = c.drain()
	}
	if err == nil {
		stop := c.patience()
		get(&c.in)
		stop()
		err = c.in.err
	}
	return c.finish(ctx, what, err)
}

// finish words the error of an operation and remembers one after which
// nothing can be asked any more.
func (c *Conn) finish(ctx context.Context, what string, err error) error {
	if err == nil {
		return nil
	}
	var said *Error
	if !errors.As(err, &said) {
		err = c.cause(ctx, err)
		c.broken = fmt.Errorf("%s: %w", what, err)
		c.Close()
		return c.broken
	}
	return fmt.Errorf("%s: %w", what, err)
}

// IsValid says whether a path is in the store.
func (c *Conn) IsValid(ctx context.Context, p nix.StorePath) (valid bool, err error) {
	request := appendText(appendNumber(nil, opIsValidPath), string(p))
	err = c.do(ctx, "ask for "+string(p), request, func(r *reader) { valid = r.flag() })
	return valid, err
}

// Valid returns which of the paths are in the store.
func (c *Conn) Valid(ctx context.Context, paths []string) (map[string]bool, error) {
	var got []string
	request := appendTexts(appendNumber(nil, opQueryValidPaths), paths)
	if err := c.do(ctx, "ask for valid paths", request, func(r *reader) { got = r.texts() }); err != nil {
		return nil, err
	}
	valid := make(map[string]bool, len(got))
	for _, p := range got {
		valid[p] = true
	}
	return valid, nil
}

// AddTempRoot keeps the garbage collector from a path, which need not be there
// yet, until the connection ends.
func (c *Conn) AddTempRoot(ctx context.Context, p nix.StorePath) error {
	request := appendText(appendNumber(nil, opAddTempRoot), string(p))
	return c.do(ctx, "keep "+string(p), request, func(r *reader) { r.number() })
}

// AddIndirectRoot tells the daemon of a symlink that its user made: as long as
// it points to a store path, that one and what it needs are kept.
func (c *Conn) AddIndirectRoot(ctx context.Context, link string) error {
	request := appendText(appendNumber(nil, opAddIndirectRoot), link)
	return c.do(ctx, fmt.Sprintf("register root %q", link), request, func(r *reader) { r.number() })
}
