package mirror

import (
	"errors"
	"testing"
	"time"
)

// TestReport: faults are counted by kind, and the text shows the last of each.
func TestReport(t *testing.T) {
	t.Parallel()
	sound, bad := Report{Server: "http://a/"}, Report{Server: "http://b/"}
	bad.Add(*Faultf(Busy, "one"))
	bad.Add(*Faultf(WrongBytes, "two").In("x"))
	bad.Add(*Faultf(Busy, "three"))
	bad.Dropped = true
	const want = "http://b/: busy 2 times, last: three, wrong bytes: x: two (not asked again)"
	if got := bad.String(); got != want {
		t.Errorf("String() = %q; want %q", got, want)
	}
	cause := errors.New("over")
	if got := Explain(cause, []Report{sound, bad}); got != "over: http://a/: no fault; "+want {
		t.Errorf("Explain = %q", got)
	}
	if got := Explain(cause, nil); got != "over" {
		t.Errorf("Explain = %q", got)
	}
}

func TestFault(t *testing.T) {
	t.Parallel()
	f := TooSlow(1500*time.Millisecond, ErrStalled).In("nar/x")
	if got := f.Error(); got != "stalled: nar/x: less than 16384 bytes in 2 s: next to no bytes came in time" || !errors.Is(f, ErrStalled) {
		t.Errorf("TooSlow = %q", got)
	}
	for kind, want := range map[FaultKind]bool{
		Unreachable: true, Busy: true, Stalled: true, CutOff: true,
		Refused: false, Redirected: false, Encoded: false, WrongRange: false, WrongFile: false, WrongBytes: false, "one of a user": false,
	} {
		if got := kind.Passing(); got != want {
			t.Errorf("%q.Passing() = %t; want %t", kind, got, want)
		}
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		faults int
		jitter float64
		want   time.Duration
	}{
		{1, 0, 50 * time.Millisecond}, {1, 0.5, 100 * time.Millisecond}, {1, 1, 150 * time.Millisecond},
		{2, 0.5, 200 * time.Millisecond}, {7, 0.5, 6400 * time.Millisecond}, {8, 0.5, 8 * time.Second}, {1 << 30, 1, 12 * time.Second},
	} {
		if got := Backoff(c.faults, c.jitter); got != c.want {
			t.Errorf("Backoff(%d, %v) = %v; want %v", c.faults, c.jitter, got, c.want)
		}
	}
}
