package applier

import (
	"path/filepath"
	"testing"

	"xnodeos.org/agent"
	"xnodeos.org/agent/apply"
	"xnodeos.org/agent/journal"
	"xnodeos.org/internal/announce"
)

// TestRecordReadAgain: the probe asks whether a system can read its record, not
// how fast the world's caches forget. A resolver that still has the record
// before this one must not send a whole fleet back from a good release.
func TestRecordReadAgain(t *testing.T) {
	t.Parallel()
	m, e := newMachine(t, plans[0]), testEnvelope(t, agent.MediumLive)
	rel := e.releaseOf(2, systemB, false)
	now := e.record(rel, func(*announce.Record) {}, 1)
	memory := journal.OpenMemory(filepath.Join(m.dir, "applier"))
	if err := memory.RaiseAccepted(agent.Accepted{Sequence: 2, Published: published, Record: now}); err != nil {
		t.Fatal(err)
	}
	a := apply.New(m.options(e))
	for _, tt := range []struct {
		name, owner string
		change      func(*announce.Record)
		seed        byte
		good        bool
	}{
		{"the accepted one", owner, func(*announce.Record) {}, 1, true},
		{"a newer one, announced meanwhile", owner, func(r *announce.Record) { r.Sequence++ }, 1, true},
		{"the one before, from a cache", owner, func(r *announce.Record) { r.Sequence--; r.Published -= 3600 }, 1, true},
		{"the same release before a refresh", owner, func(r *announce.Record) { r.Published -= 3600 }, 1, true},
		{"another one in the same place", owner, func(r *announce.Record) { r.Expires-- }, 1, false},
		{"of a key that nobody knows", owner, func(*announce.Record) {}, 2, false},
		{"for another name", "other._xnode.example.org", func(*announce.Record) {}, 1, false},
	} {
		if err := a.VerifyRecord(tt.owner, e.record(rel, tt.change, tt.seed)); (err == nil) != tt.good {
			t.Errorf("%s: %v; want it taken: %t", tt.name, err, tt.good)
		}
	}
	e.trust.MinSequence = 2
	if err := a.VerifyRecord(owner, e.record(rel, func(r *announce.Record) { r.Sequence-- }, 1)); err == nil {
		t.Error("a record below what trust.json allows is taken")
	}
}
