package units

import (
	"context"
	"fmt"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	"golang.org/x/sys/unix"

	"xnodeos.org/internal/unit"
)

// timerAccuracy keeps systemd from moving a timer to a more convenient moment;
// the default is a minute.
const timerAccuracy = time.Second

// triggers are the moments at which an alarm fires. systemd counts OnActiveSec=
// anew after each daemon-reload, which every switch does, so a trial could put
// its own dead man off; OnBootSec= stays where it is. But one whose moment passes
// while systemd reloads is dropped without a word, and then the other one fires,
// later. An alarm may so fire twice before it is disarmed.
func triggers(uptime, after time.Duration) []monotonic {
	return []monotonic{{"OnBootSec", microseconds(uptime + after)}, {"OnActiveSec", microseconds(after)}}
}

// monotonicClock is what systemd's monotonic timers count by.
func monotonicClock() (time.Duration, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("read the monotonic clock: %w", err)
	}
	return time.Duration(now.Nano()), nil
}

// Arm starts an alarm, and returns once its timer runs. Where one of this name is armed or has fired the error
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
	uptime, err := monotonicClock()
	if err != nil {
		return fmt.Errorf("arm %s: %w", a.Name, err)
	}
	timer := []dbus.Property{
		dbus.PropDescription(a.Description),
		property("TimersMonotonic", triggers(uptime, a.After)),
		property("AccuracyUSec", microseconds(timerAccuracy)),
		// An elapsed timer stays until it is disarmed: it tells that it fired.
		property("RemainAfterElapse", true),
	}
	aux := []dbus.PropertyCollection{{Name: a.Name + ".service", Properties: service}}
	if err := m.start(ctx, a.Name+".timer", timer, aux); err != nil {
		return fmt.Errorf("arm %s: %w", a.Name, err)
	}
	if err := m.running(ctx, a.Name+".timer"); err != nil {
		return fmt.Errorf("arm %s: %w", a.Name, err)
	}
	return nil
}

// running waits until the job that starts a timer is done: systemd answers
// before.
func (m *Manager) running(ctx context.Context, timer string) error {
	for pause := pollFirst; ; pause = min(pause*2, pollMost) {
		status, err := m.status(ctx, timer)
		switch {
		case err != nil:
			return err
		case status.ActiveState == "active":
			return nil
		case status.JobId == 0:
			return fmt.Errorf("systemd did not start the timer (it is %s)", status.ActiveState)
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
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
	fired, err := m.hasFired(ctx, name, timer)
	if err != nil {
		return "", err
	}
	if timer.SubState == "waiting" && !fired {
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

// hasFired tells a timer that waits for its first trigger from one that waits
// for its second.
func (m *Manager) hasFired(ctx context.Context, name string, timer dbus.UnitStatus) (bool, error) {
	if timer.ActiveState != "active" {
		return false, nil
	}
	var props map[string]any
	err := m.ask(ctx, func(ctx context.Context, b bus) error {
		var err error
		props, err = b.GetUnitTypePropertiesContext(ctx, name+".timer", "Timer")
		return err
	})
	if err != nil {
		return false, fmt.Errorf("ask whether %s has fired: %w", name, err)
	}
	last, _ := props["LastTriggerUSecMonotonic"].(uint64)
	return last > 0, nil
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
