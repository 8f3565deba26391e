package fetch

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"slices"
	"sync"
	"time"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/mirror"
)

// board is what is known of the whole fetch: which chunk is where, and how each
// mirror does. Its lock is held for book-keeping only, never for a read.
type board struct {
	o       Options
	payload *manifest.Payload
	limit   int // of buffers in use for chunks; two more are for races and streams
	begun   time.Duration

	mu      sync.Mutex
	changed chan struct{} // closed at each change that may free somebody
	chunks  []chunk
	mirrors []*member
	buffers int      // that exist
	free    [][]byte // of them, those that nobody uses
	left    int      // chunks that are not in the sink yet
	done    int64    // bytes that passed their check
	bytes   int64    // bytes in unfinished parts
	best    int64    // the most that done and bytes ever came to
	bestAt  time.Duration
}

// chunk is one chunk of the payload.
type chunk struct {
	taken bool   // its bytes passed their check
	tries []*try // requests under way for it
	saved *part  // what a broken request left; another goes on from there
	// solo says that bytes of two mirrors had a wrong hash: from now on they are
	// not mixed, so that it shows whose were wrong.
	solo     bool
	suspects []suspect
	liars    map[*member]bool // whose bytes of this chunk were wrong
}

// part is the beginning of a chunk, with the hash of what is there.
type part struct {
	buf  []byte
	n    int
	hash hash.Hash
	from []segment
}

// segment says from which byte on the bytes of a part are a mirror's.
type segment struct {
	mirror *member
	start  int
}

// suspect is the hash of a mirror's bytes in a chunk that was wrong as a whole.
type suspect struct {
	mirror     *member
	start, end int
	sum        [sha256.Size]byte
}

// try is one request on its way for one chunk.
type try struct {
	mirror *member
	chunk  int
	part   *part
	began  time.Duration
	had    int // bytes of the part when it began
	cancel context.CancelCauseFunc
}

// member is what is known of one mirror.
type member struct {
	Mirror

	faults    mirror.Report
	strikes   int
	good      int // chunks
	inARow    int // faults without a byte between them
	notBefore time.Duration
	active    int     // requests
	whole     bool    // it answers Range with the whole file
	streaming bool    // one request reads the whole file
	rate      float64 // bytes per second of one request, over the last few chunks
}

func newBoard(p *manifest.Payload, mirrors []Mirror, o Options) *board {
	b := &board{o: o, payload: p, changed: make(chan struct{}), chunks: make([]chunk, len(p.Chunks)), left: len(p.Chunks)}
	b.limit = max(1, min(o.Parallel, int(maxBuffers/p.ChunkSize)-2))
	b.begun = o.Clock()
	b.bestAt = b.begun
	for _, m := range mirrors {
		b.mirrors = append(b.mirrors, &member{Mirror: m, faults: mirror.Report{Server: m.String()}})
	}
	return b
}

func (b *board) offset(i int) int64 { return int64(i) * b.payload.ChunkSize }

func (b *board) length(i int) int {
	return int(min(b.payload.ChunkSize, b.payload.Size-b.offset(i)))
}

// wake lets everybody who waits look again. The lock must be held.
func (b *board) wake() {
	close(b.changed)
	b.changed = make(chan struct{})
}

// newPart returns an empty part for chunk i, or nil if there are as many buffers
// in use as there may be.
func (b *board) newPart(i, limit int) *part {
	var buf []byte
	switch {
	case b.buffers-len(b.free) >= limit:
		return nil
	case len(b.free) > 0:
		buf, b.free = b.free[len(b.free)-1], b.free[:len(b.free)-1]
	default:
		buf = make([]byte, min(b.payload.ChunkSize, b.payload.Size))
		b.buffers++
	}
	return &part{buf: buf[:b.length(i)], hash: sha256.New()}
}

// drop gives the buffer of a part back.
func (b *board) drop(p *part) {
	b.bytes -= int64(p.n)
	b.free = append(b.free, p.buf[:cap(p.buf)])
	p.buf, p.n = nil, 0
}

// clear empties a part and keeps its buffer.
func (b *board) clear(p *part) {
	b.bytes -= int64(p.n)
	p.n, p.from = 0, nil
	p.hash.Reset()
}

// extend adds n bytes that lie in the buffer already, and hashed.
func (b *board) extend(p *part, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p.n += n
	b.bytes += int64(n)
	b.progress()
}

func (b *board) progress() {
	if sum := b.done + b.bytes; sum > b.best {
		b.best, b.bestAt = sum, b.o.Clock()
	}
}

// idle is how long nothing new has come.
func (b *board) idle() time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.o.Clock() - b.bestAt
}

// credit notes whose bytes come next. A mirror that gave none is forgotten.
func (p *part) credit(m *member) {
	if last := len(p.from) - 1; last >= 0 && p.from[last].start == p.n {
		p.from = p.from[:last]
	}
	if len(p.from) == 0 || p.from[len(p.from)-1].mirror != m {
		p.from = append(p.from, segment{m, p.n})
	}
}

// owner returns the only mirror of a part, or nil.
func (p *part) owner() *member {
	var only *member
	for _, s := range p.from {
		if only != nil && s.mirror != only {
			return nil
		}
		only = s.mirror
	}
	return only
}

// suspects hashes the bytes of each mirror apart.
func (p *part) suspects() []suspect {
	var list []suspect
	for i, s := range p.from {
		end := p.n
		if i+1 < len(p.from) {
			end = p.from[i+1].start
		}
		list = append(list, suspect{s.mirror, s.start, end, sha256.Sum256(p.buf[s.start:end])})
	}
	return list
}

// settle ends the try of a part that is whole. It returns what is wrong; if
// nothing is, write brings the bytes to where they belong.
func (b *board) settle(t *try, write func(buf []byte, offset int64) error) error {
	sum := hex.EncodeToString(t.part.hash.Sum(nil))
	b.mu.Lock()
	defer b.mu.Unlock()
	c := &b.chunks[t.chunk]
	if c.taken {
		return nil
	}
	want := b.payload.Chunks[t.chunk]
	if sum != want {
		b.wrong(t, sum)
		return nil
	}
	c.taken = true
	b.judge(c, t.part)
	b.reward(t)
	for _, other := range c.tries {
		if other != t {
			other.cancel(errLost)
		}
	}
	if c.saved != nil {
		b.drop(c.saved)
		c.saved = nil
	}
	part := t.part
	b.mu.Unlock()
	err := write(part.buf, b.offset(t.chunk))
	b.mu.Lock()
	if err != nil {
		return err
	}
	b.left--
	b.done += int64(part.n)
	b.bytes -= int64(part.n)
	part.n = 0
	b.progress()
	b.o.Progress(b.done)
	return nil
}

// reward notes that a mirror brought a good chunk.
func (b *board) reward(t *try) {
	m := t.mirror
	m.inARow = 0
	if m.good++; m.good%goodPerStrike == 0 && m.strikes > 0 {
		m.strikes--
	}
	if took := (b.o.Clock() - t.began).Seconds(); took > 0 {
		rate := float64(t.part.n-t.had) / took
		if m.rate > 0 {
			rate = (3*m.rate + rate) / 4
		}
		m.rate = rate
	}
}

// wrong finds out who is to blame for a chunk whose hash is wrong.
func (b *board) wrong(t *try, sum string) {
	c := &b.chunks[t.chunk]
	defer b.clear(t.part)
	if t.part.owner() != nil {
		b.lied(t.mirror, c, mirror.Faultf(mirror.WrongBytes, "chunk %d (bytes %d to %d) has sha256 %s, the manifest says %s", t.chunk,
			b.offset(t.chunk), b.offset(t.chunk)+int64(t.part.n)-1, sum, b.payload.Chunks[t.chunk]))
		return
	}
	c.solo = true
	c.suspects = t.part.suspects()
	var seen []*member
	for _, s := range c.suspects {
		if !slices.Contains(seen, s.mirror) {
			seen = append(seen, s.mirror)
			b.fault(s.mirror, mirror.Faultf(Doubtful, "chunk %d, of which it gave bytes %d to %d, has a wrong hash", t.chunk,
				b.offset(t.chunk)+int64(s.start), b.offset(t.chunk)+int64(s.end)-1))
		}
	}
}

// judge names those whose bytes differ from the right ones.
func (b *board) judge(c *chunk, right *part) {
	for _, s := range c.suspects {
		if sha256.Sum256(right.buf[s.start:s.end]) != s.sum {
			b.lied(s.mirror, c, mirror.Faultf(mirror.WrongBytes, "bytes %d to %d of a chunk are not those of its right copy", s.start, s.end-1))
		}
	}
	c.suspects = nil
}

func (b *board) lied(m *member, c *chunk, fault *mirror.Fault) {
	if c.liars == nil {
		c.liars = map[*member]bool{}
	}
	c.liars[m] = true
	b.fault(m, fault)
}

// fault writes a fault down and draws the consequences for the mirror.
func (b *board) fault(m *member, fault *mirror.Fault) {
	m.faults.Add(*fault)
	b.o.OnFault(m.Mirror, *fault)
	if fault.Kind == Doubtful {
		return
	}
	if plain(fault.Kind) {
		if m.strikes++; m.strikes >= maxStrikes {
			m.faults.Dropped = true
		}
	}
	m.inARow++
	m.notBefore = b.o.Clock()
	if m.inARow > 1 || fault.Kind != mirror.CutOff { // one cut is nothing: go on at once
		m.notBefore += mirror.Backoff(m.inARow, b.o.Jitter())
	}
}
