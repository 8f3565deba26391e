package stage1

import (
	"fmt"
	"sync"
	"time"
)

// Phase is a part of the first stage that is timed apart from the rest.
type Phase int

// The phases, the one that counts first. Where two run at the same moment, that
// moment belongs to the first of them, so that the parts and the rest always add
// up to the whole.
const (
	PhaseVerify Phase = iota
	PhaseFetch
	PhaseModules
	PhasePrepareRoot
	PhaseDHCP
	// PhaseDevices is the wait for hardware whose driver is there: a USB stick
	// that the kernel gives a second to settle. It is a part of the rest.
	PhaseDevices
	phaseCount
)

// Stopwatch divides the time of the first stage among the phases that were under
// way. It may be used from several goroutines.
type Stopwatch struct {
	clock func() time.Duration

	mu     sync.Mutex
	start  time.Duration
	last   time.Duration
	active [phaseCount]int
	spent  [phaseCount]time.Duration
}

// NewStopwatch starts to count at the clock's present time.
func NewStopwatch(clock func() time.Duration) *Stopwatch {
	now := clock()
	return &Stopwatch{clock: clock, start: now, last: now}
}

// Begin says that a phase is under way until the returned function is called,
// once.
func (s *Stopwatch) Begin(p Phase) (end func()) {
	s.change(p, 1)
	return func() { s.change(p, -1) }
}

func (s *Stopwatch) change(p Phase, by int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	s.active[p] += by
}

// settle gives the time since the last change to the first phase under way.
func (s *Stopwatch) settle() {
	now := s.clock()
	for p, n := range s.active {
		if n > 0 {
			s.spent[p] += now - s.last
			break
		}
	}
	s.last = now
}

// Times is how long the first stage took, and its parts. Devices is a part of
// Rest, the others add up to Total.
type Times struct {
	Total, Modules, DHCP, Fetch, Verify, PrepareRoot, Rest, Devices time.Duration
}

// Times returns what was counted up to now.
func (s *Stopwatch) Times() Times {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	t := Times{
		Total:       s.last - s.start,
		Modules:     s.spent[PhaseModules],
		DHCP:        s.spent[PhaseDHCP],
		Fetch:       s.spent[PhaseFetch],
		Verify:      s.spent[PhaseVerify],
		PrepareRoot: s.spent[PhasePrepareRoot],
		Devices:     s.spent[PhaseDevices],
	}
	t.Rest = t.Total - t.Modules - t.DHCP - t.Fetch - t.Verify - t.PrepareRoot
	return t
}

// String is the sum line of the console, without its prefix.
func (t Times) String() string {
	return fmt.Sprintf("first stage %.2f s (modules %.2f, dhcp %.2f, fetch %.2f, verify %.2f, prepare-root %.2f, rest %.2f)",
		t.Total.Seconds(), t.Modules.Seconds(), t.DHCP.Seconds(), t.Fetch.Seconds(), t.Verify.Seconds(),
		t.PrepareRoot.Seconds(), t.Rest.Seconds())
}
