package main

import (
	"io"
	"strings"
	"testing"
)

func TestParsePeak(t *testing.T) {
	got, err := parsePeak("xnodeos-takeover: loaded by kexec_load; that took 119 MiB at its peak, 1.91 times the image of 62 MiB\n")
	if err != nil || got != 1.91 {
		t.Errorf("parsePeak = %v, %v; want 1.91", got, err)
	}
	if _, err := parsePeak("xnodeos-takeover: refusing"); err == nil {
		t.Error("a refusal was taken for a peak")
	}
}

func TestUnknownPart(t *testing.T) {
	err := run(t.Context(), []string{"takeover", "fetch"}, io.Discard, io.Discard)
	if err == nil || !strings.Contains(err.Error(), `there is no part "fetch"; there are: paths, takeover, memory`) {
		t.Errorf("%v; want the part refused and the parts named", err)
	}
}
