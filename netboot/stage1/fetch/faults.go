package fetch

import (
	"errors"
	"fmt"
	"strings"
)

// FaultKind is what went wrong with an answer of a mirror.
type FaultKind string

// The kinds of faults. The first group passes and is tried again with pauses;
// of the second a mirror has three, then it is not asked again.
const (
	Unreachable FaultKind = "unreachable" // no connection, or it broke before an answer
	Busy        FaultKind = "busy"        // a status that says: later
	Stalled     FaultKind = "stalled"     // next to no bytes for Options.StallTimeout
	CutOff      FaultKind = "cut off"     // fewer bytes than announced

	Refused     FaultKind = "refused"      // any other status
	Redirected  FaultKind = "redirected"   // in a loop, too often, or to nowhere
	Encoded     FaultKind = "encoded"      // gzip and the like, which nobody asked for
	WrongRange  FaultKind = "wrong range"  // other bytes than asked for
	WrongFile   FaultKind = "wrong file"   // of another length
	WrongBytes  FaultKind = "wrong bytes"  // whose hash is not the manifest's
	BadManifest FaultKind = "bad manifest" // unsigned, not the pinned one, too old, too large, unreadable

	// Doubtful bytes had a wrong hash together with those of another mirror;
	// whose fault it was is not known yet. It counts for nothing.
	Doubtful FaultKind = "doubtful"
)

// plain says whether the mirror is to blame and not the way to it.
func (k FaultKind) plain() bool {
	switch k {
	case Unreachable, Busy, Stalled, CutOff, Doubtful:
		return false
	}
	return true
}

// Fault is one thing that went wrong with a mirror.
type Fault struct {
	Kind FaultKind
	// Err says what happened, with the place in the file.
	Err error
}

func (f *Fault) Error() string { return fmt.Sprintf("%s: %v", f.Kind, f.Err) }

// Unwrap returns what happened.
func (f *Fault) Unwrap() error { return f.Err }

func faultf(kind FaultKind, format string, args ...any) *Fault {
	return &Fault{kind, fmt.Errorf(format, args...)}
}

// FaultCount is a kind of fault, how often a mirror had it, and the last one.
type FaultCount struct {
	Fault

	Count int
}

// MirrorFaults is what went wrong with one mirror.
type MirrorFaults struct {
	URL    string
	Faults []FaultCount // one of each kind, in the order of their first time
	// Dropped says that the mirror was not asked again.
	Dropped bool
}

// String is one clause of an error.
func (m MirrorFaults) String() string {
	if len(m.Faults) == 0 {
		return m.URL + ": no fault"
	}
	var parts []string
	for _, f := range m.Faults {
		times := ""
		if f.Count > 1 {
			times = fmt.Sprintf(" %d times, last", f.Count)
		}
		parts = append(parts, fmt.Sprintf("%s%s: %v", f.Kind, times, f.Err))
	}
	text := m.URL + ": " + strings.Join(parts, ", ")
	if m.Dropped {
		text += " (not asked again)"
	}
	return text
}

// add counts a fault. Kinds are few, so the list is bounded.
func (m *MirrorFaults) add(f Fault) {
	for i := range m.Faults {
		if m.Faults[i].Kind == f.Kind {
			m.Faults[i].Fault = f
			m.Faults[i].Count++
			return
		}
	}
	m.Faults = append(m.Faults, FaultCount{f, 1})
}

// Error is the end of a fetch that did not succeed: what each mirror did wrong.
type Error struct {
	What        string // "manifest.json" or "system.squashfs"
	Done, Total int64  // bytes that passed their check, and of all; 0 for a manifest
	Cause       error
	Mirrors     []MirrorFaults
}

func (e *Error) Error() string {
	text := "fetch " + e.What
	if e.Total > 0 {
		text += fmt.Sprintf(" (%.1f of %.1f MB)", float64(e.Done)/1e6, float64(e.Total)/1e6)
	}
	var said []string
	for _, m := range e.Mirrors {
		said = append(said, m.String())
	}
	return fmt.Sprintf("%s: %v: %s", text, e.Cause, strings.Join(said, "; "))
}

// Unwrap returns the cause: ErrNoMirror, ErrNoProgress, the context's, or that
// of the sink.
func (e *Error) Unwrap() error { return e.Cause }

// Why a fetch ended.
var (
	ErrNoMirror   = errors.New("no mirror is left to ask")
	ErrNoProgress = errors.New("no mirror brought anything new")
)
