package fetch

import (
	"context"
	"math"
	"time"

	"xnodeos.org/internal/mirror"
)

// claim is what a lane of a mirror does next: a try, a stream, or to wait for a
// change, at most for some time. The zero value means that there is nothing
// left to do for it.
type claim struct {
	try     *try
	stream  bool
	changed <-chan struct{}
	wait    time.Duration
}

// Bounds of racing a slow request near the end.
const (
	raceLook  = 250 * time.Millisecond // how often idle lanes look for one
	raceAfter = 250 * time.Millisecond // how long it had time
	raceGain  = 2                      // how many times faster the other would be
)

// claim gives a lane of the mirror its next work.
func (b *board) claim(m *member) claim {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.o.Clock()
	switch {
	case b.left == 0 || m.faults.Dropped:
		return claim{}
	case m.notBefore > now:
		return claim{changed: b.changed, wait: m.notBefore - now}
	case m.active >= b.quota(m, now):
		// A mirror whose pause is over takes lanes back without a change.
		return claim{changed: b.changed, wait: time.Second}
	case m.whole:
		if m.streaming {
			return claim{changed: b.changed, wait: time.Second}
		}
		m.active++
		m.streaming = true
		return claim{stream: true}
	}
	if t := b.pick(m, now); t != nil {
		m.active++
		return claim{try: t}
	}
	return claim{changed: b.changed, wait: raceLook}
}

// quota is how many requests a mirror may have: all together have Parallel, and
// those that rest after a fault have none.
func (b *board) quota(m *member, now time.Duration) int {
	if m.whole {
		return 1
	}
	live := 0
	for _, o := range b.mirrors {
		if o == m || !o.faults.Dropped && (o.active > 0 || o.notBefore <= now) {
			live++
		}
	}
	return (b.o.Parallel + live - 1) / live
}

// pick finds the chunk that serves the fetch best: one that was begun, then a
// fresh one, then one that another mirror is slow at.
func (b *board) pick(m *member, now time.Duration) *try {
	fresh := -1
	backwards := b.streams()
	for i := range b.chunks {
		c := &b.chunks[i]
		switch {
		case c.taken || len(c.tries) > 0 || !b.eligible(m, c):
		case c.saved != nil:
			p := c.saved
			c.saved = nil
			if c.solo && p.owner() != m {
				b.clear(p)
			}
			return b.start(m, i, p, now)
		case fresh < 0 || backwards:
			fresh = i
		}
	}
	if fresh >= 0 {
		if p := b.newPart(fresh, b.limit); p != nil {
			return b.start(m, fresh, p, now)
		}
		return nil
	}
	return b.race(m, now)
}

// streams says whether a mirror gives the whole file from its beginning: then
// the others begin at the end.
func (b *board) streams() bool {
	for _, m := range b.mirrors {
		if m.whole && !m.faults.Dropped {
			return true
		}
	}
	return false
}

// eligible says whether a mirror may be asked for a chunk: one that lied about
// it only if there is nobody else.
func (b *board) eligible(m *member, c *chunk) bool {
	if !c.liars[m] {
		return true
	}
	for _, o := range b.mirrors {
		if !o.faults.Dropped && !c.liars[o] {
			return false
		}
	}
	return true
}

func (b *board) start(m *member, i int, p *part, now time.Duration) *try {
	p.credit(m)
	t := &try{mirror: m, chunk: i, part: p, began: now, had: p.n, cancel: func(error) {}}
	b.chunks[i].tries = append(b.chunks[i].tries, t)
	return t
}

// race begins a second request for the chunk that would otherwise take longest,
// if this mirror is likely to be first. It goes on from what is there.
func (b *board) race(m *member, now time.Duration) *try {
	slowest, longest := -1, 0.0
	for i := range b.chunks {
		c := &b.chunks[i]
		if c.taken || len(c.tries) != 1 || c.tries[0].mirror == m || !b.eligible(m, c) {
			continue
		}
		t := c.tries[0]
		elapsed := (now - t.began).Seconds()
		if now-t.began < raceAfter {
			continue
		}
		remaining := float64(len(t.part.buf) - t.part.n)
		theirs := math.Inf(1)
		if got := t.part.n - t.had; got > 0 {
			theirs = remaining * elapsed / float64(got)
		}
		ours := elapsed
		if m.rate > 0 {
			ours = remaining / m.rate
		}
		if theirs > raceGain*ours && theirs > longest {
			slowest, longest = i, theirs
		}
	}
	if slowest < 0 {
		return nil
	}
	p := b.newPart(slowest, b.limit+2)
	if p == nil {
		return nil
	}
	c := &b.chunks[slowest]
	if other := c.tries[0].part; !c.solo {
		p.n = copy(p.buf, other.buf[:other.n])
		p.from = append(p.from, other.from...)
		p.hash.Write(p.buf[:p.n])
		b.bytes += int64(p.n)
	}
	return b.start(m, slowest, p, now)
}

// claimStream begins a try for chunk i, whose bytes come next in a stream, or
// returns nil if they are of no use.
func (b *board) claimStream(m *member, i int) *try {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &b.chunks[i]
	if c.taken || len(c.tries) > 1 || !b.eligible(m, c) {
		return nil
	}
	p := c.saved
	if p != nil {
		b.clear(p)
		c.saved = nil
	} else if p = b.newPart(i, b.limit+2); p == nil {
		if !b.evict() {
			return nil
		}
		p = b.newPart(i, b.limit+2)
	}
	return b.start(m, i, p, b.o.Clock())
}

// evict gives up the beginning of some chunk for its buffer.
func (b *board) evict() bool {
	for i := range b.chunks {
		if c := &b.chunks[i]; c.saved != nil {
			b.drop(c.saved)
			c.saved = nil
			return true
		}
	}
	return false
}

// end takes a try off its chunk. What it brought of an unfinished chunk is kept
// for the next one.
func (b *board) end(t *try) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &b.chunks[t.chunk]
	rest := c.tries[:0]
	for _, o := range c.tries {
		if o != t {
			rest = append(rest, o)
		}
	}
	c.tries = rest
	if !c.taken && t.part.n > 0 && c.saved == nil && len(c.tries) == 0 {
		c.saved = t.part
	} else {
		b.drop(t.part)
	}
	b.wake()
}

// release says that a request of the mirror has ended, with a fault or without,
// and how many bytes it brought.
func (b *board) release(m *member, gained int, fault *mirror.Fault) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.active--
	if gained >= mirror.StallBytes {
		m.inARow = 0
	}
	if fault != nil {
		b.fault(m, fault)
	}
	b.wake()
}

// setCancel lets a faster try end this one. It says whether that has happened
// before it began.
func (b *board) setCancel(t *try, cancel context.CancelCauseFunc) (lost bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t.cancel = cancel
	return b.chunks[t.chunk].taken
}

// beginWhole notes that the mirror ignores Range. It says whether this request
// is the one whose answer is read.
func (b *board) beginWhole(m *member) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.whole = true
	first := !m.streaming
	m.streaming = true
	return first
}

// endWhole says that no answer with the whole file is read any more. One that
// brought nothing must not begin again at once.
func (b *board) endWhole(m *member, futile bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.streaming = false
	if futile {
		m.notBefore = b.o.Clock() + mirror.Backoff(m.inARow+1, b.o.Jitter())
	}
}

// useful says whether a stream of the mirror may still bring something.
func (b *board) useful(m *member) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !m.faults.Dropped && b.left > 0
}

// firstOpen is the first chunk that nobody has, or -1.
func (b *board) firstOpen() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range b.chunks {
		if !b.chunks[i].taken {
			return i
		}
	}
	return -1
}

// skipped says that a stream brings bytes which are there already. They count
// as progress, because what follows them may be new; how often a stream may be
// in vain is bounded by strikes.
func (b *board) skipped() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bestAt = b.o.Clock()
}
