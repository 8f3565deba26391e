package stage1

import "testing"

func TestKernelTime(t *testing.T) {
	t.Parallel()
	for version, want := range map[string]int64{
		"#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-08-30)":      1788048000,
		"#1-NixOS SMP PREEMPT_DYNAMIC Sun Aug 30 12:00:00 UTC 2026": 1788091200,
		"#1 SMP Sun Mar  1 00:00:01 UTC 2026":                       1772323201,
		"#1-NixOS SMP PREEMPT_DYNAMIC Tue Jan  1 00:00:00 UTC 1980": 0,
		"#1 SMP Debian (2200-01-01)":                                0,
		"#1 SMP PREEMPT (soon)":                                     0,
		"#1 SMP Mon Dec 1 00:00:00 CET 2025":                        0,
		"":                                                          0,
		"()":                                                        0,
		"#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-2 (2026-08-30) extra": 0,
	} {
		if got := kernelTime(version); got != want {
			t.Errorf("kernelTime(%q) = %d; want %d", version, got, want)
		}
	}
}
