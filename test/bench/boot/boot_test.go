package main

import "testing"

func TestParseStage(t *testing.T) {
	line := "[  8.425] xnode-init: first stage 3.81 s (modules 1.61, dhcp 0.07, verify 1.63, prepare-root 0.02, rest 0.48)"
	got, ok := parseStage(line)
	want := stage{total: 3.81, modules: 1.61, dhcp: 0.07, verify: 1.63, prepareRoot: 0.02, rest: 0.48}
	if !ok || got != want {
		t.Errorf("parseStage(%q) = %+v, %v; want %+v", line, got, ok, want)
	}
	for _, line := range []string{"", "xnode-init: first stage 3.81 s", "first stage . s (modules ., dhcp ., verify ., prepare-root ., rest .)"} {
		if _, ok := parseStage(line); ok {
			t.Errorf("parseStage(%q) = true; want false", line)
		}
	}
}

func TestStageRowsAreMedians(t *testing.T) {
	table := stageRows([]stage{{rest: 0.5, total: 1}, {rest: 2, total: 9}, {rest: 0.7, total: 3}})
	if table[0].Value != 3 {
		t.Errorf("%s: %v; want 3", table[0].Name, table[0].Value)
	}
	last := table[len(table)-1]
	if last.Value != 0.7 || last.OK == nil || !*last.OK {
		t.Errorf("%s: %+v; want 0.7 within its target", last.Name, last)
	}
}
