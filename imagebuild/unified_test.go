package imagebuild

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/testkit"
)

// buildUKI builds the unified kernel image of the toy system with systemd's
// real stub.
func buildUKI(t *testing.T, urls ...string) string {
	t.Helper()
	root, err := testkit.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	stub, err := os.ReadFile(filepath.Join(root, "build/libexec/xnodeos/boot", blobStub))
	if err != nil {
		t.Fatalf("%v; run scripts/setup", err)
	}
	in := toyInputs(t, newToyStore(t))
	in.Loaders = map[string]Blob{blobStub: {Data: stub}}
	out := t.TempDir()
	opt := Options{Formats: []Format{UKI}, PayloadURLs: urls, Time: 1}
	if _, err := toyPlan(t, in, opt).Write(t.Context(), out, t.TempDir(), nil, NoProgress{}); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(out, "xnodeos-toy-1-linux-6.1-x86_64.efi")
}

func TestUKI(t *testing.T) {
	for _, urls := range [][]string{nil, {"http://a.example/x", "https://b.example:8443/y/"}} {
		report := inspect(t, buildUKI(t, urls...))
		if len(report.Problems) > 0 || report.Kind != "uki" {
			t.Errorf("Inspect of a fresh %s with URLs %v found %q", report.Kind, urls, report.Problems)
		}
		if diff := cmp.Diff([]string{"hostname", "network"}, report.NodeConfig); diff != "" {
			t.Errorf("node config (-want +got):\n%s", diff)
		}
	}
	if a, b := hashes(t, filepath.Dir(buildUKI(t))), hashes(t, filepath.Dir(buildUKI(t))); !cmp.Equal(a, b) {
		t.Error("two builds differ")
	}
}

func TestUKIChangedByte(t *testing.T) {
	file := buildUKI(t, "http://a.example/x")
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, offset := range offsets(data) {
		checkRefused(t, file, data, offset)
	}
}

func TestPayloadURLs(t *testing.T) {
	for _, u := range []string{"", "boot.example.org", "ftp://a/b", "http:///x", "http://a/b c", "http://a/b?c=d", "http://a/\"", "http://a\nb/"} {
		if err := (Options{Formats: []Format{UKI}, PayloadURLs: []string{u}}).Validate(); err == nil {
			t.Errorf("payload URL %q was taken", u)
		}
	}
	if err := (Options{Formats: []Format{ISO}, PayloadURLs: []string{"http://a/b"}}).Validate(); err == nil {
		t.Error("a payload URL was taken without a unified image")
	}
}
