package imagebuild

import (
	"os"
	"path/filepath"
	"testing"

	"xnodeos.org/internal/testkit"
)

// buildTakeover builds the takeover program of the toy system around a program
// that does nothing.
func buildTakeover(t *testing.T, urls ...string) string {
	t.Helper()
	in := toyInputs(t, newToyStore(t))
	in.Takeover = Blob{Data: testkit.ToyProgram()}
	out := t.TempDir()
	opt := Options{Formats: []Format{Takeover}, PayloadURLs: urls, Time: 1}
	if _, err := toyPlan(t, in, opt).Write(t.Context(), out, t.TempDir(), nil, NoProgress{}); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(out, "xnodeos-takeover-toy-1-linux-6.1-x86_64")
}

func TestTakeover(t *testing.T) {
	carried, fetched := buildTakeover(t), buildTakeover(t, "http://a.example/x")
	for _, file := range []string{carried, fetched} {
		if report := inspect(t, file); len(report.Problems) > 0 || report.Kind != "takeover" {
			t.Errorf("Inspect of a fresh %s found %q", report.Kind, report.Problems)
		}
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode()&0o100 == 0 {
			t.Errorf("takeover program has mode %v; it must be executable", info.Mode())
		}
	}
	if a, b := hashes(t, filepath.Dir(carried)), hashes(t, filepath.Dir(buildTakeover(t))); len(a) == 0 || a["SHA256SUMS"] != b["SHA256SUMS"] {
		t.Error("two builds differ")
	}
}

func TestTakeoverChangedByte(t *testing.T) {
	file := buildTakeover(t)
	data := must(os.ReadFile(file))
	for _, offset := range offsets(data) {
		checkRefused(t, file, data, offset)
	}
}
