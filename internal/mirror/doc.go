// Package mirror asks one HTTP server that holds copies of files, and gives what
// it does wrong a name. It is for those who have several such servers and know
// the right bytes by themselves: the mirrors of a netboot payload, the binary
// caches of a closure.
//
// It asks once. Which server comes first, who is asked again and when, what is
// read on from where, and whether the bytes are right is for its users, and so
// are the kinds of faults that only their files can have.
//
// The invariant: an Answer is about no other bytes than those that were asked
// for, or it is the whole file and says so; all else is a *Fault. Nothing else
// that a server says is believed, and sizes are kept as its word, not as a truth.
package mirror

import (
	"errors"
	"time"
)

// StallBytes in a user's time is the rate below which a request is stalled. How
// that time is measured is for the user: it depends on whether those who take
// the bytes may be slow.
const StallBytes = 16 << 10

// ErrStalled is the cause by which whoever measures ends a stalled request.
var ErrStalled = errors.New("next to no bytes came in time")

// TooSlow is the fault of a request that was ended after so long.
func TooSlow(limit time.Duration, err error) *Fault {
	return Faultf(Stalled, "less than %d bytes in %.0f s: %w", StallBytes, limit.Seconds(), err)
}

const (
	backoffFirst = 100 * time.Millisecond
	backoffMost  = 8 * time.Second
)

// Backoff is the pause after so many faults in a row, from 1. jitter, from 0 to
// 1, spreads those who had the same fault at the same time: the pause is between
// half of its length and one and a half.
func Backoff(faults int, jitter float64) time.Duration {
	d := min(backoffFirst<<min(faults-1, 10), backoffMost)
	return d/2 + time.Duration(jitter*float64(d))
}
