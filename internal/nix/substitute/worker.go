package substitute

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"

	"xnodeos.org/internal/mirror"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/cache"
	"xnodeos.org/internal/nix/daemon"
)

// maxRounds is how often all caches are asked for a NAR that came wrong.
const maxRounds = 3

// worker brings one path at a time over a connection of its own.
type worker struct {
	run    *run
	ahead  *lookahead
	conn   *daemon.Conn
	decode cache.Decoder
	bufs   [2][]byte
}

func (w *worker) close() {
	if w.conn != nil {
		w.conn.Close()
	}
	w.decode.Close()
}

// bring registers a path, from whichever cache has it right.
func (w *worker) bring(ctx context.Context, j *job) error {
	offer, err := w.ahead.take(ctx, j)
	if err != nil {
		return err
	}
	defer offer.Close()
	for round := 1; ; {
		next, err := w.try(ctx, j, offer)
		if err == nil {
			close(j.done)
			w.run.progress(1, 0)
			return nil
		}
		if next == nil {
			return err
		}
		if next.again { // the bytes before were another cache's, and wrong
			offer = next.offer
			continue
		}
		offer, err = w.run.set.Find(ctx, j.want, next.offer)
		if err != nil && round < maxRounds && context.Cause(ctx) == nil {
			round++
			offer, err = w.run.set.Find(ctx, j.want, nil)
		}
		if err != nil {
			return err
		}
	}
}

// retry says where to go on after a failure that is a cache's: with the caches
// behind the offer's, or with the offer itself again.
type retry struct {
	offer *cache.Offer
	again bool
}

// take is a NAR on its way from caches to the daemon. Its last bytes are held
// back until all of them are known to be right.
type take struct {
	add  *daemon.Add
	hash hash.Hash
	read int64  // bytes, all of them hashed
	held []byte // the last of them, not sent yet
	spot int    // the buffer that held is not in
}

// try runs one Add. With a nil retry the error is final.
func (w *worker) try(ctx context.Context, j *job, offer *cache.Offer) (*retry, error) {
	if w.conn == nil {
		conn, err := w.run.o.Connect(ctx)
		if err != nil {
			return nil, err
		}
		w.conn = conn
	}
	add, err := w.conn.Add(ctx, j.want, offer.Info.Sigs)
	if err != nil {
		return nil, err
	}
	t := &take{add: add, hash: sha256.New()}
	offer, kept, again, err := w.receive(ctx, j, t, offer)
	if kept != nil {
		defer kept.Abort()
	}
	if err == nil {
		err = w.finish(ctx, j, t, kept)
		var said *daemon.Error
		if errors.As(err, &said) && said.Unsigned() {
			w.run.set.RefuseSignature(offer, err)
			w.run.progress(0, -t.read)
			return &retry{offer: offer}, err
		}
		if err != nil {
			err = errors.Join(err, w.drop(add))
		}
		return nil, err
	}
	said := w.drop(add)
	w.run.progress(0, -t.read)
	if said != nil {
		return nil, said
	}
	if offer == nil || context.Cause(ctx) != nil {
		return nil, err
	}
	return &retry{offer: offer, again: again}, err
}

// drop cuts the connection of an Add that must not be registered.
func (w *worker) drop(add *daemon.Add) error {
	err := add.Abort()
	w.conn.Close()
	w.conn = nil
	return err
}

// receive reads the NAR up to its end and checks it. What one cache does not
// bring to its end, another continues, if what it has begins with the same bytes.
// It returns the last offer, nil if the error is not a cache's.
func (w *worker) receive(ctx context.Context, j *job, t *take, offer *cache.Offer) (last *cache.Offer, kept *cache.Kept, again bool, err error) {
	for {
		kept = w.keep(offer)
		err := w.read(ctx, t, offer, kept)
		var fault *mirror.Fault
		switch {
		case err == nil:
			if got := nix.Hash(t.hash.Sum(nil)); got != j.want.NarHash {
				err = fmt.Errorf("%s: its NAR hash is %s, the closure list says %s", offer.Info.URL, got, j.want.NarHash)
				w.run.set.Refuse(offer, err)
				return offer, kept, false, err
			}
			return offer, kept, false, nil
		case errors.Is(err, errOther):
			return offer, kept, true, err
		case !errors.As(err, &fault):
			return nil, kept, false, err
		}
		if kept != nil {
			kept.Abort()
		}
		next, findErr := w.run.set.Find(ctx, j.want, offer)
		if findErr != nil {
			return offer, nil, false, err
		}
		offer = next
	}
}

// keep begins to keep what an offer brings, unless it comes from there.
func (w *worker) keep(o *cache.Offer) *cache.Kept {
	k := w.run.keeper
	if k == nil || o.Cache() == k.Cache().String() {
		return nil
	}
	return k.Begin(o)
}

// errOther says that two caches have different bytes for the same path: one is
// wrong, and it takes one of them alone to find out which.
var errOther = errors.New("it begins with other bytes than another cache's")

// read passes a NAR on, from the byte on that the take has not yet.
func (w *worker) read(ctx context.Context, t *take, o *cache.Offer, kept *cache.Kept) error {
	var tee io.Writer
	if kept != nil {
		tee = kept
	}
	in := w.run.set.Open(ctx, o, &w.decode, tee)
	defer in.Close()
	if t.read > 0 {
		if err := w.skip(in, t); err != nil {
			return err
		}
	}
	for {
		if w.bufs[t.spot] == nil {
			w.bufs[t.spot] = make([]byte, daemon.FrameSize)
		}
		buf := w.bufs[t.spot]
		n, err := fill(in, buf)
		if n > 0 {
			if _, err := t.add.Write(t.held); err != nil {
				return err
			}
			t.hash.Write(buf[:n])
			t.read += int64(n)
			t.held, t.spot = buf[:n], 1-t.spot
			w.run.progress(0, int64(n))
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// fill reads until the buffer is full or something ends it.
func fill(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var got int
		got, err = r.Read(buf[n:])
		n += got
	}
	return n, err
}

// skip reads over what the take has already, and sees that it is the same.
func (w *worker) skip(in io.Reader, t *take) error {
	sum := sha256.New()
	if _, err := io.CopyN(sum, in, t.read); err != nil {
		return err
	}
	if !equalSums(sum, t.hash) {
		return errOther
	}
	return nil
}

func equalSums(a, b hash.Hash) bool { return string(a.Sum(nil)) == string(b.Sum(nil)) }

// finish waits for the references, then lets the daemon have the end.
func (w *worker) finish(ctx context.Context, j *job, t *take, kept *cache.Kept) error {
	for _, need := range j.needs {
		select {
		case <-need.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	if _, err := t.add.Write(t.held); err != nil {
		return err
	}
	if err := t.add.Commit(); err != nil {
		return err
	}
	if kept != nil {
		if err := kept.Commit(); err != nil {
			w.run.keepFailed(err)
		}
	}
	return nil
}
