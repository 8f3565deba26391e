package testkit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// FormatsExample returns the example of that name from docs/formats.md: the
// fenced block behind the line "<!-- example: NAME -->". A golden test compares
// it with what the program writes, so that the page cannot go stale.
func FormatsExample(t *testing.T, name string) string {
	t.Helper()
	root, err := Root(".")
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(root, "docs", "formats.md"))
	if err != nil {
		t.Fatal(err)
	}
	marker := "<!-- example: " + name + " -->\n"
	_, behind, ok := strings.Cut(string(page), marker)
	if !ok {
		t.Fatalf("docs/formats.md has no line %q", strings.TrimSpace(marker))
	}
	_, behind, opened := strings.Cut(strings.TrimPrefix(behind, "\n"), "\n")
	block, _, closed := strings.Cut(behind, "\n```\n")
	if !opened || !closed {
		t.Fatalf("docs/formats.md: no fenced block behind %q", strings.TrimSpace(marker))
	}
	return block + "\n"
}
