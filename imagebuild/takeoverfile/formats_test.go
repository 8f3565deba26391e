package takeoverfile_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/imagebuild/takeoverfile"
	"xnodeos.org/internal/testkit"
)

// TestFormats holds docs/formats.md to what Layout makes.
func TestFormats(t *testing.T) {
	t.Parallel()
	image, err := takeoverfile.Layout(spec(t, true))
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, s := range image.Segments {
		fmt.Fprintf(&got, "%6d %6d %s\n", s.Offset, s.Size, s.Name)
	}
	if diff := cmp.Diff(testkit.FormatsExample(t, "takeover program"), got.String()); diff != "" {
		t.Errorf("docs/formats.md (-page +got):\n%s", diff)
	}
}
