package squashfs

import (
	"context"
	"fmt"
	"hash/maphash"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"
)

// pipeline moves file content into the image:
//
//	plan -> readers (read ahead) -> place -> compressors -> store
//
// place and store are one goroutine each and see files and blocks in the order
// of the walk, so that the image does not depend on what the others do first.
// All goroutines belong to run, which waits for them.
type pipeline struct {
	opt   Options
	tree  *tree
	image *image
	dups  *duplicates

	// spare holds the read buffers that are free; nil stands for one that was
	// not needed yet. Only plan takes from it, in the order of the files, and
	// a file's buffers come back without help from later files: it cannot
	// starve. The same holds for idle, from which only place takes.
	spare chan []byte
	idle  chan *block

	reads   chan *read  // files to be read ahead
	ordered chan *read  // all files
	packs   chan *block // to be compressed
	stores  chan *block // to be written

	open      *block // fragment block that is being filled
	fragments uint32
	done      int64 // bytes of file content that were placed
	stats     Stats
	table     []byte // of the fragment blocks, as in the image
}

// readAheadBlocks is the largest file, in blocks, that a reader takes; what is
// larger is read by place, block by block.
const readAheadBlocks = 8

// read is a file on its way from plan to place.
type read struct {
	node  *node
	parts [][]byte // content, or the buffers for it; nil for a large file
	hash  uint64
	done  chan struct{} // closed when parts and hash are filled in
}

// block is a data or fragment block on its way from place to store. It is used
// again and again.
type block struct {
	in, out []byte // buffers of its own
	raw     []byte // what to compress: in or a read buffer
	lent    []byte // the read buffer to be given back, or nil
	stored  []byte // what goes into the image: raw or out
	word    uint32 // its size word
	content *content
	index   int           // which block of content; -1 for a fragment block
	ready   chan struct{} // holds one value when stored and word are set
}

func newPipeline(opt Options, t *tree, img *image) *pipeline {
	// Blocks leave in order, so while the system lets one compressor wait, the
	// others can only go on for as long as there are blocks: on a loaded
	// machine, a short queue doubles the time.
	ahead, moving := 4*readAheadBlocks+8*opt.Workers, 32+4*opt.Workers
	p := &pipeline{
		opt: opt, tree: t, image: img, dups: newDuplicates(),
		spare:   make(chan []byte, ahead),
		idle:    make(chan *block, moving),
		reads:   make(chan *read, ahead),
		ordered: make(chan *read, 4*ahead),
		packs:   make(chan *block, moving),
		stores:  make(chan *block, moving),
	}
	for range ahead {
		p.spare <- nil
	}
	for range moving {
		p.idle <- &block{ready: make(chan struct{}, 1)}
	}
	return p
}

// run stores the content of every file and fills in the files' content.
func (p *pipeline) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return p.plan(ctx) })
	for range max(4, p.opt.Workers) {
		group.Go(func() error { return p.read(ctx) })
	}
	group.Go(func() error { return p.place(ctx) })
	for range p.opt.Workers {
		enc, err := newEncoder(p.opt.Level, p.opt.BlockSize)
		if err != nil {
			return fmt.Errorf("set up zstd: %w", err)
		}
		group.Go(func() error { return p.compress(ctx, enc) })
	}
	group.Go(func() error { return p.store(ctx) })
	return group.Wait()
}

// send and receive give up when ctx ends.
func send[T any](ctx context.Context, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func receive[T any](ctx context.Context, from <-chan T) (v T, ok bool, err error) {
	select {
	case v, ok = <-from:
		return v, ok, nil
	case <-ctx.Done():
		return v, false, ctx.Err()
	}
}

// plan hands out the files and the buffers for those that are read ahead.
func (p *pipeline) plan(ctx context.Context) error {
	defer close(p.reads)
	defer close(p.ordered)
	for _, n := range p.tree.files {
		r := &read{node: n}
		switch count := n.blocks(p.opt.BlockSize); {
		case n.inMemory:
			r.parts = [][]byte{n.data}
		case count <= readAheadBlocks:
			r.parts, r.done = make([][]byte, count), make(chan struct{})
			for i := range r.parts {
				buf, _, err := receive(ctx, p.spare)
				if err != nil {
					return err
				}
				if buf == nil {
					buf = make([]byte, p.opt.BlockSize+1)
				}
				r.parts[i] = buf
			}
			if err := send(ctx, p.reads, r); err != nil {
				return err
			}
		}
		if err := send(ctx, p.ordered, r); err != nil {
			return err
		}
	}
	return nil
}

// read reads files whole. It hashes those that are not the only ones of their
// size.
func (p *pipeline) read(ctx context.Context) error {
	var h maphash.Hash
	h.SetSeed(p.dups.seed)
	for {
		r, ok, err := receive(ctx, p.reads)
		if !ok {
			return err
		}
		if err := r.fill(p.opt.BlockSize); err != nil {
			return err
		}
		if p.tree.sizes[r.node.size] > 1 {
			h.Reset()
			for _, part := range r.parts {
				_, _ = h.Write(part) // never fails
			}
			r.hash = h.Sum64()
		}
		close(r.done)
	}
}

func (r *read) fill(blockSize int) error {
	f, err := openHost(r.node.path())
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	left := r.node.size
	for i, buf := range r.parts {
		want := int(min(left, int64(blockSize)))
		if r.parts[i], err = r.node.readBlock(f, buf, want, i == len(r.parts)-1); err != nil {
			return err
		}
		left -= int64(want)
	}
	return nil
}

// compress shrinks blocks in whatever order they become ready.
func (p *pipeline) compress(ctx context.Context, enc *zstd.Encoder) error {
	for {
		b, ok, err := receive(ctx, p.packs)
		if !ok {
			return err
		}
		if b.out == nil {
			b.out = make([]byte, 0, p.opt.BlockSize+1024)
		}
		b.out = enc.EncodeAll(b.raw, b.out[:0])
		if len(b.out) < len(b.raw) {
			b.stored, b.word = b.out, uint32(len(b.out))
		} else {
			b.stored, b.word = b.raw, uint32(len(b.raw))|blockRaw
		}
		b.ready <- struct{}{}
	}
}

// store writes blocks in the order in which they were placed.
func (p *pipeline) store(ctx context.Context) error {
	for {
		b, ok, err := receive(ctx, p.stores)
		if !ok {
			return err
		}
		if _, _, err := receive(ctx, b.ready); err != nil {
			return err
		}
		at := p.image.end
		if err := p.image.append(b.stored); err != nil {
			return err
		}
		p.stats.Blocks++
		if b.index < 0 {
			p.table = little.AppendUint64(p.table, uint64(at))
			p.table = little.AppendUint32(p.table, b.word)
			p.table = little.AppendUint32(p.table, 0)
		} else {
			if b.content.start == 0 {
				b.content.start = at
			}
			b.content.sizes[b.index] = b.word
		}
		if b.lent != nil {
			p.spare <- b.lent
			b.lent = nil
		}
		p.idle <- b
	}
}
