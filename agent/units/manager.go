package units

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"xnodeos.org/internal/unit"
)

// Failed lists the units that failed, and the services that systemd keeps
// starting in vain, sorted by name. A service in the pause between two starts
// counts whether or not the last one looked well.
func (m *Manager) Failed(ctx context.Context) ([]unit.Failed, error) {
	var list []dbus.UnitStatus
	err := m.ask(ctx, func(ctx context.Context, b bus) error {
		var err error
		list, err = b.ListUnitsContext(ctx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("list failed units: %w", err)
	}
	return failedOf(list), nil
}

func failedOf(list []dbus.UnitStatus) []unit.Failed {
	var failed []unit.Failed
	for _, u := range list {
		switch {
		case u.ActiveState == "failed":
			failed = append(failed, unit.Failed{Name: u.Name, How: "failed"})
		case strings.HasPrefix(u.SubState, "auto-restart"):
			failed = append(failed, unit.Failed{Name: u.Name, How: "auto-restart"})
		}
	}
	slices.SortFunc(failed, func(a, b unit.Failed) int { return strings.Compare(a.Name, b.Name) })
	return failed
}

// Restart asks systemd to restart the unit, or start it, and does not wait: it
// may be our own.
func (m *Manager) Restart(ctx context.Context, name string) error {
	err := m.ask(ctx, func(ctx context.Context, b bus) error {
		_, err := b.RestartUnitContext(ctx, name, "replace", nil)
		return err
	})
	if err != nil {
		return fmt.Errorf("restart %s: %w", name, err)
	}
	return nil
}

// Kill sends a signal to all processes of a unit. A unit that is not there is
// no error.
func (m *Manager) Kill(ctx context.Context, name string, signal syscall.Signal) error {
	return m.about(ctx, name, "send a signal to", func(ctx context.Context, b bus) error {
		return b.KillUnitWithTarget(ctx, name, dbus.All, int32(signal))
	})
}

// MainPID is the id of a service's main process, 0 if it has none.
func (m *Manager) MainPID(ctx context.Context, service string) (int, error) {
	var props map[string]any
	err := m.ask(ctx, func(ctx context.Context, b bus) error {
		var err error
		props, err = b.GetUnitTypePropertiesContext(ctx, service, "Service")
		return err
	})
	if err != nil {
		return 0, fmt.Errorf("ask for the main process of %s: %w", service, err)
	}
	pid, ok := props["MainPID"].(uint32)
	if !ok {
		return 0, fmt.Errorf("ask for the main process of %s: systemd does not say MainPID", service)
	}
	return int(pid), nil
}

// State is systemd's opinion of the whole system: "running", "degraded" (a unit
// failed), "starting", "maintenance", "stopping" (systemctl(1),
// is-system-running).
func (m *Manager) State(ctx context.Context) (string, error) {
	value, err := m.managerProperty(ctx, "SystemState")
	if err != nil {
		return "", err
	}
	state, ok := value.(string)
	if !ok {
		return "", fmt.Errorf("systemd's SystemState is %v; want a word", value)
	}
	return state, nil
}

// RuntimeWatchdog is the interval after which the hardware watchdog resets the
// machine if systemd froze, as in force; 0 where it is off.
func (m *Manager) RuntimeWatchdog(ctx context.Context) (time.Duration, error) {
	value, err := m.managerProperty(ctx, "RuntimeWatchdogUSec")
	if err != nil {
		return 0, err
	}
	usec, ok := value.(uint64)
	if !ok {
		return 0, fmt.Errorf("systemd's RuntimeWatchdogUSec is %v; want a number", value)
	}
	if usec > math.MaxInt64/1000 { // infinity
		return 0, nil
	}
	return time.Duration(usec) * time.Microsecond, nil
}

func (m *Manager) managerProperty(ctx context.Context, name string) (any, error) {
	var value godbus.Variant
	err := m.ask(ctx, func(ctx context.Context, _ bus) error {
		m.lock.Lock()
		raw := m.raw
		m.lock.Unlock()
		if raw == nil {
			return godbus.ErrClosed
		}
		return raw.Object("org.freedesktop.systemd1", "/org/freedesktop/systemd1").
			CallWithContext(ctx, "org.freedesktop.DBus.Properties.Get", 0, "org.freedesktop.systemd1.Manager", name).
			Store(&value)
	})
	if err != nil {
		return nil, fmt.Errorf("ask systemd for its %s: %w", name, err)
	}
	return value.Value(), nil
}
