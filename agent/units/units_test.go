package units

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/unit"
)

// fake plays go-systemd's connection. Only what a test sets works.
type fake struct {
	units    []dbus.UnitStatus // what is listed, one after the other; the last stays
	props    map[string]any
	pids     []uint32 // main processes, one after the other; the last stays
	startErr error
	errs     []error // of the next questions, before they are answered
	calls    []string
	closed   bool
}

func (f *fake) next(call string) error {
	f.calls = append(f.calls, call)
	if len(f.errs) == 0 {
		return nil
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return err
}

func (f *fake) StartTransientUnitAux(_ context.Context, name, mode string, _ []dbus.Property, _ []dbus.PropertyCollection, _ chan<- string) (int, error) {
	if err := f.next("start " + name + " " + mode); err != nil {
		return 0, err
	}
	return 1, f.startErr
}

func (f *fake) StopUnitContext(_ context.Context, name, _ string, _ chan<- string) (int, error) {
	return 1, f.next("stop " + name)
}

func (f *fake) RestartUnitContext(_ context.Context, name, mode string, _ chan<- string) (int, error) {
	return 1, f.next("restart " + name + " " + mode)
}

func (f *fake) KillUnitWithTarget(_ context.Context, name string, target dbus.Who, _ int32) error {
	return f.next("kill " + name + " " + string(target))
}

func (f *fake) ResetFailedUnitContext(_ context.Context, name string) error {
	return f.next("reset " + name)
}

func (f *fake) ListUnitsByNamesContext(ctx context.Context, names []string) ([]dbus.UnitStatus, error) {
	if err := f.next("list " + names[0]); err != nil {
		return nil, err
	}
	if len(f.units) == 0 { // a systemd that froze
		<-ctx.Done()
		return nil, ctx.Err()
	}
	u := f.units[0]
	if len(f.units) > 1 {
		f.units = f.units[1:]
	}
	return []dbus.UnitStatus{u}, nil
}

func (f *fake) ListUnitsContext(context.Context) ([]dbus.UnitStatus, error) {
	return f.units, f.next("list")
}

func (f *fake) GetUnitTypePropertiesContext(_ context.Context, name, _ string) (map[string]any, error) {
	if len(f.pids) > 0 {
		pid := f.pids[0]
		if len(f.pids) > 1 {
			f.pids = f.pids[1:]
		}
		return map[string]any{"MainPID": pid}, f.next("get " + name)
	}
	return f.props, f.next("get " + name)
}
func (f *fake) Connected() bool { return !f.closed }
func (f *fake) Close()          { f.closed = true }

func status(load, active, sub string) dbus.UnitStatus {
	return dbus.UnitStatus{LoadState: load, ActiveState: active, SubState: sub}
}

var (
	running  = status("loaded", "active", "running")
	exited   = status("loaded", "active", "exited")
	failed   = status("loaded", "failed", "failed")
	notFound = status("not-found", "inactive", "dead")
)

func refusal(name string) error { return godbus.Error{Name: "org.freedesktop.systemd1." + name} }

func TestStates(t *testing.T) {
	t.Parallel()
	job := exited
	job.JobId = 7
	for name, test := range map[string]struct {
		status dbus.UnitStatus
		want   unit.State
	}{
		"running": {running, unit.Running}, "exited": {exited, unit.Ended}, "failed": {failed, unit.Ended}, "absent": {notFound, unit.Gone},
		"dead": {status("loaded", "inactive", "dead"), unit.Gone}, "starting": {status("loaded", "activating", "start"), unit.Running},
		"between starts": {status("loaded", "activating", "auto-restart"), unit.Running}, "stopping": {status("loaded", "deactivating", "stop-sigterm"), unit.Running},
		"failed, file gone": {status("not-found", "failed", "failed"), unit.Ended}, "job waits": {job, unit.Running},
	} {
		if got := stateOf(test.status); got != test.want {
			t.Errorf("%s: %s; want %s", name, got, test.want)
		}
	}
}

func TestResultOf(t *testing.T) {
	t.Parallel()
	props := func(result string, code, status int32) map[string]any {
		return map[string]any{
			"Result": result, "ExecMainCode": code, "ExecMainStatus": status,
			"ExecStart": [][]any{{"/p", []string{"/p", "a"}, false}},
		}
	}
	argv := []string{"/p", "a"}
	for name, test := range map[string]struct {
		state unit.State
		props map[string]any
		want  unit.Result
	}{
		"exit":      {unit.Ended, props("exit-code", 1, 100), unit.Result{State: unit.Ended, Reason: "exit-code", ExitCode: 100, Argv: argv}},
		"success":   {unit.Ended, props("success", 1, 0), unit.Result{State: unit.Ended, Reason: "success", Argv: argv}},
		"signal":    {unit.Ended, props("signal", 2, 9), unit.Result{State: unit.Ended, Reason: "signal", ExitCode: -1, Signal: syscall.SIGKILL, Argv: argv}},
		"core":      {unit.Ended, props("core-dump", 3, 6), unit.Result{State: unit.Ended, Reason: "core-dump", ExitCode: -1, Signal: syscall.SIGABRT, Argv: argv}},
		"never ran": {unit.Ended, props("resources", 0, 0), unit.Result{State: unit.Ended, Reason: "resources", ExitCode: -1, Argv: argv}},
		"running":   {unit.Running, props("success", 0, 0), unit.Result{State: unit.Running, ExitCode: -1, Argv: argv}},
		"odd":       {unit.Ended, map[string]any{"Result": 7, "ExecMainCode": "x", "ExecStart": [][]any{{1}}}, unit.Result{State: unit.Ended, ExitCode: -1}},
	} {
		if diff := cmp.Diff(test.want, resultOf(test.state, test.props)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestWait sees a unit through, with a connection that breaks in between.
func TestWait(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := &fake{units: []dbus.UnitStatus{running, running, failed}, errs: []error{nil, nil, godbus.ErrClosed, nil}}
		f.props = map[string]any{"Result": "exit-code", "ExecMainCode": int32(1), "ExecMainStatus": int32(4)}
		m := &Manager{bus: f}
		r, err := m.Wait(t.Context(), "a.service")
		if err != nil || r.ExitCode != 4 {
			t.Errorf("Wait: %+v, %v; want exit code 4", r, err)
		}
	})
}

// A systemd that froze must not hold its callers.
func TestFrozen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := (&Manager{bus: &fake{}}).Wait(ctx, "a.service")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Minute {
			t.Errorf("Wait: %v after %s; want the context's error after a minute", err, time.Since(begin))
		}
		_, err = (&Manager{bus: &fake{}}).status(t.Context(), "a.service")
		if !errors.Is(err, unit.ErrUnavailable) || !strings.Contains(err.Error(), "no answer") {
			t.Errorf("status: %v; want unit.ErrUnavailable in the end", err)
		}
	})
}

func TestForget(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		units []dbus.UnitStatus
		errs  []error
		want  []string
	}{
		"absent":     {[]dbus.UnitStatus{notFound}, nil, []string{"list a.service"}},
		"failed":     {[]dbus.UnitStatus{failed, notFound}, nil, []string{"list a.service", "reset a.service", "list a.service"}},
		"running":    {[]dbus.UnitStatus{running, failed, notFound}, nil, []string{"list a.service", "stop a.service", "list a.service", "reset a.service", "list a.service"}},
		"gone first": {[]dbus.UnitStatus{failed, notFound}, []error{nil, refusal("NoSuchUnit")}, []string{"list a.service", "reset a.service", "list a.service"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &fake{units: test.units, errs: test.errs}
				if err := (&Manager{bus: f}).Forget(t.Context(), "a.service"); err != nil {
					t.Error(err)
				}
				if diff := cmp.Diff(test.want, f.calls); diff != "" {
					t.Errorf("calls (-want +got):\n%s", diff)
				}
			})
		})
	}
	if err := (&Manager{bus: &fake{units: []dbus.UnitStatus{running}, errs: []error{nil, refusal("AccessDenied")}}}).Forget(t.Context(), "a.service"); err == nil {
		t.Error("a refusal is no error")
	}
}

// A socket may start the service again before it is seen as stopped.
func TestStop(t *testing.T) {
	t.Parallel()
	for name, pids := range map[string][]uint32{"stops": {7, 7, 0}, "starts again": {7, 8}, "does not run": {0}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := &fake{pids: pids}
				if err := (&Manager{bus: f}).Stop(t.Context(), "a.service"); err != nil || len(f.pids) > 1 {
					t.Errorf("Stop: %v after %q", err, f.calls)
				}
				if want := "stop a.service"; len(f.calls) < 2 || f.calls[1] != want {
					t.Errorf("calls %q; want %q once", f.calls, want)
				}
			})
		})
	}
}

func TestStart(t *testing.T) {
	t.Parallel()
	f := &fake{}
	m := &Manager{bus: f}
	good := unit.Service{Name: "a.service", Argv: []string{"/a"}}
	if err := m.Start(t.Context(), good); err != nil || f.calls[0] != "start a.service fail" {
		t.Errorf("Start: %v, %q", err, f.calls)
	}
	f.startErr = refusal("UnitExists")
	if err := m.Start(t.Context(), good); !errors.Is(err, unit.ErrExists) {
		t.Errorf("Start: %v; want unit.ErrExists", err)
	}
	// An answer that was lost must not start it twice.
	f = &fake{errs: []error{godbus.ErrClosed}}
	if err := (&Manager{bus: f}).Start(t.Context(), good); !errors.Is(err, godbus.ErrClosed) || len(f.calls) != 1 {
		t.Errorf("Start over a broken connection: %v after %q", err, f.calls)
	}
	for name, s := range map[string]unit.Service{
		"ending": {Name: "a", Argv: []string{"/a"}}, "relative": {Name: "a.service", Argv: []string{"a"}}, "nothing": {Name: "a.service"},
		"confinement": {Name: "a.service", Argv: []string{"/a"}, Confinement: "loose"},
	} {
		if err := m.Start(t.Context(), s); err == nil {
			t.Errorf("%s: Start took %+v", name, s)
		}
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	props, err := serviceProperties(unit.Service{
		Name: "a.service", Argv: []string{"/a"}, Env: []string{"A=b"}, RuntimeMax: time.Second, MemoryMax: 5, TasksMax: 6, Confinement: unit.Confined,
	})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, p := range props {
		got[p.Name] = p.Value.String()
	}
	for name, want := range map[string]string{
		"RuntimeMaxUSec": "@t 1000000", "MemoryMax": "@t 5", "TasksMax": "@t 6", "DynamicUser": "true", "NoNewPrivileges": "true",
		"Environment": `["A=b"]`, "RemainAfterExit": "true", "Type": `"exec"`, "ProtectSystem": `"strict"`,
	} {
		if got[name] != want {
			t.Errorf("%s = %s; want %s", name, got[name], want)
		}
	}
	if plain, err := serviceProperties(unit.Service{Name: "a.service", Argv: []string{"/a"}}); err != nil || len(plain) >= len(props)-8 {
		t.Errorf("a plain service has %d properties, %v", len(plain), err)
	}
}

func TestAlarm(t *testing.T) {
	t.Parallel()
	waiting, elapsed := status("loaded", "active", "waiting"), status("loaded", "active", "elapsed")
	for name, test := range map[string]struct {
		units []dbus.UnitStatus // timer, service, ...
		want  unit.AlarmState
	}{
		"armed": {[]dbus.UnitStatus{waiting}, unit.AlarmArmed}, "gone": {[]dbus.UnitStatus{notFound, notFound}, unit.AlarmGone},
		"at work": {[]dbus.UnitStatus{elapsed, running}, unit.AlarmFired}, "over": {[]dbus.UnitStatus{elapsed, notFound}, unit.AlarmFired},
		"failed": {[]dbus.UnitStatus{notFound, failed}, unit.AlarmFired},
	} {
		if got, err := (&Manager{bus: &fake{units: test.units}}).Alarm(t.Context(), "a"); err != nil || got != test.want {
			t.Errorf("%s: %s, %v; want %s", name, got, err, test.want)
		}
	}
	// It has fired once and would once more.
	again := &fake{units: []dbus.UnitStatus{waiting, notFound}, props: map[string]any{"LastTriggerUSecMonotonic": uint64(5)}}
	if got, err := (&Manager{bus: again}).Alarm(t.Context(), "a"); err != nil || got != unit.AlarmFired {
		t.Errorf("Alarm between two triggers: %s, %v; want that it has fired", got, err)
	}
	if diff := cmp.Diff([]monotonic{{"OnBootSec", 103000000}, {"OnActiveSec", 3000000}}, triggers(100*time.Second, 3*time.Second)); diff != "" {
		t.Errorf("triggers (-want +got):\n%s", diff)
	}
	// It fires between the look and the stop.
	f := &fake{units: []dbus.UnitStatus{waiting, notFound, running}}
	if got, err := (&Manager{bus: f}).Disarm(t.Context(), "a"); err != nil || got != unit.AlarmFired {
		t.Errorf("Disarm: %s, %v; want that it has fired", got, err)
	}
	starting := notFound
	starting.JobId = 7
	for want, list := range map[string][]dbus.UnitStatus{"": {starting, starting, waiting}, "did not start": {starting, failed}} {
		synctest.Test(t, func(t *testing.T) {
			err := (&Manager{bus: &fake{units: list}}).Arm(t.Context(), unit.Alarm{Name: "a", After: time.Second, Argv: []string{"/a"}})
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				t.Errorf("Arm: %v; want %q", err, want)
			}
		})
	}
	m := &Manager{bus: &fake{}}
	for _, a := range []unit.Alarm{{Name: "a", Argv: []string{"/a"}}, {Name: "a", After: time.Second}} {
		if err := m.Arm(t.Context(), a); err == nil {
			t.Errorf("Arm took %+v", a)
		}
	}
}

func TestFailed(t *testing.T) {
	t.Parallel()
	list := []dbus.UnitStatus{running, failed, status("loaded", "activating", "auto-restart"), exited}
	list[1].Name, list[2].Name = "z.service", "a.service"
	got, err := (&Manager{bus: &fake{units: list}}).Failed(t.Context())
	want := []unit.Failed{{Name: "a.service", How: "auto-restart"}, {Name: "z.service", How: "failed"}}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Failed: %v (-want +got):\n%s", err, diff)
	}
}

func TestRestartAndKill(t *testing.T) {
	t.Parallel()
	f := &fake{errs: []error{nil, refusal("NoSuchUnit"), nil, refusal("NoSuchUnit")}}
	m := &Manager{bus: f}
	if err := m.Restart(t.Context(), "a.service"); err != nil {
		t.Error(err)
	}
	if err := m.Restart(t.Context(), "a.service"); err == nil {
		t.Error("a unit that is not there was restarted")
	}
	for range 2 {
		if err := m.Kill(t.Context(), "a.service", syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
}

func TestOpenFails(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := OpenAt(t.Context(), filepath.Join(dir, "none"), filepath.Join(dir, "neither")); !errors.Is(err, unit.ErrUnavailable) ||
		!strings.Contains(err.Error(), "PID 1 is systemd") || !strings.Contains(err.Error(), "neither") {
		t.Errorf("OpenAt without sockets: %v", err)
	}
	// A systemd that froze lets everybody connect and says nothing.
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", filepath.Join(dir, "frozen"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := OpenAt(ctx, filepath.Join(dir, "frozen")); !errors.Is(err, unit.ErrUnavailable) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("OpenAt of a frozen one: %v", err)
	}
}

func TestNotifier(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "n") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n := Notifier{Socket: socket}
	for want, send := range map[string]func() error{
		"READY=1\nSTATUS=a b": func() error { return n.Ready(t.Context(), "a\nb") },
		"STATUS=c":            func() error { return n.Status(t.Context(), "c") },
		"WATCHDOG=1":          func() error { return n.Alive(t.Context()) },
		"STOPPING=1":          func() error { return n.Stopping(t.Context()) },
	} {
		if err := send(); err != nil {
			t.Fatal(err)
		}
		buffer := make([]byte, 100)
		k, err := conn.Read(buffer)
		if err != nil || string(buffer[:k]) != want {
			t.Errorf("systemd hears %q, %v; want %q", buffer[:k], err, want)
		}
	}
	if err := (Notifier{}).Ready(t.Context(), ""); err != nil {
		t.Errorf("without systemd: %v", err)
	}
	if err := (Notifier{Socket: filepath.Join(dir, "none")}).Alive(t.Context()); err == nil {
		t.Error("nobody listens and nobody notices")
	}
}

func TestWatchdogInterval(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		usec, pid string
		want      time.Duration
		bad       bool
	}{
		{"60000000", "7", 30 * time.Second, false}, {"60000000", "", 30 * time.Second, false}, {"60000000", "8", 0, false}, {"", "", 0, false},
		{"x", "", 0, true}, {"0", "", 0, true}, {"99999999999999999999", "", 0, true}, {"4611686018427387904", "", 0, true},
	} {
		got, err := WatchdogInterval(test.usec, test.pid, 7)
		if got != test.want || (err != nil) != test.bad {
			t.Errorf("WatchdogInterval(%q, %q): %s, %v; want %s", test.usec, test.pid, got, err, test.want)
		}
	}
}
