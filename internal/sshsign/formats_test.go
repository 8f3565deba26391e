package sshsign

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/testkit"
)

// TestFormats holds the signature of docs/formats.md to what we write.
func TestFormats(t *testing.T) {
	t.Parallel()
	got := sign(t, fixed(t, 1), "xnode-manifest", []byte(testkit.FormatsExample(t, "SHA256SUMS")))
	if diff := cmp.Diff(testkit.FormatsExample(t, "SHA256SUMS.sig"), string(got)); diff != "" {
		t.Errorf("docs/formats.md, SHA256SUMS.sig (-page +got):\n%s", diff)
	}
}
