package announce

import (
	"errors"
	"testing"

	"xnodeos.org/internal/trust"
)

// TestStolenKey: once a trust.json by two of three root keys counts, the stolen
// key announces nothing any more, and what it announced before is below the
// least sequence.
func TestStolenKey(t *testing.T) {
	t.Parallel()
	roots := []string{}
	for seed := byte(11); seed <= 13; seed++ {
		roots = append(roots, trust.Line(signer(t, seed).PublicKey(), "root", trust.NamespaceTrust))
	}
	before, err := trust.Parse([]byte(roots[0] + "\n" + roots[1] + "\n" + roots[2] + "\n" +
		trust.Line(signer(t, 1).PublicKey(), "ops", trust.NamespaceAnnounce)))
	if err != nil {
		t.Fatal(err)
	}
	state := trust.Embedded(before, nil)
	thief := example()
	thief.Sequence = 1900
	stolen := signed(t, thief, 1)
	if _, err := stolen.Verify(owner, state.Signers); err != nil {
		t.Fatalf("before: %v", err)
	}
	document := trust.Document{
		V: trust.DocumentVersion, Version: 1, MinSequence: 2000, RootThreshold: 2,
		Signers: append(roots, trust.Line(signer(t, 2).PublicKey(), "ops", trust.NamespaceAnnounce)),
	}
	data, err := document.Encode()
	if err != nil {
		t.Fatal(err)
	}
	bundle := trust.Bundle{Document: data}
	for _, seed := range []byte{11, 13} {
		sig, err := signer(t, seed).Sign(t.Context(), trust.NamespaceTrust, data)
		if err != nil {
			t.Fatal(err)
		}
		bundle.Signatures = append(bundle.Signatures, sig)
	}
	state, errs := trust.Current(state, bundle)
	if len(errs) > 0 || state.Version != 1 {
		t.Fatalf("Current: version %d, %v", state.Version, errs)
	}
	var unknown *UnknownKeyError
	if _, _, err := Choose(owner, []string{stolen.Text()}, state.Signers); !errors.As(err, &unknown) {
		t.Errorf("a record by the stolen key: %v; want an UnknownKeyError", err)
	}
	// The owner goes on above what the thief may have used up.
	ours := example()
	ours.Sequence = 1901
	var below *BelowError
	if _, err := Admit(stolen, state.MinSequence, signed(t, ours, 2)); !errors.As(err, &below) {
		t.Errorf("a record below the least sequence: %v", err)
	}
	ours.Sequence = 2000
	r, _, err := Choose(owner, []string{signed(t, ours, 2).Text(), stolen.Text()}, state.Signers)
	if err != nil {
		t.Fatalf("a record by the new key: %v", err)
	}
	if order, err := Admit(stolen, state.MinSequence, r); err != nil || order != Newer {
		t.Errorf("a record by the new key: %v, %v", order, err)
	}
}
