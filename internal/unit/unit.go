// Package unit has the words in which the agent's adapters talk about systemd
// units: what is started, and what came of it.
//
// It talks to nobody; agent/units does. An adapter that needs a unit started
// declares an interface with these types, because adapters may not import one
// another. Every type here is plain data.
package unit

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// What an adapter of systemd may answer, for errors.Is.
var (
	// ErrUnavailable: systemd cannot be reached. Its text has a remedy.
	ErrUnavailable = errors.New("systemd cannot be reached")
	// ErrExists: a unit of this name is there, running or ended.
	ErrExists = errors.New("the unit exists")
)

// Service is a transient service: one that lives in /run until it is stopped.
type Service struct {
	// Name is the unit's, as in "xnode-switch.service".
	Name string
	// Description is what systemctl shows.
	Description string
	// Argv is the program, by absolute path, and its arguments. systemd expands
	// nothing in it.
	Argv []string
	// Env are more variables, as in "NAME=value".
	Env []string

	// RuntimeMax ends the service, with all its processes, by Result "timeout";
	// 0 is no limit.
	RuntimeMax time.Duration
	// MemoryMax in bytes; beyond it the kernel ends it. 0 is no limit.
	MemoryMax uint64
	// TasksMax limits processes and threads; 0 is the manager's default.
	TasksMax uint64
	// Confinement is what it may do; the zero value is a plain root service.
	Confinement Confinement
}

// Confinement is how far a service is shut in.
type Confinement string

// Levels of confinement.
const (
	// Root runs as root and may do everything.
	Root Confinement = ""
	// Confined runs as a user that exists only while it does (DynamicUser=,
	// systemd.exec(5)): no new privileges, no devices, a read-only view of the
	// system, private /tmp.
	Confined Confinement = "confined"
)

// State is where a unit is in its life.
type State string

// States of a unit.
const (
	// Gone: systemd does not know it, or it has never run.
	Gone State = "gone"
	// Running: it starts, runs or stops, or a job for it waits.
	Running State = "running"
	// Ended: it came to its end and its result can be read.
	Ended State = "ended"
)

// Result is what became of a service. Only State is set unless it is Ended.
type Result struct {
	State State
	// Reason is systemd's word: "success", "exit-code", "signal", "timeout",
	// "core-dump", "watchdog", "oom-kill", "resources", "start-limit-hit"
	// (Result= of org.freedesktop.systemd1.Service).
	Reason string
	// ExitCode is that of the main process, -1 if it did not exit by itself.
	ExitCode int
	// Signal ended the main process; 0 if it exited by itself or never ran.
	Signal syscall.Signal
	// Argv is what was started: it tells whose unit this is.
	Argv []string
}

// Success says that the main process ran and exited with 0. A service that was
// ended by SIGTERM is a success to systemd, and none here.
func (r Result) Success() bool {
	return r.State == Ended && r.Reason == "success" && r.ExitCode == 0 && r.Signal == 0
}

// String is what a log or a person gets to read: "exit code 4",
// "signal 9 (killed)", "timeout".
func (r Result) String() string {
	switch {
	case r.State != Ended:
		return string(r.State)
	case r.Reason == "timeout" || r.Reason == "oom-kill" || r.Reason == "watchdog":
		return r.Reason
	case r.Signal != 0:
		return fmt.Sprintf("signal %d (%s)", int(r.Signal), r.Signal)
	case r.ExitCode >= 0:
		return fmt.Sprintf("exit code %d", r.ExitCode)
	default:
		return r.Reason
	}
}

// Alarm is a transient timer with the service that it starts, both named Name
// with ".timer" and ".service".
type Alarm struct {
	Name        string // without ending, as in "xnode-deadman"
	Description string
	After       time.Duration // from now, on the monotonic clock; exact to 1 s
	Argv        []string
	// RuntimeMax is the service's; 0 is no limit.
	RuntimeMax time.Duration
}

// AlarmState is where an alarm is in its life.
type AlarmState string

// States of an alarm.
const (
	AlarmGone  AlarmState = "gone"  // never armed, or disarmed, or over
	AlarmArmed AlarmState = "armed" // the timer runs
	AlarmFired AlarmState = "fired" // its service was started and runs or ended
)

// Failed is a unit that is not as it should be.
type Failed struct {
	Name string
	// How is systemd's word: "failed", or "auto-restart" for a service that
	// systemd keeps starting in vain.
	How string
}

// Newly returns what fails now and did not before, by name, sorted.
func Newly(before, now []Failed) []Failed {
	var fresh []Failed
	for _, f := range now {
		if !slices.ContainsFunc(before, func(b Failed) bool { return b.Name == f.Name }) {
			fresh = append(fresh, f)
		}
	}
	slices.SortFunc(fresh, func(a, b Failed) int { return cmp.Compare(a.Name, b.Name) })
	return fresh
}
