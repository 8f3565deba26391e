package mirror

import (
	"fmt"
	"strings"
)

// FaultKind is what went wrong with an answer of a server. Users add kinds of
// their own.
type FaultKind string

// The kinds of faults that any server may have. Those of the first group pass
// and are worth another try after a pause; the second says that the server is wrong.
const (
	Unreachable FaultKind = "unreachable" // no connection, or it broke before an answer
	Busy        FaultKind = "busy"        // a status that says: later
	Stalled     FaultKind = "stalled"     // next to no bytes for the time that was set
	CutOff      FaultKind = "cut off"     // fewer bytes than announced

	Refused    FaultKind = "refused"     // any other status, or what cannot be asked for
	Redirected FaultKind = "redirected"  // in a loop, too often, or to nowhere
	Encoded    FaultKind = "encoded"     // gzip and the like, which nobody asked for
	WrongRange FaultKind = "wrong range" // other bytes than asked for
	WrongFile  FaultKind = "wrong file"  // of another length or form than told
	WrongBytes FaultKind = "wrong bytes" // whose hash is another
)

// Passing says whether the way to the server may be to blame.
func (k FaultKind) Passing() bool {
	switch k {
	case Unreachable, Busy, Stalled, CutOff:
		return true
	}
	return false
}

// Fault is one thing that went wrong with a server.
type Fault struct {
	Kind FaultKind
	// Err says what happened, with the place in the file or the file's name.
	Err error
}

func (f *Fault) Error() string { return fmt.Sprintf("%s: %v", f.Kind, f.Err) }

// Unwrap returns what happened.
func (f *Fault) Unwrap() error { return f.Err }

// Faultf makes a fault; format and args are those of fmt.Errorf.
func Faultf(kind FaultKind, format string, args ...any) *Fault {
	return &Fault{kind, fmt.Errorf(format, args...)}
}

// In returns the fault with the file's name before it.
func (f *Fault) In(file string) *Fault {
	return &Fault{f.Kind, fmt.Errorf("%s: %w", file, f.Err)}
}

// FaultCount is a kind of fault, how often a server had it, and the last one.
type FaultCount struct {
	Fault

	Count int
}

// Report is what went wrong with one server.
type Report struct {
	Server string       // its name, without secrets
	Faults []FaultCount // one of each kind, in the order of their first time
	// Dropped says that the server was not asked again.
	Dropped bool
}

// Add counts a fault. Kinds are few, so the list is bounded.
func (r *Report) Add(f Fault) {
	for i := range r.Faults {
		if r.Faults[i].Kind == f.Kind {
			r.Faults[i].Fault = f
			r.Faults[i].Count++
			return
		}
	}
	r.Faults = append(r.Faults, FaultCount{f, 1})
}

// String is one clause of an error.
func (r Report) String() string {
	if len(r.Faults) == 0 {
		return r.Server + ": no fault"
	}
	var parts []string
	for _, f := range r.Faults {
		times := ""
		if f.Count > 1 {
			times = fmt.Sprintf(" %d times, last", f.Count)
		}
		parts = append(parts, fmt.Sprintf("%s%s: %v", f.Kind, times, f.Err))
	}
	text := r.Server + ": " + strings.Join(parts, ", ")
	if r.Dropped {
		text += " (not asked again)"
	}
	return text
}

// Explain is the text of an error that ends the asking of all servers: its
// cause, then what each of them did.
func Explain(cause error, reports []Report) string {
	var said []string
	for _, r := range reports {
		said = append(said, r.String())
	}
	text := cause.Error()
	if len(said) > 0 {
		text += ": " + strings.Join(said, "; ")
	}
	return text
}
