package stage1

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// signal wakes everybody who waits for a change. What changed is looked up
// again by who is woken; nothing is lost as long as C is taken before the look.
type signal struct {
	mu sync.Mutex
	ch chan struct{}
}

func newSignal() *signal { return &signal{ch: make(chan struct{})} }

// C is closed at the next Notify.
func (s *signal) C() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ch
}

// Notify wakes all who wait.
func (s *signal) Notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.ch)
	s.ch = make(chan struct{})
}

// pause waits for a change, a time or the end of the context, whatever is first.
func pause(ctx context.Context, changed <-chan struct{}, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-changed:
	case <-timer.C:
	}
}

// errNoAnswer is how bounded gives up.
var errNoAnswer = errors.New("it does not answer")

// bounded runs f, which may hang in a system call, and gives it up after the
// limit. A panic in f is an error.
func bounded[A, B any](limit time.Duration, f func() (A, B)) (A, B, error) {
	type result struct {
		a   A
		b   B
		err error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		r.err = guard(func() error { r.a, r.b = f(); return nil })
		done <- r
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.a, r.b, r.err
	case <-timer.C:
		var none result
		return none.a, none.b, fmt.Errorf("%w in %.0f s", errNoAnswer, limit.Seconds())
	}
}

// waitBounded waits for goroutines that may hang in a system call, and says
// whether all have ended.
func waitBounded(jobs *sync.WaitGroup, limit time.Duration) bool {
	ended := make(chan struct{})
	go func() {
		jobs.Wait()
		close(ended)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ended:
		return true
	case <-timer.C:
		return false
	}
}
