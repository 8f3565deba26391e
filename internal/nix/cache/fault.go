package cache

import (
	"errors"
	"fmt"
	"strings"
)

// FaultKind is what went wrong with an answer of a cache.
type FaultKind string

// The kinds of faults. The first group passes and is tried again with pauses;
// the second says that the cache is wrong: of those it has three, then it is
// not asked again.
const (
	Unreachable FaultKind = "unreachable" // no connection, or it broke before an answer
	Busy        FaultKind = "busy"        // a status that says: later
	Stalled     FaultKind = "stalled"     // next to no bytes for Options.StallTimeout
	CutOff      FaultKind = "cut off"     // fewer bytes than announced

	Refused     FaultKind = "refused"     // any other status, or a folder that cannot be read
	Redirected  FaultKind = "redirected"  // in a loop, too often, or to nowhere
	Encoded     FaultKind = "encoded"     // gzip and the like, which nobody asked for
	WrongRange  FaultKind = "wrong range" // other bytes than asked for
	WrongList   FaultKind = "wrong list"  // a closure list whose digest is another
	WrongInfo   FaultKind = "wrong info"  // a narinfo or nix-cache-info that is unreadable, or not the closure list's
	Unsigned    FaultKind = "unsigned"    // no valid signature of a trusted key
	WrongFile   FaultKind = "wrong file"  // a NAR in another form or of another length than told
	WrongBytes  FaultKind = "wrong bytes" // a NAR whose hash is not the closure list's
	TooLarge    FaultKind = "too large"   // more bytes than the closure list allows, or more memory to unpack
	Unsupported FaultKind = "unsupported" // a compression that we do not read
	missing     FaultKind = "not there"   // what was asked for is not in this cache
)

// passing says whether the way to the cache may be to blame.
func (k FaultKind) passing() bool {
	switch k {
	case Unreachable, Busy, Stalled, CutOff:
		return true
	}
	return false
}

// Fault is one thing that went wrong with a cache.
type Fault struct {
	Kind FaultKind
	// Err says what happened, with the file's name.
	Err error
}

func (f *Fault) Error() string { return fmt.Sprintf("%s: %v", f.Kind, f.Err) }

// Unwrap returns what happened.
func (f *Fault) Unwrap() error { return f.Err }

func faultf(kind FaultKind, format string, args ...any) *Fault {
	return &Fault{kind, fmt.Errorf(format, args...)}
}

// in returns the fault with the file's name before it.
func (f *Fault) in(file string) *Fault {
	return &Fault{f.Kind, fmt.Errorf("%s: %w", file, f.Err)}
}

// FaultCount is a kind of fault, how often a cache had it, and the last one.
type FaultCount struct {
	Fault

	Count int
}

// Report is what went wrong with one cache.
type Report struct {
	Cache  string
	Faults []FaultCount // one of each kind, in the order of their first time
	// Dropped says that the cache was not asked again.
	Dropped bool
}

// String is one clause of an error.
func (r Report) String() string {
	if len(r.Faults) == 0 {
		return r.Cache + ": no fault"
	}
	var parts []string
	for _, f := range r.Faults {
		times := ""
		if f.Count > 1 {
			times = fmt.Sprintf(" %d times, last", f.Count)
		}
		parts = append(parts, fmt.Sprintf("%s%s: %v", f.Kind, times, f.Err))
	}
	text := r.Cache + ": " + strings.Join(parts, ", ")
	if r.Dropped {
		text += " (not asked again)"
	}
	return text
}

// add counts a fault. Kinds are few, so the list is bounded.
func (r *Report) add(f Fault) {
	for i := range r.Faults {
		if r.Faults[i].Kind == f.Kind {
			r.Faults[i].Fault = f
			r.Faults[i].Count++
			return
		}
	}
	r.Faults = append(r.Faults, FaultCount{f, 1})
}

// Error says that no cache had a file in the form that was wanted, and what
// each of them did.
type Error struct {
	What    string // "closure list sha256-..." or a store path
	Cause   error
	Reports []Report
}

func (e *Error) Error() string {
	var said []string
	for _, r := range e.Reports {
		said = append(said, r.String())
	}
	text := fmt.Sprintf("fetch %s: %v", e.What, e.Cause)
	if len(said) > 0 {
		text += ": " + strings.Join(said, "; ")
	}
	return text
}

// Unwrap returns the cause: ErrNoCache or the context's.
func (e *Error) Unwrap() error { return e.Cause }

// ErrNoCache says that no cache is left to ask.
var ErrNoCache = errors.New("no cache has it in the form that the release names")
