package units

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"

	"xnodeos.org/internal/unit"
)

// timerAccuracy keeps systemd from moving a timer to a more convenient moment;
// the default is a minute.
const timerAccuracy = time.Second

// Arm starts an alarm. Where one of this name is armed or has fired the error
// is unit.ErrExists and nothing changed: disarm that first.
func (m *Manager) Arm(ctx context.Context, a unit.Alarm) error {
	if err := checkArgv(a.Argv); err != nil {
		return fmt.Errorf("arm %s: %w", a.Name, err)
	}
	if a.After <= 0 {
		return fmt.Errorf("arm %s: the time %s must be more than nothing", a.Name, a.After)
	}
	service := commonProperties(a.Description, a.Argv)
	if a.RuntimeMax > 0 {
		service = append(service, property("RuntimeMaxUSec", microseconds(a.RuntimeMax)))
	}
	timer := []dbus.Property{
		dbus.PropDescription(a.Description),
		property("TimersMonotonic", []monotonic{{"OnActiveSec", microseconds(a.After)}}),
		property("AccuracyUSec", microseconds(timerAccuracy)),
		// An elapsed timer stays until it is disarmed: it tells that it fired.
		property("RemainAfterElapse", true),
	}
	aux := []dbus.PropertyCollection{{Name: a.Name + ".service", Properties: service}}
	if err := m.start(ctx, a.Name+".timer", timer, aux); err != nil {
		return fmt.Errorf("arm %s: %w", a.Name, err)
	}
	return nil
}

// monotonic is an element of TimersMonotonic, a(st).
type monotonic struct {
	Base  string
	Value uint64
}

// Alarm says how the alarm is.
func (m *Manager) Alarm(ctx context.Context, name string) (unit.AlarmState, error) {
	timer, err := m.status(ctx, name+".timer")
	if err != nil {
		return "", err
	}
	if timer.SubState == "waiting" {
		return unit.AlarmArmed, nil
	}
	service, err := m.status(ctx, name+".service")
	if err != nil {
		return "", err
	}
	if timer.ActiveState == "active" || stateOf(service) != unit.Gone {
		return unit.AlarmFired, nil
	}
	return unit.AlarmGone, nil
}

// Disarm stops the timer and returns how the alarm was. It does not stop the
// service of an alarm that has fired: that may be at work and must not be cut
// off by whom it judges; Forget does it where it is right.
func (m *Manager) Disarm(ctx context.Context, name string) (unit.AlarmState, error) {
	// The timer goes first: asked in the other order it could fire in between
	// and pass for one that did not.
	before, err := m.Alarm(ctx, name)
	if err != nil {
		return before, fmt.Errorf("disarm %s: %w", name, err)
	}
	if err := m.forget(ctx, name+".timer"); err != nil {
		return before, fmt.Errorf("disarm %s: %w", name, err)
	}
	service, err := m.state(ctx, name+".service")
	if err != nil {
		return before, fmt.Errorf("disarm %s: %w", name, err)
	}
	if service != unit.Gone {
		return unit.AlarmFired, nil
	}
	return before, nil
}
