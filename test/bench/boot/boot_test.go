package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/test/bench/rows"
)

func TestParseStage(t *testing.T) {
	line := "[  8.425] xnode-init: first stage 3.81 s (modules 1.61, dhcp 0.07, verify 1.63, prepare-root 0.02, rest 0.48)"
	got, ok := parseStage(line)
	want := stage{{"", 3.81}, {"modules", 1.61}, {"dhcp", 0.07}, {"verify", 1.63}, {"prepare-root", 0.02}, {"rest", 0.48}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(part{})); !ok || diff != "" {
		t.Errorf("parseStage(%q) (-want +got):\n%s", line, diff)
	}
	for _, line := range []string{
		"", "xnode-init: first stage 3.81 s", "xnode-init: first stage 3.81 s ()",
		"xnode-init: first stage 3.81 s (modules)", "xnode-init: first stage . s (modules 1)",
	} {
		if got, ok := parseStage(line); ok {
			t.Errorf("parseStage(%q) = %v, true; want false", line, got)
		}
	}
}

func TestStageRowsAreMedians(t *testing.T) {
	table := stageRows([]stage{{{"", 1}, {"rest", 0.5}}, {{"", 9}, {"rest", 2}}, {{"", 3}, {"rest", 0.7}}})
	want := []rows.Row{rows.New("first stage, all of it", 3, "s"), rows.New("first stage: rest", 0.7, "s").AtMost(1)}
	if diff := cmp.Diff(want, table); diff != "" {
		t.Errorf("stageRows() (-want +got):\n%s", diff)
	}
}
