package announce

import (
	"fmt"
	"time"

	"xnodeos.org/internal/trust"
)

// Order is how a record stands to the newest one that was accepted.
type Order int

const (
	// Newer is what a node acts on.
	Newer Order = iota
	// Same is the record that was accepted.
	Same
	// Replay is older than what was accepted.
	Replay
	// Equivocation contradicts what was accepted: one number for two things.
	// It is signed, so a key or its owner is at fault: worth an alarm.
	Equivocation
	// Jump skips more than MaxJump numbers.
	Jump
)

func (o Order) String() string {
	switch o {
	case Newer:
		return "newer"
	case Same:
		return "same"
	case Replay:
		return "replay"
	case Equivocation:
		return "equivocation"
	case Jump:
		return "jump"
	}
	return fmt.Sprintf("Order(%d)", int(o))
}

// Compare orders got by (Sequence, Published) behind have, the newest accepted
// record; nil before the first one. Both are taken as verified. Have may lack
// its text where only the two numbers were kept: then what the text would
// contradict is not seen.
func Compare(have, got *Record) Order {
	if have == nil {
		return Newer
	}
	known := have.text != ""
	switch {
	case got.Sequence < have.Sequence:
		return Replay
	case got.Sequence > have.Sequence:
		if got.Sequence-have.Sequence > MaxJump {
			return Jump
		}
		return Newer
	case known && (got.Commit != have.Commit || got.Digest != have.Digest):
		return Equivocation
	case got.Published < have.Published:
		return Replay
	case got.Published > have.Published:
		return Newer
	case known && got.text != have.text:
		return Equivocation
	}
	return Same
}

// OrderError is a verified record that must not be accepted because of what
// was accepted before.
type OrderError struct {
	Order     Order
	Have, Got *Record
}

func (e *OrderError) Error() string {
	what := map[Order]string{
		Replay:       "it is older than what was accepted",
		Equivocation: "it contradicts what was accepted: somebody signed two records with one number",
		Jump:         fmt.Sprintf("it skips more than %d numbers", MaxJump),
	}[e.Order]
	return fmt.Sprintf("%s: %s; accepted is %s; publish a record with the next sequence, or the same release with a later time", e.Got, what, e.Have)
}

// BelowError is a record below the sequence that trust.json or a manifest sets.
type BelowError struct {
	Sequence, Min uint32
}

func (e *BelowError) Error() string {
	return fmt.Sprintf("sequence %d is below %d, the least that counts; publish a release with a higher one", e.Sequence, e.Min)
}

// Admit says whether a verified record may take the place of have: it is Newer
// or Same, and not below min. The errors are *OrderError and *BelowError.
func Admit(have *Record, min uint32, got *Record) (Order, error) {
	order := Compare(have, got)
	if order != Newer && order != Same {
		return order, &OrderError{order, have, got}
	}
	if got.Sequence < min {
		return order, &BelowError{got.Sequence, min}
	}
	return order, nil
}

// Clock is what a node knows about the time.
type Clock struct {
	// Now is the machine's clock.
	Now time.Time
	// Floor is a time that has certainly passed.
	Floor time.Time
	// Synchronised says that Now was set by a time server.
	Synchronised bool
}

// Time is the later of Now and Floor: dates are judged against it.
func (c Clock) Time() time.Time {
	if c.Floor.After(c.Now) {
		return c.Floor
	}
	return c.Now
}

// ExpiredError is a record past its time. The node keeps what runs.
type ExpiredError struct{ Expires, Now time.Time }

func (e *ExpiredError) Error() string {
	return fmt.Sprintf("it expired at %s, and it is %s; publish it again with: xnodeos release --refresh",
		e.Expires.UTC().Format(time.RFC3339), e.Now.UTC().Format(time.RFC3339))
}

// FutureError is a record from more than MaxAhead ahead of a clock that is
// right.
type FutureError struct{ Published, Now time.Time }

func (e *FutureError) Error() string {
	return fmt.Sprintf("it says it was published at %s, and it is %s; set the clock of the machine that signs",
		e.Published.UTC().Format(time.RFC3339), e.Now.UTC().Format(time.RFC3339))
}

// KeyDateError is a record by a key outside its own dates.
type KeyDateError struct {
	Signer trust.Signer
	Now    time.Time
}

func (e *KeyDateError) Error() string {
	return fmt.Sprintf("signed by the key %s, which is not valid at %s; sign with another one", &e.Signer, e.Now.UTC().Format(time.RFC3339))
}

// Fresh judges the dates of a verified record, and those of its key unless
// signer is nil. A node that knows its clock to be wrong cannot tell the
// future: only a synchronised one refuses it. The errors are *ExpiredError,
// *FutureError and *KeyDateError; all mean no news.
func (r *Record) Fresh(signer *trust.Signer, c Clock) error {
	now, published, expires := c.Time(), time.Unix(r.Published, 0), time.Unix(r.Expires, 0)
	if now.After(expires) {
		return &ExpiredError{expires, now}
	}
	if c.Synchronised && published.Sub(now) > MaxAhead {
		return &FutureError{published, now}
	}
	if signer != nil && !signer.ValidAt(now) {
		return &KeyDateError{*signer, now}
	}
	return nil
}

// Floor returns the floor to keep after a record was accepted: raised to its
// Published by a synchronised clock only. An unsynchronised one cannot say
// that Published has passed, and a floor never goes back.
func (r *Record) Floor(c Clock) time.Time {
	if published := time.Unix(r.Published, 0); c.Synchronised && published.After(c.Floor) && published.Sub(c.Now) <= MaxAhead {
		return published
	}
	return c.Floor
}
