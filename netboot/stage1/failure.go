package stage1

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
)

// StepError is a failure that ends the first stage: the step that failed, why,
// and what a person can do about it.
type StepError struct {
	Step   string
	Cause  error
	Remedy string
}

// Error is the text of the console line after "error: ".
func (e *StepError) Error() string {
	if e.Remedy == "" {
		return fmt.Sprintf("%s: %v", e.Step, e.Cause)
	}
	return fmt.Sprintf("%s: %v; %s", e.Step, e.Cause, e.Remedy)
}

// Unwrap returns the cause.
func (e *StepError) Unwrap() error { return e.Cause }

func stepError(step string, cause error, remedy string) error {
	if cause == nil {
		return nil
	}
	return &StepError{Step: step, Cause: cause, Remedy: remedy}
}

// errPanic is in the chain of an error that was a Go panic.
var errPanic = errors.New("BUG: panic")

// guard runs f and turns a panic into an error: PID 1 must say what happened and
// reboot, as after any other failure. A panic in a goroutine of a library cannot
// be caught and ends in a kernel panic, which reboots as well (panic=).
func guard(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("%w: %v\n%s", errPanic, r, strings.TrimSpace(string(debug.Stack())))
		}
	}()
	return f()
}
