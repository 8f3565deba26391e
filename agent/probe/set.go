// Package probe judges whether a system works on this node: is the agent the
// system's own, did units fail since, is there a way out, do names resolve, can
// the record be read, are the services ready, do the user's own checks pass.
//
// What is asked lies in probes.toml of the systems themselves. The set of a
// trial is the union of last-good's file and the candidate's, so that a release
// cannot ease its own exam. What was red before the trial and asked of
// last-good already is said but excused; a probe that only the candidate brings
// is never excused, because its service cannot have been there before.
//
// The package activates nothing and decides nothing about what follows. The
// invariant is that every probe ends: each has a deadline, reads a bounded
// number of bytes, and is red if it did not answer.
package probe

import (
	"cmp"
	"slices"
	"time"
)

// Kind is what a probe asks.
type Kind string

// Kinds of probes. All but KindReady and KindCommand are always asked.
const (
	KindAgent   Kind = "agent"   // the follower is the system's own program and answers
	KindUnits   Kind = "units"   // no unit fails that did not fail before
	KindRoute   Kind = "route"   // there is a default route over a link that works
	KindDNS     Kind = "dns"     // the follower's resolver answers
	KindRecord  Kind = "record"  // a record with a good signature can be read
	KindReady   Kind = "ready"   // a service says that it is ready
	KindCommand Kind = "command" // a command of the user ends with 0
)

// Probe is one question.
type Probe struct {
	Kind Kind
	// Name tells probes of one kind apart; empty for the kinds of which there
	// is one.
	Name     string
	Deadline time.Duration

	Ignore    []string // KindUnits: these may fail
	Socket    string   // KindReady: a unix socket
	Path      string   // KindReady: of the request
	Argv      []string // KindCommand
	MemoryMax uint64   // KindCommand, bytes

	// New: only the candidate asks this, so it is never excused.
	New bool
}

// ID names the probe in results: "route", "ready:shop".
func (p Probe) ID() string {
	if p.Name == "" {
		return string(p.Kind)
	}
	return string(p.Kind) + ":" + p.Name
}

// Set is a file of probes.
type Set []Probe

// Default is the set of a system without probes.toml.
func Default() Set {
	return Set{
		{Kind: KindAgent, Deadline: 30 * time.Second},
		{Kind: KindUnits, Deadline: 30 * time.Second},
		{Kind: KindRoute, Deadline: 10 * time.Second},
		{Kind: KindDNS, Deadline: 30 * time.Second},
		{Kind: KindRecord, Deadline: 30 * time.Second},
	}
}

// newMark follows the name of a candidate's probe whose name last-good uses for
// another question.
const newMark = "-new"

// Union joins last-good's set with the candidate's. Of each built-in kind there
// is one, with the longer deadline; units may fail that both ignore. Where both
// ask another question under one name, both are asked.
func Union(lastGood, candidate Set) Set {
	all := slices.Clone(lastGood)
	for _, p := range candidate {
		i := slices.IndexFunc(all, func(q Probe) bool { return q.ID() == p.ID() })
		switch {
		case i < 0:
			p.New = true
			all = append(all, p)
		case p.Name == "":
			all[i].Deadline = max(all[i].Deadline, p.Deadline)
			all[i].Ignore = both(all[i].Ignore, p.Ignore)
		case sameQuestion(all[i], p):
			all[i].Deadline = max(all[i].Deadline, p.Deadline)
			all[i].MemoryMax = max(all[i].MemoryMax, p.MemoryMax)
		default:
			p.New = true
			p.Name += newMark
			all = append(all, p)
		}
	}
	slices.SortStableFunc(all, func(a, b Probe) int { return cmp.Compare(rank(a.Kind), rank(b.Kind)) })
	return all
}

func rank(k Kind) int {
	return slices.Index([]Kind{KindAgent, KindUnits, KindRoute, KindDNS, KindRecord, KindReady, KindCommand}, k)
}

func both(a, b []string) []string {
	var common []string
	for _, name := range a {
		if slices.Contains(b, name) {
			common = append(common, name)
		}
	}
	return common
}

func sameQuestion(a, b Probe) bool {
	return a.Socket == b.Socket && a.Path == b.Path && slices.Equal(a.Argv, b.Argv)
}
