package trust

import "testing"

// A node whose node config was lost still has the documents that it stored.
// They are signed by keys that it does not know any more, and must not be what
// ends the program.
func TestCurrentWithoutTrust(t *testing.T) {
	t.Parallel()
	stored := bundle(t, Document{Version: 2, Signers: lines(t, []byte{1}, []byte{2}), RootThreshold: 1}, 1)
	state, errs := Current(nil, stored)
	if state != nil || len(errs) != 0 {
		t.Errorf("Current of nobody's trust = %+v, %v; want nothing", state, errs)
	}
}
