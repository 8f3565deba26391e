package sbom

import (
	"fmt"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/testkit"
)

// TestFormats holds docs/formats.md to the bill of the example.
func TestFormats(t *testing.T) {
	t.Parallel()
	bom := decode(t, build(t, example(t)))
	var got strings.Builder
	fmt.Fprintf(&got, "%s %s\n", bom.SerialNumber, bom.Metadata.Timestamp)
	for _, c := range append([]cdx.Component{*bom.Metadata.Component}, *bom.Components...) {
		got.WriteString(strings.TrimSpace(strings.Join([]string{c.BOMRef, c.Name, c.Version}, " ")) + "\n")
	}
	if diff := cmp.Diff(testkit.FormatsExample(t, "sbom.cdx.json"), got.String()); diff != "" {
		t.Errorf("docs/formats.md, sbom.cdx.json (-page +got):\n%s", diff)
	}
}
