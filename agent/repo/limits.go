package repo

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Limits bound one attempt at one remote.
type Limits struct {
	Bytes    int64         // received from the network, everything counted
	Objects  int           // in the pack
	Inflated int64         // bytes of all objects together, uncompressed
	Object   int64         // bytes of the largest object, uncompressed
	Memory   int64         // bytes of objects held at once while deltas are resolved
	Time     time.Duration // of the whole attempt
	// Stall is the time in which at least StallBytes must arrive.
	Stall      time.Duration
	StallBytes int64
}

// DefaultLimits are generous for a config repository and bearable for a small
// node.
func DefaultLimits() Limits {
	return Limits{
		Bytes: 64 << 20, Objects: 50_000, Inflated: 256 << 20, Object: 32 << 20, Memory: 32 << 20,
		Time: 5 * time.Minute, Stall: time.Minute, StallBytes: 1 << 10,
	}
}

func (l Limits) orDefault() Limits {
	d := DefaultLimits()
	set(&l.Bytes, d.Bytes)
	set(&l.Objects, d.Objects)
	set(&l.Inflated, max(d.Inflated, 4*l.Bytes)) // text packs to about a quarter
	set(&l.Object, d.Object)
	set(&l.Memory, d.Memory)
	set(&l.Time, d.Time)
	set(&l.Stall, d.Stall)
	set(&l.StallBytes, d.StallBytes)
	return l
}

func set[T int | int64 | time.Duration](value *T, byDefault T) {
	if *value <= 0 {
		*value = byDefault
	}
}

// LimitError is an attempt that was ended because a remote sent too much or
// too slowly.
type LimitError struct {
	Limit string // bytes, objects, inflated bytes, object size, memory, time, stall
	Max   string // with its unit
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("limit of %s reached (%s); make the repository smaller or raise the limit in agent.toml [git]", e.Limit, e.Max)
}

func tooMany(limit string, most int64, unit string) *LimitError {
	return &LimitError{limit, fmt.Sprintf("at most %d %s", most, unit)}
}

// meter watches one attempt. Its context ends with a *LimitError as cause.
type meter struct {
	limits   Limits
	cancel   context.CancelCauseFunc
	received atomic.Int64
	quiet    chan struct{} // closed when no more bytes are expected
	once     sync.Once
}

// newMeter starts to watch; stop must be called.
func newMeter(ctx context.Context, limits Limits) (_ context.Context, m *meter, stop func()) {
	ctx, cancelTime := context.WithTimeoutCause(ctx, limits.Time, &LimitError{"time", limits.Time.String()})
	ctx, cancel := context.WithCancelCause(ctx)
	m = &meter{limits: limits, cancel: cancel, quiet: make(chan struct{})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		m.watch(ctx)
	}()
	return ctx, m, func() {
		cancel(nil)
		cancelTime()
		<-done
	}
}

// watch ends the attempt if too little arrives in any window of time.
func (m *meter) watch(ctx context.Context) {
	ticker := time.NewTicker(m.limits.Stall)
	defer ticker.Stop()
	var last int64
	for {
		select {
		case <-ctx.Done():
			return
		case <-m.quiet:
			return
		case <-ticker.C:
		}
		now := m.received.Load()
		if now-last < m.limits.StallBytes {
			m.cancel(&LimitError{"stall", fmt.Sprintf("fewer than %d bytes in %s", m.limits.StallBytes, m.limits.Stall)})
			return
		}
		last = now
	}
}

// allReceived ends the watch for a stall: what follows is our own work.
func (m *meter) allReceived() { m.once.Do(func() { close(m.quiet) }) }

// count takes n more bytes into account.
func (m *meter) count(n int) error {
	if m.received.Add(int64(n)) > m.limits.Bytes {
		err := tooMany("bytes", m.limits.Bytes, "bytes received")
		m.cancel(err)
		return err
	}
	return nil
}

// conn is a connection whose bytes are counted and that ends with the attempt.
type conn struct {
	net.Conn
	m    *meter
	stop func() bool
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if over := c.m.count(n); over != nil {
		return 0, over
	}
	return n, err
}

func (c *conn) Close() error {
	c.stop()
	return c.Conn.Close()
}

// dial connects for the time of ctx.
func (m *meter) dial(ctx context.Context, attempt context.Context, network, address string) (net.Conn, error) {
	raw, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return &conn{raw, m, context.AfterFunc(attempt, func() { raw.Close() })}, nil
}

// counted counts what does not come through a connection.
type counted struct {
	r   io.Reader
	m   *meter
	ctx context.Context // of the attempt: a local read cannot be woken up
}

func (c *counted) Read(p []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	if over := c.m.count(n); over != nil {
		return 0, over
	}
	return n, err
}
