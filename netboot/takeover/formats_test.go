package takeover

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/cpio"
	"xnodeos.org/internal/testkit"
)

// TestFormats holds docs/formats.md to what a takeover says and hands over.
func TestFormats(t *testing.T) {
	t.Parallel()
	root := soundRoot()
	root["root/.ssh/authorized_keys"] = file("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHcNcb3iCdGy3WoG0EH9mOXBk/F5MtRaZtAzW0xb/qEv ada\n")
	root["etc/machine-id"] = file("0123456789abcdef0123456789abcdef\n")
	root["proc/sys/kernel/hostname"] = file("old\n")
	k := &fakeKernel{}
	plan, err := prepare(t.Context(), testSource(t, nil), testOptions(t, root), k, plainMemory)
	if err != nil {
		t.Fatal(err)
	}
	if err := plan.load(); err != nil {
		t.Fatal(err)
	}
	verdict, err := json.MarshalIndent(plan.Verdict, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{"takeover verdict": string(verdict) + "\n", "takeover initrd": listInitrd(t, k.initrd)} {
		if diff := cmp.Diff(testkit.FormatsExample(t, name), got); diff != "" {
			t.Errorf("docs/formats.md, %s (-page +got):\n%s", name, diff)
		}
	}
}

func listInitrd(t *testing.T, data []byte) string {
	t.Helper()
	var list strings.Builder
	in := cpio.NewInitrd(bytes.NewReader(data))
	for {
		segment, archive, err := in.Next()
		if errors.Is(err, io.EOF) {
			return list.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&list, "# at byte %d\n", segment.Offset)
		for {
			h, err := archive.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&list, "%06o %5d %s\n", h.Mode, h.Size, h.Name)
		}
	}
}
