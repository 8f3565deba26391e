package announce

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestFile(t *testing.T) {
	t.Parallel()
	if got, err := FileName("Stable._xnode.fleet.example.org."); err != nil || got != owner+".txt" {
		t.Errorf("FileName = %q, %v", got, err)
	}
	if _, err := FileName("../x"); err == nil {
		t.Error("a file name with a slash is made")
	}
	text := signed(t, example(), 1).Text()
	for _, data := range []string{text, text + "\n", text + "\r\n", "\n" + text + "\n\n"} {
		texts, err := FileTexts([]byte(data))
		if diff := cmp.Diff([]string{text}, texts); err != nil || diff != "" {
			t.Errorf("FileTexts(%q): %v (-want +got):\n%s", data, err, diff)
		}
		if _, _, err := Choose(owner, texts, signers(t)); err != nil {
			t.Errorf("FileTexts(%q): %v", data, err)
		}
	}
	if _, err := FileTexts([]byte(strings.Repeat("x", maxFile+1))); err == nil {
		t.Error("a file of more than 4 KiB is read")
	}
}
