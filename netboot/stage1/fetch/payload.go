package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/mirror"
)

// readStep is how much is read at a time, and hashed while it is in the cache.
const readStep = 128 << 10

// Payload fetches the payload of an accepted manifest into sink, chunk by chunk
// in any order; each byte is written once, after its chunk passed its check.
// sink must take writes from several goroutines. The error is an *Error, or says
// what of the manifest cannot be fetched.
func Payload(ctx context.Context, mirrors []Mirror, p *manifest.Payload, sink io.WriterAt, o Options) error {
	switch {
	case p.Name != PayloadName:
		return fmt.Errorf("fetch payload: its name is %q; over the network it must be %q", p.Name, PayloadName)
	case p.ChunkSize <= 0 || p.ChunkSize > maxChunk || p.Size < 0:
		return fmt.Errorf("fetch payload: chunks of %d bytes; over the network at most %d are allowed", p.ChunkSize, maxChunk)
	case int64(len(p.Chunks)) != (p.Size+p.ChunkSize-1)/p.ChunkSize:
		return fmt.Errorf("fetch payload: %d chunk hashes for %d bytes", len(p.Chunks), p.Size)
	}
	if err := checkMirrors(mirrors); err != nil {
		return fmt.Errorf("fetch payload: %w", err)
	}
	o = o.withDefaults()
	f := &payloadFetch{board: newBoard(p, mirrors, o), o: o, sink: sink}
	return f.run(ctx)
}

type payloadFetch struct {
	*board

	o    Options
	sink io.WriterAt
}

// errComplete ends what is still under way when all is there.
var errComplete = errors.New("complete")

func (f *payloadFetch) run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var lanes, watch sync.WaitGroup
	for _, m := range f.mirrors {
		for range f.o.Parallel {
			lanes.Go(func() {
				if err := f.lane(ctx, m); err != nil {
					cancel(err)
				}
			})
		}
	}
	watch.Go(func() { f.watch(ctx, cancel) })
	lanes.Wait()
	cancel(ErrNoMirror) // the first cause stays
	watch.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left == 0 {
		return nil
	}
	e := &Error{What: PayloadName, Done: f.done, Total: f.payload.Size, Cause: context.Cause(ctx)}
	for _, m := range f.mirrors {
		e.Mirrors = append(e.Mirrors, m.faults)
	}
	return e
}

// watch ends the fetch when nothing new comes.
func (f *payloadFetch) watch(ctx context.Context, cancel context.CancelCauseFunc) {
	for {
		left := f.o.GiveUp - f.idle()
		if left <= 0 {
			cancel(fmt.Errorf("%w in %.0f s", ErrNoProgress, f.o.GiveUp.Seconds()))
			return
		}
		if !sleep(ctx, nil, left) {
			return
		}
	}
}

// sleep waits and says whether the context still lives.
func sleep(ctx context.Context, changed <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timer.C:
	}
	return ctx.Err() == nil
}

// lane has one request of a mirror at a time. It returns nil when there is
// nothing left to do for the mirror, or the error that ends the whole fetch.
func (f *payloadFetch) lane(ctx context.Context, m *member) error {
	for ctx.Err() == nil {
		var err error
		switch c := f.claim(m); {
		case c.try != nil:
			err = f.fetchChunk(ctx, c.try)
		case c.stream:
			err = f.fetchStream(ctx, m)
		case c.changed == nil:
			return nil
		default:
			sleep(ctx, c.changed, c.wait)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// request is one HTTP request under a watchdog.
type request struct {
	cause  func() error // why it was ended by us, nil if it was not
	cancel context.CancelCauseFunc
	dog    *watchdog
}

func (f *payloadFetch) request(ctx context.Context) (context.Context, request) {
	ctx, cancel := context.WithCancelCause(ctx)
	return ctx, request{func() error { return context.Cause(ctx) }, cancel, newWatchdog(f.o.StallTimeout, cancel)}
}

func (r request) close() {
	r.dog.stop()
	r.cancel(nil)
}

// fetchChunk asks for the rest of one chunk.
func (f *payloadFetch) fetchChunk(ctx context.Context, t *try) error {
	ctx, r := f.request(ctx)
	defer r.close()
	m := t.mirror
	if f.setCancel(t, r.cancel) {
		f.end(t)
		f.release(m, 0, nil)
		return nil
	}
	from, to := f.offset(t.chunk)+int64(t.part.n), f.offset(t.chunk)+int64(len(t.part.buf))
	a, err := get(ctx, f.o.Client, mirror.Request{URL: m.file(PayloadName), From: from, To: to}, f.payload.Size)
	if err != nil {
		f.end(t)
		f.release(m, 0, r.blame(err))
		return nil
	}
	defer a.Body.Close()
	r.dog.rest()
	if a.Whole {
		f.end(t)
		if !f.beginWhole(m) {
			f.release(m, 0, nil)
			return nil
		}
		return f.readStream(r, m, a)
	}
	err = f.fill(r, t, a.Body, a.Length)
	gained := t.part.n - t.had
	var last error
	if err == nil && t.part.n == len(t.part.buf) {
		endOfBody(a.Body)
		last = f.finish(t)
	}
	f.end(t)
	f.release(m, gained, r.blame(err))
	return last
}

// endOfBody lets the connection be used again, if the body ends where it should.
func endOfBody(body io.Reader) {
	var more [1]byte
	_, _ = body.Read(more[:])
}

// finish checks a whole chunk and writes it.
func (f *payloadFetch) finish(t *try) error {
	err := f.settle(t, func(buf []byte, offset int64) error {
		_, err := f.sink.WriteAt(buf, offset)
		return err
	})
	if err != nil {
		return fmt.Errorf("write the payload: %w", err)
	}
	if f.complete() {
		return errComplete
	}
	return nil
}

func (f *payloadFetch) complete() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.left == 0
}

// fill reads length bytes, or as many as the try's chunk still needs.
func (f *payloadFetch) fill(r request, t *try, body io.Reader, length int64) error {
	p := t.part
	for p.n < len(p.buf) && length > 0 {
		n, err := body.Read(p.buf[p.n:min(p.n+readStep, len(p.buf))])
		if n > 0 {
			p.hash.Write(p.buf[p.n : p.n+n])
			r.dog.feed(n)
			f.extend(p, n)
			length -= int64(n)
		}
		if err != nil && p.n < len(p.buf) && length > 0 {
			return mirror.Faultf(mirror.CutOff, "at byte %d: %w", f.offset(t.chunk)+int64(p.n), err)
		}
	}
	return nil
}

// blame returns the fault of the mirror, or nil where a request was ended by us.
func (r request) blame(err error) *mirror.Fault {
	var fault *mirror.Fault
	if !errors.As(err, &fault) {
		return nil
	}
	switch cause := r.cause(); {
	case cause == nil:
		return fault
	case errors.Is(cause, mirror.ErrStalled):
		return mirror.TooSlow(r.dog.limit, fault.Err)
	}
	return nil
}

// fetchStream asks a mirror that ignores Range for everything from the first
// open chunk on. One that has learned better answers with just that.
func (f *payloadFetch) fetchStream(ctx context.Context, m *member) error {
	ctx, r := f.request(ctx)
	defer r.close()
	from := f.offset(max(0, f.firstOpen()))
	a, err := get(ctx, f.o.Client, mirror.Request{URL: m.file(PayloadName), From: from, To: f.payload.Size}, f.payload.Size)
	if err != nil {
		f.endWhole(m, false)
		f.release(m, 0, r.blame(err))
		return nil
	}
	defer a.Body.Close()
	r.dog.rest()
	return f.readStream(r, m, a)
}

// readStream reads an answer that goes through many chunks, takes those that are
// wanted and lets the others pass.
func (f *payloadFetch) readStream(r request, m *member, a *mirror.Answer) error {
	before := f.goodOf(m)
	cut, last := f.passChunks(r, m, a)
	fault := r.blame(cut)
	gained := f.goodOf(m) - before
	if fault != nil && gained == 0 {
		fault = mirror.Faultf(mirror.WrongRange, "it ignores Range, and the whole file brought nothing new: %w", fault)
	}
	f.endWhole(m, gained == 0)
	f.release(m, gained*int(f.payload.ChunkSize), fault)
	return last
}

func (f *payloadFetch) goodOf(m *member) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return m.good
}

// passChunks returns what cut the answer off, and what ends the whole fetch.
func (f *payloadFetch) passChunks(r request, m *member, a *mirror.Answer) (cut, last error) {
	for i := int(a.From / f.payload.ChunkSize); i < len(f.chunks) && f.useful(m); i++ {
		t := f.claimStream(m, i)
		if t == nil {
			if err := f.skip(r, a.Body, i); err != nil {
				return err, nil
			}
			continue
		}
		err := f.fill(r, t, a.Body, int64(len(t.part.buf)))
		if err == nil {
			last = f.finish(t)
		}
		f.end(t)
		if err != nil || last != nil {
			return err, last
		}
	}
	return nil, nil
}

// skip lets a chunk pass.
func (f *payloadFetch) skip(r request, body io.Reader, i int) error {
	n, err := io.CopyN(io.Discard, &fedReader{body, r.dog}, int64(f.length(i)))
	if err != nil {
		return mirror.Faultf(mirror.CutOff, "at byte %d: %w", f.offset(i)+n, err)
	}
	f.skipped()
	return nil
}
