package units

import (
	"slices"
	"testing"

	"github.com/coreos/go-systemd/v22/dbus"

	"xnodeos.org/internal/unit"
)

// A probe's unit that a killed applier left must not be red for ever: its result
// stays until somebody forgets it.
func TestRunMakesRoomForItself(t *testing.T) {
	t.Parallel()
	ended := dbus.UnitStatus{Name: "p.service", LoadState: "loaded", ActiveState: "active", SubState: "exited"}
	gone := dbus.UnitStatus{Name: "p.service", LoadState: "not-found", ActiveState: "inactive"}
	f := &fake{
		units: []dbus.UnitStatus{ended, gone, ended, ended, gone},
		errs:  []error{refusal("UnitExists")},
		props: map[string]any{"Result": "success", "ExecMainCode": int32(1), "ExecMainStatus": int32(0)},
	}
	r, err := (&Manager{bus: f}).Run(t.Context(), unit.Service{Name: "p.service", Argv: []string{"/bin/true"}, Confinement: unit.Confined})
	if err != nil || !r.Success() {
		t.Errorf("Run = %+v, %v; want its own success", r, err)
	}
	starts := 0
	for _, call := range f.calls {
		if call == "start p.service fail" {
			starts++
		}
	}
	if starts != 2 || !slices.Contains(f.calls, "stop p.service") {
		t.Errorf("calls are %q; want the old one stopped and a second start", f.calls)
	}
	// In the meantime somebody else may be as fast: then it says so.
	f = &fake{units: []dbus.UnitStatus{gone}, startErr: refusal("UnitExists")}
	if _, err := (&Manager{bus: f}).Run(t.Context(), unit.Service{Name: "p.service", Argv: []string{"/bin/true"}, Confinement: unit.Confined}); err == nil {
		t.Error("Run without a start has no error")
	}
}
