package applier

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/release"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/trust"
)

const (
	owner     = "stable._xnode.fleet.example.org"
	published = 1795180800
	closure   = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
)

// envelope is the outside world: keys, records and releases.
type envelope struct {
	t      testing.TB
	node   agent.Node
	trust  *trust.State
	log    *slog.Logger
	medium agent.Medium
	now    time.Time
}

func signer(t testing.TB, seed byte) *sshsign.Signer {
	t.Helper()
	s, err := sshsign.Open(t.Context(), sshsign.OpenOptions{Path: testkit.KeyFile(t, seed)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func testEnvelope(t testing.TB, medium agent.Medium) *envelope {
	t.Helper()
	signers, err := trust.Parse([]byte(trust.Line(signer(t, 1).PublicKey(), "ops", trust.NamespaceAnnounce) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	return &envelope{
		t: t, medium: medium, node: agent.Node{Owner: owner, Class: "edge", Arch: "x86_64-linux"}, trust: trust.Embedded(signers, nil),
		log: slog.New(slog.DiscardHandler), now: time.Unix(published+60, 0),
	}
}

func (e *envelope) clock() announce.Clock { return announce.Clock{Now: e.now, Synchronised: true} }

// releaseOf names a system for live and for installed nodes.
func (e *envelope) releaseOf(sequence uint32, system string, installed bool) []byte {
	medium := release.Live
	if installed {
		medium = release.Installed
	}
	r := release.Release{
		V: 1, Critical: []string{}, Seq: sequence, Published: published, Caches: []string{},
		Classes: map[string]map[string]release.Target{"edge": {"x86_64-linux": {System: system, Closure: closure, Medium: medium}}},
	}
	data, err := r.Encode()
	if err != nil {
		e.t.Fatal(err)
	}
	return data
}

func (e *envelope) record(rel []byte, change func(*announce.Record), seed byte) string {
	r := announce.Record{
		Sequence: 2, Commit: strings.Repeat("0123456789", 4), Digest: release.Digest(rel),
		Published: published, Expires: published + 7*24*3600,
	}
	if change != nil {
		change(&r)
	}
	signed, err := announce.Sign(e.t.Context(), owner, r, signer(e.t, seed))
	if err != nil {
		e.t.Fatal(err)
	}
	return signed.Text()
}

// request asks for release 2.
func (e *envelope) request(op agent.Op, system string, window bool) agent.Request {
	rel := e.releaseOf(2, system, e.medium == agent.MediumInstalled)
	return agent.Request{Op: op, Record: e.record(rel, nil, 1), Release: rel, System: system, Window: window}
}
