package stage1

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestStopwatch(t *testing.T) {
	t.Parallel()
	now := 10 * time.Second
	w := NewStopwatch(func() time.Duration { return now })
	pass := func(s int) { now += time.Duration(s) * time.Second }

	endDevices := w.Begin(PhaseDevices)
	pass(1) // rest
	endModules := w.Begin(PhaseModules)
	pass(2) // modules
	endVerify := w.Begin(PhaseVerify)
	pass(4) // both: counts as verification
	endModules()
	pass(8) // verify
	endVerify()
	endDevices()
	endDHCP := w.Begin(PhaseDHCP)
	inner := w.Begin(PhaseDHCP)
	pass(16)
	inner()
	pass(32) // still dhcp
	endDHCP()
	endFetch := w.Begin(PhaseFetch)
	pass(128)
	endFetch()
	endPrepare := w.Begin(PhasePrepareRoot)
	pass(64) // under way when the times are asked for
	got := w.Times()
	endPrepare()

	want := Times{Total: 255 * time.Second, Modules: 2 * time.Second, Verify: 12 * time.Second,
		DHCP: 48 * time.Second, Fetch: 128 * time.Second, PrepareRoot: 64 * time.Second, Rest: time.Second, Devices: time.Second}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Times(), -want +got:\n%s", diff)
	}
	const line = "first stage 255.00 s (modules 2.00, dhcp 48.00, fetch 128.00, verify 12.00, prepare-root 64.00, rest 1.00)"
	if got.String() != line {
		t.Errorf("String() = %q; want %q", got, line)
	}
}
