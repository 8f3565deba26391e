package applier

import (
	"testing"

	"xnodeos.org/agent"
	"xnodeos.org/agent/apply"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/trust"
)

// TestTrustOnlyRises: root keys bring a new signer, whoever carries the
// document; no older version comes back, and none that they did not sign.
func TestTrustOnlyRises(t *testing.T) {
	t.Parallel()
	m, e := newMachine(t, plans[0]), testEnvelope(t, agent.MediumLive)
	m.process = &process{cancel: func() {}}
	root := signer(t, 7)
	signers, err := trust.Parse([]byte(trust.Line(signer(t, 1).PublicKey(), "ops", trust.NamespaceAnnounce) + "\n" +
		trust.Line(root.PublicKey(), "root", trust.NamespaceTrust) + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	e.trust = trust.Embedded(signers, nil)
	a := apply.New(m.options(e))
	if err := a.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	document := func(version uint32, by *sshsign.Signer) agent.Request {
		doc := trust.Document{
			V: 1, Version: version, RootThreshold: 1,
			Signers: []string{
				trust.Line(signer(t, 2).PublicKey(), "deputy", trust.NamespaceAnnounce), trust.Line(root.PublicKey(), "root", trust.NamespaceTrust),
			},
		}
		data, err := doc.Encode()
		if err != nil {
			t.Fatal(err)
		}
		sig, err := by.Sign(t.Context(), trust.NamespaceTrust, data)
		if err != nil {
			t.Fatal(err)
		}
		return agent.Request{Op: agent.OpTrust, Trust: &agent.TrustFile{Document: data, Signatures: map[string][]byte{"k": sig}}}
	}
	for _, step := range []struct {
		name    string
		req     agent.Request
		refused bool
		version uint64
	}{
		{"signed by an announcer", document(3, signer(t, 1)), true, 0},
		{"version 3", document(3, root), false, 3},
		{"version 2", document(2, root), true, 3},
		{"version 4 by a stranger", document(4, signer(t, 9)), true, 3},
		{"version 4", document(4, root), false, 4},
	} {
		resp := a.Handle(t.Context(), step.req)
		if (resp.Refused != nil) != step.refused || resp.Error != "" {
			t.Errorf("%s: %+v %q", step.name, resp.Refused, resp.Error)
		}
		if got := a.Status().TrustVersion; got != step.version {
			t.Errorf("%s: version %d counts; want %d", step.name, got, step.version)
		}
	}
	rel := e.releaseOf(2, systemB, false)
	if resp := a.Handle(t.Context(), agent.Request{Op: agent.OpAccept, Record: e.record(rel, nil, 1), Release: rel}); resp.Refused == nil {
		t.Error("a record by a signer that was removed was accepted")
	}
	if resp := a.Handle(t.Context(), agent.Request{Op: agent.OpAccept, Record: e.record(rel, nil, 2), Release: rel}); resp.Refused != nil || resp.Error != "" {
		t.Errorf("a record by the new signer: %+v %q", resp.Refused, resp.Error)
	}
}
