package agent

import (
	"errors"
	"fmt"

	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/release"
	"xnodeos.org/internal/trust"
)

// Announcement is what both halves judge: a record and the files that it
// binds, all verbatim.
type Announcement struct {
	Record  string
	Release []byte
	Nodes   []byte // nil if the release binds none
}

// Node is who judges.
type Node struct {
	Owner       string // configured name of the record
	Class       string // configured; what nodes.json says of Fingerprint wins
	Arch        string // Nix's name, "x86_64-linux"
	Fingerprint string // of the node key, "SHA256:..."; "" if it has none
}

// Decision is what an announcement means for a node.
type Decision struct {
	Accepted Accepted // what to store, unless it is the same as before
	Target   Target   // the system of this node
	Class    string
	Floor    int64 // what the time floor rises to, Unix seconds
	Release  *release.Release
	Signer   *trust.Signer
}

// Accept is the one check of an announcement, made by the follower and again
// by the applier with its own trust: signature, order behind what was
// accepted, dates, release.json bound by the record, nodes.json bound by
// release.json, the system for this node. Nothing is stored before it returns
// without error. The errors are those of announce, release and *Refusal.
func Accept(in Announcement, node Node, keys *trust.State, have Accepted, clock announce.Clock) (*Decision, error) {
	record, signer, err := verified(in, node, keys)
	if err != nil {
		return nil, err
	}
	if err := record.Fresh(signer, clock); err != nil {
		return nil, err
	}
	before, err := have.record()
	if err != nil {
		return nil, err
	}
	if _, err := announce.Admit(before, keys.MinSequence, record); err != nil {
		return nil, err
	}
	d, err := bound(in, node, record)
	if err != nil {
		return nil, err
	}
	d.Signer, d.Floor = signer, record.Floor(clock).Unix()
	return d, nil
}

// AcceptAgain checks an announcement that was accepted before, of what is to
// be applied again after a boot: its dates and its place in the order were
// judged then.
func AcceptAgain(in Announcement, node Node, keys *trust.State) (*Decision, error) {
	record, signer, err := verified(in, node, keys)
	if err != nil {
		return nil, err
	}
	d, err := bound(in, node, record)
	if err != nil {
		return nil, err
	}
	d.Signer = signer
	return d, nil
}

// VerifyRecord checks a record by itself, as the probe does that reads one
// again after a switch. One that is older than what was accepted passes: some
// cache of the world still has it, which is no fault of a system on trial.
func VerifyRecord(text string, node Node, keys *trust.State, have Accepted) error {
	record, _, err := verified(Announcement{Record: text}, node, keys)
	if err != nil {
		return err
	}
	before, err := have.record()
	if err != nil {
		return err
	}
	order, err := announce.Admit(before, keys.MinSequence, record)
	if order == announce.Replay && record.Sequence >= keys.MinSequence {
		return nil
	}
	return err
}

func verified(in Announcement, node Node, keys *trust.State) (*announce.Record, *trust.Signer, error) {
	record, err := announce.Parse(in.Record)
	if err != nil {
		return nil, nil, err
	}
	owner, err := announce.Owner(node.Owner)
	if err != nil {
		return nil, nil, err
	}
	if keys == nil || keys.Signers == nil {
		return nil, nil, errors.New("verify record: this node trusts no key; give it trust/allowed_signers")
	}
	signer, err := record.Verify(owner, keys.Signers)
	if err != nil {
		return nil, nil, err
	}
	return record, signer, nil
}

// bound opens what a verified record binds.
func bound(in Announcement, node Node, record *announce.Record) (*Decision, error) {
	rel, err := release.Open(in.Release, record.Digest, record.Sequence)
	if err != nil {
		return nil, err
	}
	nodes, err := rel.OpenNodes(in.Nodes)
	if err != nil {
		return nil, err
	}
	class := node.Class
	if node.Fingerprint != "" {
		class = nodes.ClassOf(node.Fingerprint, node.Class)
	}
	d := &Decision{Class: class, Release: rel, Accepted: Accepted{
		Sequence: record.Sequence, Published: record.Published, Record: record.Text(), Halted: record.Halted,
	}}
	if class == "" {
		return nil, refuse(CodeInvalid, "this node has no class: set class in agent.toml, or list its key in nodes/")
	}
	target, err := rel.For(class, node.Arch)
	if err != nil {
		return nil, fmt.Errorf("sequence %d: %w", record.Sequence, err)
	}
	d.Target = Target{
		Sequence: record.Sequence, Published: record.Published, System: target.System, Closure: target.Closure,
		Medium: Medium(target.Medium), Barrier: string(target.Barrier),
	}
	return d, nil
}

// record returns the accepted record as package announce orders it; nil before
// the first one.
func (a Accepted) record() (*announce.Record, error) {
	switch {
	case a.Record != "":
		r, err := announce.Parse(a.Record)
		if err != nil {
			return nil, fmt.Errorf("read the accepted record: %w", err)
		}
		return r, nil
	case a.Sequence > 0:
		return &announce.Record{Sequence: a.Sequence, Published: a.Published}, nil
	}
	return nil, nil
}
