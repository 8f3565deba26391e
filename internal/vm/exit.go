package vm

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"xnodeos.org/internal/command"
)

// Cause is why QEMU ended.
type Cause string

// The causes.
const (
	PoweredOff Cause = "powered-off" // the guest switched itself off
	Reset      Cause = "reset"       // the guest rebooted, under ExitOnReboot
	Panicked   Cause = "panicked"    // the guest told QEMU that it panicked
	Stopped    Cause = "stopped"     // we ended QEMU
	Terminated Cause = "terminated"  // somebody else ended QEMU in good order
	Died       Cause = "died"        // a signal killed QEMU: no fault of the guest
	Refused    Cause = "refused"     // QEMU gave up: arguments, files, ports
)

// Exit is how QEMU ended.
type Exit struct {
	Cause  Cause
	Code   int            // of the process; -1 after a signal
	Signal syscall.Signal // for Died
	Stderr string         // the last of what QEMU itself said
	At     time.Duration  // since QEMU was started
}

// exitOf reads the error of the process (nil: it ended with code 0) together
// with the reason that QEMU gave for its end.
func exitOf(err error, reason string, at time.Duration) Exit {
	e := Exit{At: at}
	var failed *command.Error
	if errors.As(err, &failed) {
		e.Stderr = failed.Stderr
	}
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		e.Code = ended.ExitCode()
		if status, ok := ended.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			e.Cause, e.Signal = Died, status.Signal()
			return e
		}
	}
	switch {
	case e.Code != 0:
		e.Cause = Refused
	case err != nil: // the context ended it
		e.Cause = Stopped
	case strings.HasPrefix(reason, "host-"):
		e.Cause = Terminated
	case reason == "guest-reset":
		e.Cause = Reset
	case reason == "guest-panic":
		e.Cause = Panicked
	default:
		e.Cause = PoweredOff
	}
	return e
}

// String says it in words that fit behind a colon.
func (e Exit) String() string {
	var s string
	switch e.Cause {
	case PoweredOff:
		s = "the guest powered itself off"
	case Reset:
		s = "the guest reset itself"
	case Panicked:
		s = "the guest panicked"
	case Stopped:
		s = "the machine was stopped"
	case Terminated:
		s = "QEMU was ended from outside"
	case Died:
		s = fmt.Sprintf("QEMU died by signal %d (%s), which is no fault of the guest", int(e.Signal), e.Signal)
	default:
		s = fmt.Sprintf("QEMU gave up with code %d", e.Code)
	}
	s += fmt.Sprintf(" after %.1f s", e.At.Seconds())
	if e.Stderr != "" && (e.Cause == Died || e.Cause == Refused) {
		s += ": " + e.Stderr
	}
	return s
}
