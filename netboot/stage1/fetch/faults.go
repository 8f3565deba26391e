package fetch

import (
	"errors"
	"fmt"

	"xnodeos.org/internal/mirror"
)

// The kinds of faults that only a mirror of a payload can have, beside those of
// package mirror.
const (
	BadManifest mirror.FaultKind = "bad manifest" // unsigned, not the pinned one, too old, too large, unreadable

	// Doubtful bytes had a wrong hash together with those of another mirror;
	// whose fault it was is not known yet. It counts for nothing.
	Doubtful mirror.FaultKind = "doubtful"
)

// plain says whether the mirror is to blame and not the way to it. Of those
// faults a mirror has three, then it is not asked again.
func plain(k mirror.FaultKind) bool { return !k.Passing() && k != Doubtful }

// Error is the end of a fetch that did not succeed: what each mirror did wrong.
type Error struct {
	What        string // "manifest.json" or "system.squashfs"
	Done, Total int64  // bytes that passed their check, and of all; 0 for a manifest
	Cause       error
	Mirrors     []mirror.Report
}

func (e *Error) Error() string {
	text := "fetch " + e.What
	if e.Total > 0 {
		text += fmt.Sprintf(" (%.1f of %.1f MB)", float64(e.Done)/1e6, float64(e.Total)/1e6)
	}
	return text + ": " + mirror.Explain(e.Cause, e.Mirrors)
}

// Unwrap returns the cause: ErrNoMirror, ErrNoProgress, the context's, or that
// of the sink.
func (e *Error) Unwrap() error { return e.Cause }

// Why a fetch ended.
var (
	ErrNoMirror   = errors.New("no mirror is left to ask")
	ErrNoProgress = errors.New("no mirror brought anything new")
)
