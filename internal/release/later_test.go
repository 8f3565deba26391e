package release

import (
	"slices"
	"strings"
	"testing"
)

// What a later version names for others must not keep this one from its update.
func TestParseLeavesOutWhatIsLater(t *testing.T) {
	t.Parallel()
	data, err := example("").Encode()
	if err != nil {
		t.Fatal(err)
	}
	want, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(data), `"caches": [`, `"caches": ["s3://bucket?region=x", `, 1)
	text = strings.Replace(text, `"classes": {`, `"classes": {"tiny": {"riscv64-linux": {"system": "`+someSystem+`", "closure": "`+someClosure+`", "medium": "flash"}},`, 1)
	got, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Caches, want.Caches) {
		t.Errorf("caches are %q; want %q", got.Caches, want.Caches)
	}
	if target, err := got.For("edge", "x86_64-linux"); err != nil || target.System != someSystem {
		t.Errorf("For(edge) = %+v, %v", target, err)
	}
	if _, err := got.For("tiny", "riscv64-linux"); err == nil {
		t.Error("a target for a medium that nobody knows is given out")
	}
}
