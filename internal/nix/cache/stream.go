package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"xnodeos.org/internal/mirror"
)

// stream reads a file of one cache from its first byte to its last, over as
// many connections as it takes: one that breaks or stalls is followed by a
// request for the rest. Its error is io.EOF, ErrNotFound, a *Fault that is
// written down, or the context's.
type stream struct {
	set    *Set
	member *member
	ctx    context.Context // of one file, see Set.stream
	name   string
	limit  int64 // bytes at most

	offset int64 // of the next byte
	size   int64 // of the file as the last answer told it, -1 if it did not
	resp   *response
	faults int   // in a row
	since  int64 // bytes since the last fault
	err    error
}

// stream begins to read. ctx must live until Close.
func (s *Set) stream(ctx context.Context, m *member, name string, limit int64) *stream {
	return &stream{set: s, member: m, ctx: ctx, name: name, limit: limit, size: -1}
}

// Close gives the connection back.
func (r *stream) Close() {
	if r.resp != nil {
		r.resp.close()
		r.resp = nil
	}
}

// prepare sends the first request. What goes wrong is for Read to tell or to
// try again.
func (r *stream) prepare() {
	if err := r.request(); err != nil {
		r.err = r.judge(err)
	}
}

// Read implements io.Reader.
func (r *stream) Read(p []byte) (int, error) {
	for r.err == nil {
		if r.resp == nil {
			if err := r.request(); err != nil {
				r.err = r.judge(err)
				continue
			}
		}
		n, err := r.resp.read(p)
		r.offset += int64(n)
		if r.since += int64(n); r.since >= progressBytes {
			r.faults = 0
		}
		if r.offset > r.limit {
			r.err = r.judge(mirror.Faultf(TooLarge, "longer than the %d bytes that are allowed", r.limit))
			return 0, r.err
		}
		if err != nil {
			r.Close()
			r.err = r.end(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, r.err
}

// end decides what the end of an answer means.
func (r *stream) end(err error) error {
	if errors.Is(err, io.EOF) && (r.size < 0 || r.offset >= r.size) {
		return io.EOF
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	var fault *mirror.Fault
	if !errors.As(err, &fault) {
		fault = &mirror.Fault{Kind: mirror.CutOff, Err: err}
	}
	return r.judge(fault.In(fmt.Sprintf("at byte %d", r.offset)))
}

// judge writes a fault down. It returns nil if the cache is to be asked for the
// rest, after a pause.
func (r *stream) judge(err error) error {
	if cause := context.Cause(r.ctx); cause != nil {
		return cause
	}
	var fault *mirror.Fault
	if !errors.As(err, &fault) {
		return err // ErrNotFound
	}
	fault = fault.In(r.name)
	again := r.set.blame(r.member, fault)
	if !fault.Kind.Passing() || !again {
		return fault
	}
	if r.faults++; r.faults >= r.set.tries(r.member) {
		r.set.drop(r.member)
		return fault
	}
	r.since = 0
	if !sleep(r.ctx, mirror.Backoff(r.faults, r.set.o.Jitter())) {
		return context.Cause(r.ctx)
	}
	return nil
}

// request asks for the file from the offset on.
func (r *stream) request() error {
	ctx, cancel := context.WithCancelCause(r.ctx)
	dog := newWatchdog(r.set.o, cancel)
	resp := &response{dog: dog, cancel: cancel}
	a, err := dog.open(func() (*answer, error) { return r.member.cache.source.open(ctx, r.name, r.offset) })
	if err != nil {
		cancel(nil)
		return err
	}
	resp.body, r.size = a.body, a.size
	if r.size > r.limit {
		resp.close()
		return mirror.Faultf(TooLarge, "it has %d bytes, %d are allowed", r.size, r.limit)
	}
	// A server that ignores Range sends what is known already.
	if err := resp.skip(r.offset - a.from); err != nil {
		resp.close()
		return err
	}
	r.resp = resp
	return nil
}

// response is an answer's body under a watchdog.
type response struct {
	body   io.ReadCloser
	dog    *watchdog
	cancel context.CancelCauseFunc
}

func (r *response) close() {
	r.body.Close()
	r.cancel(nil)
}

// read's error is io.EOF or a *Fault.
func (r *response) read(p []byte) (n int, err error) {
	ok := r.dog.watch(func() int {
		n, err = r.body.Read(p)
		return n
	})
	switch {
	case err == nil && ok:
		return n, nil
	case err == nil || !ok:
		return n, r.dog.fault()
	case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
		return n, io.EOF
	}
	return n, &mirror.Fault{Kind: mirror.CutOff, Err: err}
}

func (r *response) skip(count int64) error {
	var buf []byte
	for count > 0 {
		if buf == nil {
			buf = make([]byte, 32<<10)
		}
		n, err := r.read(buf[:min(int64(len(buf)), count)])
		count -= int64(n)
		if errors.Is(err, io.EOF) && count > 0 {
			return mirror.Faultf(mirror.WrongFile, "it ignores Range, and is shorter now than it was before")
		} else if err != nil && count > 0 {
			return err
		}
	}
	return nil
}

// watchdog ends a request that stalls. Only the time that is spent waiting for
// the cache counts: whoever takes the bytes may be slow.
type watchdog struct {
	limit  time.Duration
	clock  func() time.Duration
	cancel context.CancelCauseFunc
	spent  time.Duration // waiting, since bytes was 0
	bytes  int
}

func newWatchdog(o Options, cancel context.CancelCauseFunc) *watchdog {
	return &watchdog{limit: o.StallTimeout, clock: o.Clock, cancel: cancel}
}

// watch runs one wait, which returns how many bytes it brought, and says
// whether the stream is alive.
func (w *watchdog) watch(wait func() int) bool {
	begun := w.clock()
	timer := time.AfterFunc(w.limit-w.spent, func() { w.cancel(mirror.ErrStalled) })
	w.bytes += wait()
	timer.Stop()
	if w.bytes >= mirror.StallBytes {
		w.bytes, w.spent = 0, 0
		return true
	}
	w.spent += w.clock() - begun
	return w.spent < w.limit
}

// open is watch for what comes before the first byte.
func (w *watchdog) open(open func() (*answer, error)) (a *answer, err error) {
	ok := w.watch(func() int {
		a, err = open()
		return 0
	})
	if !ok {
		if a != nil {
			a.body.Close()
		}
		return nil, w.fault()
	}
	w.spent = 0
	return a, err
}

func (w *watchdog) fault() *mirror.Fault { return mirror.TooSlow(w.limit, mirror.ErrStalled) }
