package squashfs

import (
	"context"
	"errors"
	"hash/maphash"
)

// place decides for each file, in order, whether it is already in the image,
// and cuts it into blocks if it is not.
func (p *pipeline) place(ctx context.Context) error {
	defer close(p.packs)
	defer close(p.stores)
	p.opt.Progress(0, p.tree.bytes)
	for {
		r, ok, err := receive(ctx, p.ordered)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if r.done != nil {
			if _, _, err := receive(ctx, r.done); err != nil {
				return err
			}
		}
		if r.parts == nil {
			err = p.placeLarge(ctx, r.node)
		} else {
			err = p.placeRead(ctx, r)
		}
		if err != nil {
			return err
		}
	}
	if p.open != nil {
		return p.flushFragment(ctx)
	}
	return nil
}

// placeRead places a file that is in memory: given so, or read ahead.
func (p *pipeline) placeRead(ctx context.Context, r *read) error {
	if r.node.inMemory {
		r.hash = maphash.Bytes(p.dups.seed, r.node.data)
		r.parts = nil
		for rest := r.node.data; len(rest) > 0; rest = rest[len(r.parts[len(r.parts)-1]):] {
			r.parts = append(r.parts, rest[:min(len(rest), p.opt.BlockSize)])
		}
	}
	known, err := p.known(r.node, r.hash)
	if err != nil {
		return err
	}
	for i, part := range r.parts {
		p.progress(int64(len(part)))
		lent := part
		if r.node.inMemory {
			lent = nil
		}
		if known || len(part) < p.opt.BlockSize || allZero(part) {
			if !known {
				if err := p.placePart(ctx, r.node.content, part); err != nil {
					return err
				}
			}
			if lent != nil {
				p.spare <- lent[:cap(lent)]
			}
			continue
		}
		b, err := p.take(ctx)
		if err != nil {
			return err
		}
		b.raw = part
		if lent != nil {
			b.lent = lent[:cap(lent)]
		}
		if err := p.dispatch(ctx, b, r.node.content, i); err != nil {
			return err
		}
	}
	return nil
}

// known reports whether n's content is in the image, and makes room for it in
// n if not.
func (p *pipeline) known(n *node, hash uint64) (bool, error) {
	if n.size > 0 && p.tree.sizes[n.size] > 1 {
		earlier, err := p.dups.find(n, hash)
		if err != nil {
			return false, err
		}
		if earlier != nil {
			n.content = earlier
			p.stats.Duplicates++
			p.stats.DuplicateBytes += n.size
			return true, nil
		}
		p.dups.add(n, hash)
	}
	n.content = p.newContent(n)
	return false, nil
}

// newContent returns the content of a file of which no block is placed yet.
func (p *pipeline) newContent(n *node) *content {
	return &content{fragment: noFragment, sizes: make([]uint32, n.size/int64(p.opt.BlockSize))}
}

// placePart places what does not become a block of its own: a block of zeros
// or a tail.
func (p *pipeline) placePart(ctx context.Context, c *content, part []byte) error {
	if len(part) == p.opt.BlockSize {
		c.sparse += uint64(len(part)) // its size word is 0 already
		return nil
	}
	if len(part) == 0 {
		return nil
	}
	if p.open != nil && len(p.open.raw)+len(part) > p.opt.BlockSize {
		if err := p.flushFragment(ctx); err != nil {
			return err
		}
	}
	if p.open == nil {
		b, err := p.takeWithBuffer(ctx)
		if err != nil {
			return err
		}
		p.open, b.raw = b, b.in[:0]
	}
	c.fragment, c.offset = p.fragments, uint32(len(p.open.raw))
	p.open.raw = append(p.open.raw, part...)
	return nil
}

func (p *pipeline) flushFragment(ctx context.Context) error {
	b := p.open
	p.open = nil
	p.fragments++
	return p.dispatch(ctx, b, nil, -1)
}

// placeLarge reads and places a file that is too large to be read ahead. Only
// if an earlier one has its size is it read twice, first for its hash.
func (p *pipeline) placeLarge(ctx context.Context, n *node) (err error) {
	var hash uint64
	if p.dups.large[n.size] {
		if hash, err = p.dups.hashOf(n); err != nil {
			return err
		}
		known, err := p.known(n, hash)
		if known {
			p.progress(n.size)
		}
		if known || err != nil {
			return err
		}
		_, err = p.stream(ctx, n)
		return err
	}
	p.dups.large[n.size] = true
	n.content = p.newContent(n)
	if hash, err = p.stream(ctx, n); err == nil {
		p.dups.add(n, hash)
	}
	return err
}

// stream reads n block by block into the image and returns its hash, if other
// files have its size.
func (p *pipeline) stream(ctx context.Context, n *node) (sum uint64, err error) {
	f, err := openHost(n.path())
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var h maphash.Hash
	h.SetSeed(p.dups.seed)
	shared := p.tree.sizes[n.size] > 1
	b, err := p.takeWithBuffer(ctx)
	if err != nil {
		return 0, err
	}
	size, hole := int64(p.opt.BlockSize), int64(0)
	for at := int64(0); at < n.size; at += size {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		want := min(size, n.size-at)
		part := b.in[:size] // all zeros, if a hole goes on
		if hole == 0 {
			if part, err = n.readBlock(f, b.in, int(want), at+want == n.size); err != nil {
				return 0, err
			}
		}
		if shared {
			_, _ = h.Write(part) // never fails
		}
		p.progress(want)
		switch {
		case hole > 0:
			hole -= size
			n.content.sparse += uint64(size)
		case want < size || allZero(part):
			if err := p.placePart(ctx, n.content, part); err != nil {
				return 0, err
			}
			if hole, err = f.skipHole(at+want, n.size-1, size); err != nil {
				return 0, err
			}
		default:
			b.raw = part
			if err := p.dispatch(ctx, b, n.content, int(at/size)); err != nil {
				return 0, err
			}
			if b, err = p.takeWithBuffer(ctx); err != nil {
				return 0, err
			}
		}
	}
	p.idle <- b
	return h.Sum64(), nil
}

// take returns an idle block.
func (p *pipeline) take(ctx context.Context) (*block, error) {
	b, _, err := receive(ctx, p.idle)
	return b, err
}

// takeWithBuffer returns an idle block with room for a block's bytes in b.in.
func (p *pipeline) takeWithBuffer(ctx context.Context) (*block, error) {
	b, err := p.take(ctx)
	if err == nil && b.in == nil {
		b.in = make([]byte, p.opt.BlockSize+1)
	}
	return b, err
}

// dispatch sends b to be compressed and stored as the block of c that index
// says, or as a fragment block.
func (p *pipeline) dispatch(ctx context.Context, b *block, c *content, index int) error {
	b.content, b.index = c, index
	if err := send(ctx, p.stores, b); err != nil {
		return err
	}
	return send(ctx, p.packs, b)
}

func (p *pipeline) progress(bytes int64) {
	p.done += bytes
	p.opt.Progress(p.done, p.tree.bytes)
}
