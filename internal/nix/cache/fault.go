package cache

import (
	"errors"

	"xnodeos.org/internal/mirror"
)

// The kinds of faults that only a binary cache can have, beside those of package
// mirror. None of them passes: of those that do not, a cache has three, then it
// is not asked again.
const (
	WrongList   mirror.FaultKind = "wrong list"  // a closure list whose digest is another
	WrongInfo   mirror.FaultKind = "wrong info"  // a narinfo or nix-cache-info that is unreadable, or not the closure list's
	Unsigned    mirror.FaultKind = "unsigned"    // no valid signature of a trusted key
	TooLarge    mirror.FaultKind = "too large"   // more bytes than the closure list allows, or more memory to unpack
	Unsupported mirror.FaultKind = "unsupported" // a compression that we do not read
	missing     mirror.FaultKind = "not there"   // what was asked for is not in this cache
)

// Error says that no cache had a file in the form that was wanted, and what
// each of them did.
type Error struct {
	What    string // "closure list sha256-..." or a store path
	Cause   error
	Reports []mirror.Report
}

func (e *Error) Error() string { return "fetch " + e.What + ": " + mirror.Explain(e.Cause, e.Reports) }

// Unwrap returns the cause: ErrNoCache or the context's.
func (e *Error) Unwrap() error { return e.Cause }

// ErrNoCache says that no cache is left to ask.
var ErrNoCache = errors.New("no cache has it in the form that the release names")
