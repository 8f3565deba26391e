package substitute

import (
	"context"
	"sync"

	"xnodeos.org/internal/nix/cache"
)

// mostAhead is how many narinfo files may be at hand that no worker took yet.
const mostAhead = 64

// lookahead asks the caches before a job's turn: first for its narinfo, then
// for its NAR, of which nothing is read yet. So the way to a far cache costs no
// time between two NARs, and a few workers are enough to fill the line.
type lookahead struct {
	run   *run
	jobs  []*job
	infos chan struct{} // a place for each narinfo at hand
	nars  chan struct{} // a place for each NAR that was asked for
}

func newLookahead(r *run, jobs []*job) *lookahead {
	return &lookahead{run: r, jobs: jobs, infos: make(chan struct{}, mostAhead), nars: make(chan struct{}, r.o.Parallel)}
}

// start ends when everything was asked for, or the context ends.
func (l *lookahead) start(ctx context.Context) error {
	var all sync.WaitGroup
	defer all.Wait()
	next := make(chan *job)
	for range min(l.run.o.Parallel, len(l.jobs)) {
		all.Go(func() {
			for j := range next {
				j.offer, j.err = l.run.set.Find(ctx, j.want, nil)
				close(j.offered)
			}
		})
	}
	all.Go(func() { l.prepare(ctx, &all) })
	defer close(next)
	for _, j := range l.jobs {
		if !place(ctx, l.infos) {
			return nil
		}
		select {
		case next <- j:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// prepare asks for NARs in the order of the jobs.
func (l *lookahead) prepare(ctx context.Context, all *sync.WaitGroup) {
	for _, j := range l.jobs {
		select {
		case <-j.offered:
		case <-ctx.Done():
			return
		}
		if !place(ctx, l.nars) {
			return
		}
		all.Go(func() {
			defer close(j.prepared)
			if j.err == nil {
				l.run.set.Prepare(ctx, j.offer)
			}
		})
	}
}

// place waits for a place and takes it.
func place(ctx context.Context, places chan<- struct{}) bool {
	select {
	case places <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// take waits for a job's offer.
func (l *lookahead) take(ctx context.Context, j *job) (*cache.Offer, error) {
	select {
	case <-j.prepared:
		<-l.infos
		<-l.nars
		return j.offer, j.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// close lets go of what nobody took. start must have ended.
func (l *lookahead) close() {
	for _, j := range l.jobs {
		if j.offer != nil {
			j.offer.Close()
		}
	}
}
