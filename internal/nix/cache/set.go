package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"xnodeos.org/internal/mirror"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/narinfo"
)

// Set is several caches that are asked in order, and what each of them did. It
// is for one run: a dropped cache is not asked again by this set. Its methods
// may be called from several goroutines.
type Set struct {
	o       Options
	members []*member
	memory  *semaphore.Weighted // windows of decompressors, bytes

	mu sync.Mutex // of the members' reports
}

type member struct {
	cache   *Cache
	report  mirror.Report
	strikes int
}

// NewSet makes a set of caches, the first to ask first.
func NewSet(caches []*Cache, o Options) *Set {
	o = o.withDefaults()
	s := &Set{o: o, memory: semaphore.NewWeighted(o.DecodeMemory)}
	for _, c := range caches {
		s.members = append(s.members, &member{cache: c, report: mirror.Report{Server: c.String()}})
	}
	return s
}

// Reports returns what each cache did wrong so far.
func (s *Set) Reports() []mirror.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []mirror.Report
	for _, m := range s.members {
		r := m.report
		r.Faults = append([]mirror.FaultCount(nil), r.Faults...)
		all = append(all, r)
	}
	return all
}

// blame writes a fault down and says whether the cache may be asked again.
func (s *Set) blame(m *member, f *mirror.Fault) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.report.Add(*f)
	if !f.Kind.Passing() && f.Kind != missing {
		if m.strikes++; m.strikes >= maxStrikes {
			m.report.Dropped = true
		}
	}
	if f.Kind != missing {
		s.o.OnFault(m.report.Server, *f)
	}
	return !m.report.Dropped
}

// drop ends a cache that does not answer.
func (s *Set) drop(m *member) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m.report.Dropped = true
}

// tries is how many faults in a row a cache may have: few while there is
// another one to ask.
func (s *Set) tries(m *member) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, other := range s.members {
		if other != m && !other.report.Dropped && !other.cache.local() {
			return min(s.o.Tries, triesWithOthers)
		}
	}
	return s.o.Tries
}

func (s *Set) dropped(m *member) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return m.report.Dropped
}

// noCache is the error when all were asked.
func (s *Set) noCache(ctx context.Context, what string) error {
	cause := context.Cause(ctx)
	if cause == nil {
		cause = ErrNoCache
	}
	return &Error{What: what, Cause: cause, Reports: s.Reports()}
}

// file reads a small file whole, with retries. The error is ErrNotFound, a
// *Fault that is already written down, or the context's.
func (s *Set) file(ctx context.Context, m *member, name string, limit int64) ([]byte, error) {
	r := s.stream(ctx, m, name, limit)
	defer r.Close()
	return io.ReadAll(r)
}

// ClosureList fetches the list of a digest. It is taken by the digest only.
func (s *Set) ClosureList(ctx context.Context, digest nix.Hash) (*nix.ClosureList, error) {
	for _, m := range s.members {
		if s.dropped(m) || ctx.Err() != nil {
			continue
		}
		name := ListName(digest)
		data, err := s.file(ctx, m, name, maxListSize)
		if err != nil {
			s.note(m, name, err)
			continue
		}
		if got := nix.HashOf(data); got != digest {
			s.blame(m, mirror.Faultf(WrongList, "%s: the digest of its %d bytes is %s", name, len(data), got))
			continue
		}
		list, err := nix.ParseClosureList(data)
		if err != nil { // the release names it: no other cache has a better one
			return nil, fmt.Errorf("closure list %s, which the release names: %w", digest, err)
		}
		return list, nil
	}
	return nil, s.noCache(ctx, "closure list "+digest.String())
}

// note writes down that a file is missing; real faults are written already.
func (s *Set) note(m *member, name string, err error) {
	if errors.Is(err, ErrNotFound) {
		s.blame(m, mirror.Faultf(missing, "%s", name))
	}
}

// An Offer is a narinfo that says of a path what the closure list says, and the
// cache that has it.
type Offer struct {
	Info *narinfo.Info
	from *member
	in   *stream // asked for already, see Set.Prepare
}

// Cache is the name of the cache that offers.
func (o *Offer) Cache() string { return o.from.cache.String() }

// Find returns the offer of the first cache that has the path; with after, of
// the first behind that one's cache. The error is an *Error.
func (s *Set) Find(ctx context.Context, want nix.PathInfo, after *Offer) (*Offer, error) {
	open := after == nil
	for _, m := range s.members {
		if !open {
			open = m == after.from
			continue
		}
		if s.dropped(m) || ctx.Err() != nil {
			continue
		}
		if info := s.ask(ctx, m, want); info != nil {
			return &Offer{Info: info, from: m}, nil
		}
	}
	return nil, s.noCache(ctx, want.Path)
}

// ask returns a cache's narinfo of a path if it is as it should be.
func (s *Set) ask(ctx context.Context, m *member, want nix.PathInfo) *narinfo.Info {
	name := narinfo.Name(nix.StorePath(want.Path))
	data, err := s.file(ctx, m, name, narinfo.MaxSize)
	if err != nil {
		s.note(m, name, err)
		return nil
	}
	info, err := narinfo.Parse(data)
	if err == nil {
		err = info.Matches(want)
	}
	if err != nil {
		s.blame(m, mirror.Faultf(WrongInfo, "%s: %w", name, err))
		return nil
	}
	if len(s.o.Keys) > 0 {
		if _, err := narinfo.Verify(want, info.Sigs, s.o.Keys); err != nil {
			s.blame(m, mirror.Faultf(Unsigned, "%s: %w", name, err))
			return nil
		}
	}
	switch info.Compression {
	case narinfo.None, narinfo.Zstd, narinfo.XZ:
		return info
	}
	s.blame(m, mirror.Faultf(Unsupported, "%s: compression %q; push with zstd, xz or none", name, info.Compression))
	return nil
}

// Refuse writes down that what an offer led to was wrong: for whoever hashed the NAR.
func (s *Set) Refuse(o *Offer, err error) {
	s.blame(o.from, &mirror.Fault{Kind: mirror.WrongBytes, Err: err})
}

// RefuseSignature writes down that the daemon did not take an offer's signatures.
func (s *Set) RefuseSignature(o *Offer, err error) {
	s.blame(o.from, &mirror.Fault{Kind: Unsigned, Err: err})
}

// sleep waits and says whether the context still lives.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
	return ctx.Err() == nil
}
