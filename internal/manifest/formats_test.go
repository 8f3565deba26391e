package manifest

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/testkit"
)

// TestFormats holds docs/formats.md to what Encode writes.
func TestFormats(t *testing.T) {
	t.Parallel()
	got, err := example(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testkit.FormatsExample(t, "manifest.json"), string(got)); diff != "" {
		t.Errorf("docs/formats.md, manifest.json (-page +got):\n%s", diff)
	}
}
