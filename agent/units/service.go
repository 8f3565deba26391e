package units

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"xnodeos.org/internal/unit"
)

// Start starts a transient service and does not wait for it: Wait does. The
// unit remains after its end, for any process to read its result, until Forget.
// Where a unit of this name exists the error is unit.ErrExists and nothing changed.
func (m *Manager) Start(ctx context.Context, s unit.Service) error {
	props, err := serviceProperties(s)
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	if err := m.start(ctx, s.Name, props, nil); err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	return nil
}

// start asks once: an answer that was lost must not start a thing twice.
func (m *Manager) start(ctx context.Context, name string, props []dbus.Property, aux []dbus.PropertyCollection) error {
	err := m.askOnce(ctx, func(ctx context.Context, b bus) error {
		_, err := b.StartTransientUnitAux(ctx, name, "fail", props, aux, nil)
		return err
	})
	if refusedAs(err, "UnitExists") {
		return fmt.Errorf("%w (%w)", unit.ErrExists, err)
	}
	return err
}

func property(name string, value any) dbus.Property {
	return dbus.Property{Name: name, Value: godbus.MakeVariant(value)}
}

// serviceProperties are systemd.service(5)'s settings as D-Bus spells them.
func serviceProperties(s unit.Service) ([]dbus.Property, error) {
	if err := checkService(s); err != nil {
		return nil, err
	}
	props := append(commonProperties(s.Description, s.Argv),
		// An ended unit stays until its result was read.
		property("RemainAfterExit", true),
		property("CollectMode", "inactive"),
	)
	if len(s.Env) > 0 {
		props = append(props, property("Environment", s.Env))
	}
	if s.RuntimeMax > 0 {
		props = append(props, property("RuntimeMaxUSec", microseconds(s.RuntimeMax)))
	}
	if s.MemoryMax > 0 {
		props = append(props, property("MemoryMax", s.MemoryMax), property("MemorySwapMax", uint64(0)))
	}
	if s.TasksMax > 0 {
		props = append(props, property("TasksMax", s.TasksMax))
	}
	if s.Confinement == unit.Confined {
		props = append(props, confinement()...)
	}
	return props, nil
}

func checkService(s unit.Service) error {
	if !strings.HasSuffix(s.Name, ".service") {
		return fmt.Errorf("the unit name %q must end in \".service\"", s.Name)
	}
	if s.Confinement != unit.Root && s.Confinement != unit.Confined {
		return fmt.Errorf("confinement %q is unknown", s.Confinement)
	}
	return checkArgv(s.Argv)
}

func checkArgv(argv []string) error {
	if len(argv) == 0 || !filepath.IsAbs(argv[0]) {
		return fmt.Errorf("the command %q must begin with an absolute path", argv)
	}
	return nil
}

func commonProperties(description string, argv []string) []dbus.Property {
	return []dbus.Property{
		dbus.PropDescription(description),
		// Type=exec: a program that is not there fails the unit with code 203.
		dbus.PropType("exec"),
		property("ExecStart", []command{{argv[0], verbatim(argv), false}}),
		// How long the processes that are asked to end may take.
		property("TimeoutStopUSec", microseconds(10*time.Second)),
	}
}

// command is an element of ExecStart, a(sasb). ExecStartEx could switch the
// variables off, but systemd 252 writes that word into the unit's file and does
// not read it again: the next daemon-reload takes the command away.
type command struct {
	Path    string
	Argv    []string
	Failing bool // may fail
}

// verbatim keeps systemd from putting variables for words with "$".
func verbatim(argv []string) []string {
	out := make([]string, len(argv))
	for i, word := range argv {
		out[i] = strings.ReplaceAll(word, "$", "$$")
	}
	return out
}

// confinement shuts a command of the user in. It may still use the network and
// talk to sockets that everybody may talk to: that is what it probes.
func confinement() []dbus.Property {
	return []dbus.Property{
		property("DynamicUser", true),
		property("NoNewPrivileges", true),
		property("PrivateDevices", true),
		property("ProtectSystem", "strict"),
		property("ProtectHome", "yes"),
		property("ProtectKernelModules", true),
		property("ProtectKernelTunables", true),
		property("ProtectControlGroups", true),
		property("RestrictSUIDSGID", true),
		property("CapabilityBoundingSet", uint64(0)),
	}
}

func microseconds(d time.Duration) uint64 { return uint64(max(d, time.Microsecond) / time.Microsecond) }

// Poll is how often Wait looks. systemd's signals would be cheaper, and are
// lost with the connection when it re-executes itself in the middle of a switch.
const (
	pollFirst = 20 * time.Millisecond
	pollMost  = 250 * time.Millisecond
)

// Wait waits until the unit ended and returns its result. A unit that is not
// there gives State Gone and no error.
func (m *Manager) Wait(ctx context.Context, name string) (unit.Result, error) {
	pause := pollFirst
	for {
		r, err := m.Result(ctx, name)
		if err != nil {
			return r, fmt.Errorf("wait for %s: %w", name, err)
		}
		if r.State != unit.Running {
			return r, nil
		}
		if err := sleep(ctx, pause); err != nil {
			return r, fmt.Errorf("wait for %s: %w", name, err)
		}
		pause = min(pause*2, pollMost)
	}
}

// Result says how a unit is now; it does not wait for it.
func (m *Manager) Result(ctx context.Context, name string) (unit.Result, error) {
	state, err := m.state(ctx, name)
	if err != nil || state == unit.Gone {
		return unit.Result{State: state, ExitCode: -1}, err
	}
	var props map[string]any
	if state == unit.Ended || strings.HasSuffix(name, ".service") {
		err = m.ask(ctx, func(ctx context.Context, b bus) error {
			props, err = b.GetUnitTypePropertiesContext(ctx, name, "Service")
			return err
		})
		if err != nil {
			return unit.Result{}, fmt.Errorf("read the result of %s: %w", name, err)
		}
	}
	return resultOf(state, props), nil
}

func (m *Manager) state(ctx context.Context, name string) (unit.State, error) {
	status, err := m.status(ctx, name)
	if err != nil {
		return "", err
	}
	return stateOf(status), nil
}

func (m *Manager) status(ctx context.Context, name string) (dbus.UnitStatus, error) {
	var list []dbus.UnitStatus
	err := m.ask(ctx, func(ctx context.Context, b bus) error {
		var err error
		list, err = b.ListUnitsByNamesContext(ctx, []string{name})
		return err
	})
	if err != nil {
		return dbus.UnitStatus{}, fmt.Errorf("ask for %s: %w", name, err)
	}
	if len(list) != 1 {
		return dbus.UnitStatus{}, fmt.Errorf("ask for %s: systemd answers with %d units; is the name right?", name, len(list))
	}
	return list[0], nil
}

// stateOf maps systemd's words. A unit that is not loaded is listed too, as
// "not-found" and "inactive".
func stateOf(s dbus.UnitStatus) unit.State {
	switch {
	case s.JobId != 0:
		return unit.Running
	case s.ActiveState == "failed":
		return unit.Ended
	case s.LoadState != "loaded" || s.ActiveState == "inactive":
		return unit.Gone
	case s.ActiveState == "active" && s.SubState == "exited":
		return unit.Ended
	default:
		return unit.Running
	}
}

// resultOf reads the properties of org.freedesktop.systemd1.Service. The codes
// are waitid(2)'s: 1 exited, 2 killed, 3 killed with a core dump.
func resultOf(state unit.State, props map[string]any) unit.Result {
	r := unit.Result{State: state, ExitCode: -1, Argv: argvOf(props)}
	if state != unit.Ended {
		return r
	}
	r.Reason, _ = props["Result"].(string)
	code, _ := props["ExecMainCode"].(int32)
	status, _ := props["ExecMainStatus"].(int32)
	switch code {
	case 1:
		r.ExitCode = int(status)
	case 2, 3:
		r.Signal = syscall.Signal(status)
	}
	return r
}

// argvOf reads ExecStart, an array of (path, argv, ignore, times and codes).
func argvOf(props map[string]any) []string {
	list, _ := props["ExecStart"].([][]any)
	if len(list) == 0 || len(list[0]) < 2 {
		return nil
	}
	argv, _ := list[0][1].([]string)
	for i, word := range argv {
		argv[i] = strings.ReplaceAll(word, "$$", "$") // as it was before verbatim
	}
	return argv
}

// Forget stops the unit if it runs, waits for its end, and makes systemd forget
// its result. A unit that is not there is no error.
func (m *Manager) Forget(ctx context.Context, name string) error {
	if err := m.forget(ctx, name); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	return nil
}

func (m *Manager) forget(ctx context.Context, name string) error {
	for pause := pollFirst; ; pause = min(pause*2, pollMost) {
		status, err := m.status(ctx, name)
		switch {
		case err != nil:
			return err
		case status.ActiveState == "failed" && status.JobId == 0:
			err = m.about(ctx, name, "", func(ctx context.Context, b bus) error { return b.ResetFailedUnitContext(ctx, name) })
		case stateOf(status) == unit.Gone:
			return nil
		default:
			err = m.about(ctx, name, "", func(ctx context.Context, b bus) error {
				_, err := b.StopUnitContext(ctx, name, "replace", nil)
				return err
			})
		}
		if err != nil {
			return err
		}
		if err := sleep(ctx, pause); err != nil {
			return err
		}
	}
}

// Stop stops a unit once and waits until what ran then has ended. Unlike Forget
// it does not mind that something starts the unit again, as a socket does.
func (m *Manager) Stop(ctx context.Context, name string) error {
	pid, err := m.MainPID(ctx, name)
	if err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	err = m.about(ctx, name, "stop", func(ctx context.Context, b bus) error {
		_, err := b.StopUnitContext(ctx, name, "replace", nil)
		return err
	})
	if err != nil || pid == 0 {
		return err
	}
	for pause := pollFirst; ; pause = min(pause*2, pollMost) {
		now, err := m.MainPID(ctx, name)
		if err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
		if now != pid {
			return nil
		}
		if err := sleep(ctx, pause); err != nil {
			return fmt.Errorf("stop %s: %w", name, err)
		}
	}
}

// about asks something about a unit; that there is none is no error.
func (m *Manager) about(ctx context.Context, name, verb string, question func(context.Context, bus) error) error {
	err := m.ask(ctx, question)
	if refusedAs(err, "NoSuchUnit") || err == nil {
		return nil
	}
	if verb == "" {
		return err
	}
	return fmt.Errorf("%s %s: %w", verb, name, err)
}

// Run starts a service, waits for its end and forgets it. If the context ends
// first the service is stopped. One of this name that is there already was left
// by a process that was killed while it waited: it makes room.
func (m *Manager) Run(ctx context.Context, s unit.Service) (unit.Result, error) {
	err := m.Start(ctx, s)
	if errors.Is(err, unit.ErrExists) {
		if err = m.Forget(ctx, s.Name); err == nil {
			err = m.Start(ctx, s)
		}
	}
	if err != nil {
		return unit.Result{}, err
	}
	r, err := m.Wait(ctx, s.Name)
	// What was started is ended also when the caller has no time left.
	cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), callLimit)
	defer cancel()
	return r, errors.Join(err, m.Forget(cleanup, s.Name))
}
