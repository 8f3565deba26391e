// Package follow asks DNS for a fleet's announcement: the texts at one name,
// when to ask again, and nothing about what they mean.
//
// DNS is a hint channel. Whoever answers can hide news and cannot make any: the
// record is signed, and what checks it is package announce. So every fault is
// one thing, no news, with the reason of each server; and a fault is always
// bounded in time and bytes.
package follow

import (
	"fmt"
	"strings"
	"time"
)

// Answer is what one server said.
type Answer struct {
	// Texts are the TXT records, each with its strings joined, bytes as they
	// are in the record.
	Texts []string
	// TTL is how long the answer may be kept: the least of its records.
	TTL time.Duration
	// From is the server, "address:port", and over which protocol.
	From string
	// Secure says that the server claims to have validated the answer with
	// DNSSEC. It is worth what the way to the server is worth; for people.
	Secure bool
}

// Kind sorts faults.
type Kind string

// What can be wrong with an answer.
const (
	Network    Kind = "network"    // not reached, or the connection broke
	Silent     Kind = "silent"     // no answer in time
	NoName     Kind = "no name"    // NXDOMAIN
	NoText     Kind = "no text"    // the name is there and has no TXT record
	Failed     Kind = "failed"     // SERVFAIL, REFUSED and every other code
	Wrong      Kind = "wrong"      // another question, another id, no answer at all
	Malformed  Kind = "malformed"  // not a DNS message
	Oversized  Kind = "oversized"  // more bytes or records than allowed
	Loop       Kind = "loop"       // a chain of CNAMEs without end
	NoServer   Kind = "no server"  // there is nobody to ask
	NotOwner   Kind = "not owner"  // a name server that does not serve the zone
	Unsuitable Kind = "unsuitable" // the caller did not accept the answer
	BadName    Kind = "bad name"   // the name itself cannot be asked for
)

// Fault is why one server brought nothing.
type Fault struct {
	Server string // "address:port", "" where none was asked
	Kind   Kind
	Err    error
}

func (f *Fault) Error() string {
	if f.Server == "" {
		return fmt.Sprintf("%s: %v", f.Kind, f.Err)
	}
	return fmt.Sprintf("%s: %s: %v", f.Server, f.Kind, f.Err)
}

func (f *Fault) Unwrap() error { return f.Err }

// NoNewsError says that nobody brought anything. What runs goes on.
type NoNewsError struct {
	Name   string
	Faults []*Fault // in the order in which servers were asked
}

func (e *NoNewsError) Error() string {
	reasons := make([]string, len(e.Faults))
	for i, f := range e.Faults {
		reasons[i] = f.Error()
	}
	return fmt.Sprintf("no news from %q: %s", e.Name, strings.Join(reasons, "; "))
}

// Unwrap returns the faults.
func (e *NoNewsError) Unwrap() []error {
	errs := make([]error, len(e.Faults))
	for i, f := range e.Faults {
		errs[i] = f
	}
	return errs
}
