package vm

import (
	"context"
	"errors"
	"strings"
	"time"
)

// stillFor is how long an unfinished line must not change before it counts: a
// prompt has no line end, but half a line is not yet an answer.
const stillFor = 250 * time.Millisecond

// ExpectError says why a line was not seen.
type ExpectError struct {
	Patterns []Pattern
	Exit     *Exit // QEMU has ended
	Err      error // else: the context's
	Tail     []string
}

func (e *ExpectError) Error() string {
	names := make([]string, len(e.Patterns))
	for i, p := range e.Patterns {
		names[i] = p.String()
	}
	s := "wait for " + strings.Join(names, " or ") + " on the serial console: "
	switch {
	case e.Exit != nil:
		return s + e.Exit.String()
	case errors.Is(e.Err, context.DeadlineExceeded):
		return s + "not seen in time"
	default:
		return s + e.Err.Error()
	}
}

func (e *ExpectError) Unwrap() error { return e.Err }

// DiedBySignal tells whether QEMU itself broke, so that one more try is fair.
func (e *ExpectError) DiedBySignal() bool { return e.Exit != nil && e.Exit.Cause == Died }

// Expect waits for a line that matches p, also one that came before the call.
// It ends with ctx or with QEMU, whichever is first; then the error is an
// *ExpectError.
func (v *VM) Expect(ctx context.Context, p Pattern) (Line, error) {
	_, line, err := v.ExpectFrom(ctx, 0, p)
	return line, err
}

// ExpectFrom waits for the first line, counted from number n on, that matches
// any of the patterns, and also tells which one.
func (v *VM) ExpectFrom(ctx context.Context, n int, patterns ...Pattern) (int, Line, error) {
	for {
		ended := isClosed(v.done) // before the look: then nothing is missed
		which, line, partial, changed := v.console.look(n, patterns)
		if which >= 0 {
			return which, line, nil
		}
		if ended {
			exit := v.exit
			return -1, Line{}, &ExpectError{Patterns: patterns, Exit: &exit, Tail: v.Tail(20)}
		}
		if which = v.matchPartial(partial, patterns); which < 0 {
			select {
			case <-ctx.Done():
				return -1, Line{}, v.expectContext(ctx, patterns)
			case <-v.done:
			case <-changed:
			}
			continue
		}
		still := time.NewTimer(stillFor)
		select {
		case <-ctx.Done():
			still.Stop()
			return -1, Line{}, v.expectContext(ctx, patterns)
		case <-v.done:
		case <-changed:
		case <-still.C:
			partial.At = v.console.since()
			return which, partial, nil
		}
		still.Stop()
	}
}

func (v *VM) matchPartial(partial Line, patterns []Pattern) int {
	if partial.Text == "" {
		return -1
	}
	for i, p := range patterns {
		if p.match(partial.Text) {
			return i
		}
	}
	return -1
}

func (v *VM) expectContext(ctx context.Context, patterns []Pattern) error {
	return &ExpectError{Patterns: patterns, Err: ctx.Err(), Tail: v.Tail(20)}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
