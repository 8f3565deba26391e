package follow

import (
	"context"
	"time"
)

const (
	// DefaultFloor is the least time between two lookups.
	DefaultFloor = 30 * time.Second
	// DefaultCeiling is the longest: what a back-off grows to, and what a TTL
	// counts for at most, or one lying answer could silence a node for years.
	DefaultCeiling = time.Hour
)

// Schedule says how long to wait between lookups. It has no clock.
type Schedule struct {
	// Floor and Ceiling bound the time before jitter; 0 means the defaults.
	Floor, Ceiling time.Duration
	// Planned is told how long Run waits before it looks again; may be nil.
	Planned func(wait time.Duration)
	// Random returns a number from 0 up to 1.
	Random func() float64

	faults int
}

// Answered returns the wait after an answer: its TTL, and up to half of that
// more, so that a fleet that was started together does not ask together.
func (s *Schedule) Answered(ttl time.Duration) time.Duration {
	s.faults = 0
	return s.jitter(ttl)
}

// Faulty returns the wait after no news: the floor, twice as long each time,
// up to the ceiling, with the same jitter.
func (s *Schedule) Faulty() time.Duration {
	floor, ceiling := s.bounds()
	wait := floor
	for range s.faults {
		if wait *= 2; wait >= ceiling {
			break
		}
	}
	if s.faults < 32 {
		s.faults++
	}
	return s.jitter(wait)
}

// Faults is the number of faults since the last answer, counted up to 32.
func (s *Schedule) Faults() int { return s.faults }

func (s *Schedule) jitter(base time.Duration) time.Duration {
	floor, ceiling := s.bounds()
	base = max(floor, min(base, ceiling))
	return base + time.Duration(s.Random()*0.5*float64(base))
}

func (s *Schedule) bounds() (floor, ceiling time.Duration) {
	floor, ceiling = s.Floor, s.Ceiling
	if floor <= 0 {
		floor = DefaultFloor
	}
	if ceiling <= 0 {
		ceiling = DefaultCeiling
	}
	return floor, max(floor, ceiling)
}

// Run calls look at once, then whenever the schedule or poll says so, until ctx
// ends. Look returns the TTL of the answer or why there was no news; what it
// finds it hands on itself. A poll while look runs counts when it is done. Run
// returns the cause of ctx.
func (s *Schedule) Run(ctx context.Context, poll <-chan struct{}, look func(context.Context) (time.Duration, error)) error {
	for {
		ttl, err := look(ctx)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		var wait time.Duration
		if err != nil {
			wait = s.Faulty()
		} else {
			wait = s.Answered(ttl)
		}
		if s.Planned != nil {
			s.Planned(wait)
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-poll:
			timer.Stop()
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}
