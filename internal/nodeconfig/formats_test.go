package nodeconfig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/cpio"
	"xnodeos.org/internal/testkit"
)

// TestFormats holds docs/formats.md to the folder testdata/node.
func TestFormats(t *testing.T) {
	t.Parallel()
	c, err := ReadDir("testdata/node")
	if err != nil {
		t.Fatal(err)
	}
	var folder, list, sums strings.Builder
	for _, name := range c.Names() {
		fmt.Fprintf(&folder, "\n==> %s <==\n%s", name, c.Files[name])
	}
	in := cpio.NewReader(bytes.NewReader(pack(t, c)))
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&list, "%06o %5d %s\n", h.Mode, h.Size, h.Name)
		if h.Name == SumFile {
			if _, err := io.Copy(&sums, in); err != nil {
				t.Fatal(err)
			}
		}
	}
	for name, got := range map[string]string{"node config folder": folder.String()[1:], "node config archive": list.String(), "node.sha256": sums.String()} {
		if diff := cmp.Diff(testkit.FormatsExample(t, name), got); diff != "" {
			t.Errorf("docs/formats.md, %s (-page +got):\n%s", name, diff)
		}
	}
}
