// Package activate makes a system the running one: it runs the system's
// switch-to-configuration in a transient unit of its own and says what came of
// it, and it tells beforehand whether that can be enough.
//
// It decides nothing beyond that: what follows from an outcome is the applier's.
// The invariant is that a switch outlives whoever started it. The unit and its
// result stay until Done, so an applier that was restarted in the middle joins
// the same switch instead of starting another.
//
// Of the exit codes only 0 (done) and 100 (a reboot is needed) say what they
// mean. The program also ends with numbers of operating system errors (11 for a
// lock that is taken, by its Rust implementation), so every other end is judged
// by the state of the units, and is a failure unless that explains it away.
package activate

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/unit"
)

// SwitchUnit is the unit that a switch runs in. No switch touches it: it is no
// unit of /etc/systemd/system.
const SwitchUnit = "xnode-switch.service"

// program is where a system of the NixOS contract has it.
const program = "bin/switch-to-configuration"

// switch-to-configuration's codes that have a meaning of their own.
const (
	exitReboot = 100 // done as far as possible
	exitUnits  = 4   // done, and a unit failed; or it was interrupted (EINTR)
)

// What Switch may answer, for errors.Is.
var (
	// ErrBusy: somebody else switches now; nothing was started. Try later.
	ErrBusy = errors.New("another switch is at work")
	// ErrBootOnly: the system has no switch-to-configuration and can only be
	// booted.
	ErrBootOnly = errors.New("the system can only be booted")
)

// Units is systemd.
type Units interface {
	// Start fails with unit.ErrExists if a unit of this name is there.
	Start(context.Context, unit.Service) error
	// Wait waits for the end of a unit. A unit that is not there is State Gone.
	Wait(ctx context.Context, name string) (unit.Result, error)
	Result(ctx context.Context, name string) (unit.Result, error)
	Kill(ctx context.Context, name string, signal syscall.Signal) error
	// Forget ends a unit if it runs, and its result. No unit is no error.
	Forget(ctx context.Context, name string) error
	Failed(context.Context) ([]unit.Failed, error)
}

// Activator switches this machine.
type Activator struct {
	Units Units
	// Root is where the file system of the machine begins; empty means "/".
	Root string
}

// Request says what to switch to.
type Request struct {
	// System is the toplevel, a store path.
	System nix.StorePath
	// Limit ends a switch that hangs, with all its processes.
	Limit time.Duration
	// Failing are the units that failed before, which are not this switch's fault.
	Failing []unit.Failed
}

// Verdict is what came of a switch.
type Verdict string

// Verdicts.
const (
	// Activated: it says it is done, and the system is the current one. Also
	// where it complains of units that failed before already, and of no other:
	// a machine with such a unit must not be kept from every release.
	Activated Verdict = "activated"
	// NeedsReboot: done as far as possible; only a reboot finishes it, and only
	// a reboot goes back.
	NeedsReboot Verdict = "needs reboot"
	// Failed: anything else; the machine may be anywhere between two systems.
	Failed Verdict = "failed"
	// Refused: it did not begin, because somebody else held the lock. Not the
	// system's fault.
	Refused Verdict = "refused"
)

// Outcome is the end of a switch.
type Outcome struct {
	Verdict Verdict
	// Why is for people; empty if Activated without complaint.
	Why    string
	Result unit.Result
	// Failed are the units that fail now and are not in Request.Failing.
	Failed []unit.Failed
	// Current is the current system afterwards; empty if there is none.
	Current string
}

// Switch runs the system's switch-to-configuration test, or joins a switch to
// the same system that runs or has ended since the last Done, and waits for its
// end. The error is ErrBusy, ErrBootOnly, the context's or systemd's; a switch
// that ran has an Outcome instead.
func (a Activator) Switch(ctx context.Context, r Request) (Outcome, error) {
	outcome, err := a.doSwitch(ctx, r)
	if err != nil {
		return outcome, fmt.Errorf("switch to %q: %w", r.System, err)
	}
	return outcome, nil
}

func (a Activator) doSwitch(ctx context.Context, r Request) (Outcome, error) {
	if _, err := nix.ParseStorePath(string(r.System)); err != nil {
		return Outcome{}, err
	}
	bootOnly, err := BootOnly(a.Root, string(r.System))
	if err != nil {
		return Outcome{}, err
	}
	if bootOnly {
		return Outcome{}, ErrBootOnly
	}
	if err := a.begin(ctx, r); err != nil {
		return Outcome{}, err
	}
	result, err := a.Units.Wait(ctx, SwitchUnit)
	if err != nil {
		return Outcome{}, err
	}
	return a.conclude(ctx, r, result)
}

// begin starts the switch unless it was started before.
func (a Activator) begin(ctx context.Context, r Request) error {
	system, result, err := a.Running(ctx)
	switch {
	case err != nil:
		return err
	case result.State != unit.Gone && system == string(r.System):
		return nil
	case result.State == unit.Running:
		return fmt.Errorf("%w: to %q", ErrBusy, system)
	case result.State == unit.Ended:
		// Its outcome was for a transaction that is over.
		if err := a.Done(ctx); err != nil {
			return err
		}
	}
	locked, err := Locked(a.Root)
	if err != nil {
		return err
	}
	if locked {
		return fmt.Errorf("%w: it holds %q", ErrBusy, lockFile)
	}
	err = a.Units.Start(ctx, unit.Service{
		Name:        SwitchUnit,
		Description: "Switch to " + string(r.System),
		Argv:        command(r.System),
		RuntimeMax:  r.Limit,
	})
	if errors.Is(err, unit.ErrExists) {
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}

func command(system nix.StorePath) []string {
	return []string{filepath.Join(string(system), program), "test"}
}

// conclude looks at what the switch left behind.
func (a Activator) conclude(ctx context.Context, r Request, result unit.Result) (Outcome, error) {
	failing, err := a.Units.Failed(ctx)
	if err != nil {
		return Outcome{}, err
	}
	locked, err := Locked(a.Root)
	if err != nil {
		return Outcome{}, err
	}
	current, err := Current(a.Root)
	if err != nil {
		return Outcome{}, err
	}
	return Judge(result, string(r.System), current, Lock(locked), failingOf(r.Failing, failing)), nil
}

func withoutUnit(list []unit.Failed, name string) []unit.Failed {
	var rest []unit.Failed
	for _, f := range list {
		if f.Name != name {
			rest = append(rest, f)
		}
	}
	return rest
}

// Failing are the units that fail after a switch: those that did before, and
// those that did not.
type Failing struct{ Old, New []unit.Failed }

// failingOf compares two lists, and leaves the switch's own unit out.
func failingOf(before, now []unit.Failed) Failing {
	now = withoutUnit(now, SwitchUnit)
	fresh := unit.Newly(before, now)
	return Failing{Old: unit.Newly(fresh, now), New: fresh}
}

// Lock says whether somebody held the lock when the switch had ended.
type Lock bool

// Judge says what the end of a switch to system means. It looks at nothing but
// its arguments.
func Judge(result unit.Result, system, current string, lock Lock, units Failing) Outcome {
	failed := units.New
	o := Outcome{Verdict: Failed, Result: result, Failed: failed, Current: current}
	moved := current == system
	switch {
	case result.Success() && moved:
		o.Verdict = Activated
	case result.Success():
		o.Why = fmt.Sprintf("it says it is done, but the current system is %q", current)
	case result.State != unit.Ended:
		o.Why = fmt.Sprintf("its unit %s was stopped by somebody", SwitchUnit)
	case result.ExitCode == exitReboot && result.Reason == "exit-code":
		o.Verdict = NeedsReboot
		o.Why = "a reboot is needed to start this system"
	case result.ExitCode == exitUnits && result.Reason == "exit-code" && moved && len(failed) == 0 && len(units.Old) > 0:
		o.Verdict = Activated
		o.Why = "failed before and still: " + names(units.Old)
	case bool(lock) && !moved && result.ExitCode > 0 && len(failed) == 0:
		o.Verdict = Refused
		o.Why = fmt.Sprintf("%s while somebody else holds %q", result, lockFile)
	default:
		o.Why = explain(result, moved, failed)
	}
	return o
}

func explain(result unit.Result, moved bool, failed []unit.Failed) string {
	text := result.String()
	if result.Reason == "timeout" {
		text = "it did not end in time"
	}
	if !moved {
		text += "; it was not activated"
	}
	if len(failed) > 0 {
		text += "; failed since: " + names(failed)
	}
	return text
}

func names(list []unit.Failed) string {
	words := make([]string, len(list))
	for i, f := range list {
		words[i] = f.Name
	}
	return strings.Join(words, ", ")
}

// Running says which system the switch unit is about, and how it is. The system
// is empty if there is no such unit.
func (a Activator) Running(ctx context.Context) (string, unit.Result, error) {
	result, err := a.Units.Result(ctx, SwitchUnit)
	if err != nil || result.State == unit.Gone || len(result.Argv) == 0 {
		return "", result, err
	}
	return strings.TrimSuffix(result.Argv[0], "/"+program), result, nil
}

// Done forgets the switch, after its outcome was written down.
func (a Activator) Done(ctx context.Context) error { return a.Units.Forget(ctx, SwitchUnit) }

// Abort ends a switch that hangs, with all its processes, and forgets it.
func (a Activator) Abort(ctx context.Context) error {
	// Not by SIGTERM first: what hangs may ignore it, and a shell that is ended
	// politely may go on with its next line.
	return errors.Join(a.Units.Kill(ctx, SwitchUnit, syscall.SIGKILL), a.Done(ctx))
}
