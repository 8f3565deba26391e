package stage1

import (
	"errors"
	"strings"
	"testing"
)

func TestParseMeminfo(t *testing.T) {
	t.Parallel()
	text := "MemTotal:         355000 kB\nMemFree:          1 kB\nMemAvailable:     260000 kB\nHugePages_Total:       0\n"
	m, err := ParseMeminfo(text)
	if want := (Memory{Total: 355000 << 10, Available: 260000 << 10}); err != nil || m != want {
		t.Errorf("ParseMeminfo = %+v, %v; want %+v", m, err, want)
	}
	for _, bad := range []string{"", "MemTotal: 1 kB\n", "MemTotal: x kB\nMemAvailable: 1 kB\n", "MemTotal: 1 MB\nMemAvailable: 1 kB\n", "MemTotal: -1 kB\nMemAvailable: 1 kB\n"} {
		if m, err := ParseMeminfo(bad); err == nil {
			t.Errorf("ParseMeminfo(%q) = %+v; want an error", bad, m)
		}
	}
}

func TestMemoryCheck(t *testing.T) {
	t.Parallel()
	m := Memory{Total: 200 << 20, Available: 100 << 20}
	if err := m.Check(100 << 20); err != nil {
		t.Errorf("Check of just enough = %v; want nil", err)
	}
	err := m.Check(128 << 20)
	var step *StepError
	if !errors.As(err, &step) {
		t.Fatalf("Check of too little = %v; want a *StepError", err)
	}
	for _, part := range []string{"100 MB are free of 200 MB", "128 MB are needed", "28 MB more"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("Check = %q; want it to say %q", err, part)
		}
	}
}

func FuzzParseMeminfo(f *testing.F) {
	f.Add("MemTotal:         355000 kB\nMemAvailable:     260000 kB\n")
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := ParseMeminfo(text); err == nil && (m.Total <= 0 || m.Available <= 0) {
			t.Errorf("ParseMeminfo(%q) = %+v", text, m)
		}
	})
}
