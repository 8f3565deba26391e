package stage1

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/internal/manifest"
)

// TestOtherKernel: a payload whose signature is good may still be that of a
// system for another kernel.
func TestOtherKernel(t *testing.T) {
	t.Parallel()
	running, err := kernelRelease()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name    string
		modules []string
		want    string // of the error; "" if it is right
	}{
		{"this kernel", []string{"0.0-other", running}, ""},
		{"no modules", nil, ""},
		{"another kernel", []string{"0.0-other"}, `the system has modules for ["0.0-other"]: kernel and payload belong to two releases`},
	} {
		system := t.TempDir()
		for _, name := range tt.modules {
			if err := os.MkdirAll(filepath.Join(system, "kernel-modules/lib/modules", name), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		err := checkKernel(&manifest.Manifest{System: system})
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v; want nil", tt.name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v; want %q", tt.name, err, tt.want)
		}
	}
}
