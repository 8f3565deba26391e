package manifest

import (
	"context"
	"errors"
	"hash"
	"io"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// chunk is a piece of a file on its way from the reader to those who hash it.
type chunk struct {
	index int
	data  []byte
	users atomic.Int32 // the last one gives the buffer back
}

// pump reads r in order, in one goroutine, and gives its chunks of size bytes
// to one worker a core. whole, if not nil, sees all bytes in order in a
// goroutine of its own. At most one buffer a core and two more exist. It
// returns how many bytes were read, and the first error of anybody.
func pump(ctx context.Context, r io.Reader, size int64, whole hash.Hash, work func(index int, data []byte) error) (int64, error) {
	workers := runtime.GOMAXPROCS(0)
	p := &pipe{size: size, whole: whole, work: work,
		free:    make(chan []byte, workers+2),
		jobs:    make(chan *chunk, workers+2),
		ordered: make(chan *chunk, workers+2),
	}
	for range cap(p.free) {
		p.free <- nil // made when first used: a small file needs one
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.read(ctx, r) })
	if work != nil {
		for range workers {
			group.Go(func() error { return p.consume(ctx, p.jobs, work) })
		}
	}
	if whole != nil {
		group.Go(func() error {
			return p.consume(ctx, p.ordered, func(_ int, data []byte) error {
				_, err := whole.Write(data)
				return err
			})
		})
	}
	err := group.Wait()
	return p.total, err
}

type pipe struct {
	size          int64
	whole         hash.Hash
	work          func(index int, data []byte) error
	free          chan []byte
	jobs, ordered chan *chunk
	total         int64
}

func (p *pipe) read(ctx context.Context, r io.Reader) error {
	defer close(p.jobs)
	defer close(p.ordered)
	for index := 0; ; index++ {
		var buf []byte
		select {
		case buf = <-p.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if buf == nil {
			buf = make([]byte, p.size)
		}
		n, err := fill(ctx, r, buf)
		p.total += int64(n)
		if n > 0 {
			p.hand(index, buf[:n])
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// hand never blocks: there are no more buffers than places in the channels.
func (p *pipe) hand(index int, data []byte) {
	c := &chunk{index: index, data: data}
	if p.work != nil && p.whole != nil {
		c.users.Store(2)
	} else {
		c.users.Store(1)
	}
	if p.work != nil {
		p.jobs <- c
	}
	if p.whole != nil {
		p.ordered <- c
	}
}

func (p *pipe) consume(ctx context.Context, from <-chan *chunk, do func(int, []byte) error) error {
	for c := range from {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := do(c.index, c.data); err != nil {
			return err
		}
		if c.users.Add(-1) == 0 {
			p.free <- c.data[:cap(c.data)]
		}
	}
	return nil
}

// fill reads until buf is full or r ends, and looks at ctx once a megabyte: a
// CD gives a few of them a second.
func fill(ctx context.Context, r io.Reader, buf []byte) (int, error) {
	n := 0
	for n < len(buf) {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		m, err := io.ReadFull(r, buf[n:min(n+1<<20, len(buf))])
		n += m
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
