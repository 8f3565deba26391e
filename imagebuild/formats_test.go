package imagebuild

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/cpio"
	"xnodeos.org/internal/testkit"
)

// TestFormatsInitrd holds docs/formats.md to the initrd of the toy system.
func TestFormatsInitrd(t *testing.T) {
	f, err := os.Open(filepath.Join(buildToy(t, toyOptions), "netboot", "initrd"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var got strings.Builder
	in := cpio.NewInitrd(f)
	for {
		segment, archive, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&got, "# %s\n", cmp.Or(segment.Compression, "plain"))
		for {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&got, "%06o %s\n", h.Mode, h.Name)
		}
	}
	if diff := gocmp.Diff(testkit.FormatsExample(t, "initrd"), got.String()); diff != "" {
		t.Errorf("docs/formats.md, initrd (-page +got):\n%s", diff)
	}
}
