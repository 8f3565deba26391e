package trust

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/testkit"
)

// TestFormats reads the examples of docs/formats.md as a node does.
func TestFormats(t *testing.T) {
	t.Parallel()
	page := testkit.FormatsExample(t, "allowed_signers")
	signers, err := Parse([]byte(page))
	if err != nil {
		t.Fatal(err)
	}
	ops, dev := signers.List[0], signers.List[1]
	if diff := cmp.Diff(strings.Split(page, "\n")[0], Line(ops.Key, ops.Comment, ops.Namespaces...)); diff != "" {
		t.Errorf("docs/formats.md, allowed_signers (-page +got):\n%s", diff)
	}
	if !dev.ValidBefore.Equal(time.Date(2028, 1, 1, 0, 0, 0, 0, time.UTC)) || !signers.Has(NamespaceGit) || signers.Has(NamespaceTrust) {
		t.Errorf("docs/formats.md, allowed_signers: read as %+v", signers)
	}
	got, err := signers.Verify(NamespaceManifest, []byte(testkit.FormatsExample(t, "SHA256SUMS")), []byte(testkit.FormatsExample(t, "SHA256SUMS.sig")))
	if err != nil || got.Key != ops.Key {
		t.Errorf("docs/formats.md, SHA256SUMS.sig: signed by %v, %v; want %v", got, err, &ops)
	}
}
