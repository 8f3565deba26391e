package substitute

import (
	"container/heap"
	"fmt"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/cache"
)

// job is a path to bring.
type job struct {
	want  nix.PathInfo
	needs []*job        // missing references, without itself
	done  chan struct{} // closed when it is registered

	open    int    // needs that are not in the order yet
	needers []*job // inverse of needs

	offered  chan struct{} // closed when offer and err are set
	prepared chan struct{} // closed when the offer's NAR was asked for
	offer    *cache.Offer
	err      error
}

// order makes jobs of the missing paths such that references come before those
// who refer to them, and large ones early: the end is not one long download.
func order(missing []nix.PathInfo) ([]*job, error) {
	byPath := make(map[string]*job, len(missing))
	for _, want := range missing {
		byPath[want.Path] = &job{want: want, done: make(chan struct{}), offered: make(chan struct{}), prepared: make(chan struct{})}
	}
	ready := &bySize{}
	for _, want := range missing {
		j := byPath[want.Path]
		for _, ref := range want.References {
			if need := byPath[ref]; need != nil && need != j {
				j.needs = append(j.needs, need)
				need.needers = append(need.needers, j)
			}
		}
		if j.open = len(j.needs); j.open == 0 {
			heap.Push(ready, j)
		}
	}
	jobs := make([]*job, 0, len(missing))
	for ready.Len() > 0 {
		j := heap.Pop(ready).(*job) //nolint:errcheck // the heap holds nothing else
		jobs = append(jobs, j)
		for _, n := range j.needers {
			if n.open--; n.open == 0 {
				heap.Push(ready, n)
			}
		}
		j.needers = nil
	}
	if len(jobs) < len(missing) {
		return nil, fmt.Errorf("the closure list has a circle of references among %d paths; make the release anew", len(missing)-len(jobs))
	}
	return jobs, nil
}

// bySize is a heap with the largest NAR on top; names decide between equals.
type bySize []*job

func (h bySize) Len() int { return len(h) }
func (h bySize) Less(i, k int) bool {
	if h[i].want.NarSize != h[k].want.NarSize {
		return h[i].want.NarSize > h[k].want.NarSize
	}
	return h[i].want.Path < h[k].want.Path
}
func (h bySize) Swap(i, k int) { h[i], h[k] = h[k], h[i] }

// Push implements heap.Interface.
func (h *bySize) Push(x any) { *h = append(*h, x.(*job)) } //nolint:errcheck // as above

// Pop implements heap.Interface.
func (h *bySize) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}
