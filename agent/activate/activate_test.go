package activate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"xnodeos.org/internal/bootspec"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/unit"
)

const (
	oldSystem = "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-old"
	newSystem = "/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-new"
)

// systemd plays the manager: one unit, which ends as told.
type systemd struct {
	unit    *unit.Service
	result  unit.Result
	ends    unit.Result // of the next unit
	onEnd   func()      // what the switch does to the machine
	failed  []unit.Failed
	starts  int
	kills   []syscall.Signal
	forgets int
	err     error // of Start
}

func (s *systemd) Start(_ context.Context, u unit.Service) error {
	if s.err != nil {
		return s.err
	}
	if s.result.State != unit.Gone {
		return unit.ErrExists
	}
	s.starts++
	s.unit, s.result = &u, unit.Result{State: unit.Running, ExitCode: -1, Argv: u.Argv}
	return nil
}

func (s *systemd) Wait(ctx context.Context, name string) (unit.Result, error) {
	if err := ctx.Err(); err != nil {
		return unit.Result{}, err
	}
	if s.result.State == unit.Running {
		argv := s.result.Argv
		s.result = s.ends
		s.result.Argv = argv
		if s.onEnd != nil {
			s.onEnd()
		}
	}
	return s.Result(ctx, name)
}

func (s *systemd) Result(_ context.Context, name string) (unit.Result, error) {
	if name != SwitchUnit {
		return unit.Result{}, errors.New("another unit: " + name)
	}
	return s.result, nil
}

func (s *systemd) Kill(_ context.Context, _ string, sig syscall.Signal) error {
	s.kills = append(s.kills, sig)
	return nil
}

func (s *systemd) Forget(context.Context, string) error {
	s.forgets++
	s.result = unit.Result{State: unit.Gone, ExitCode: -1}
	return nil
}

func (s *systemd) Failed(context.Context) ([]unit.Failed, error) { return s.failed, nil }

// machine is a root with two systems, of which the old one runs.
func machine(t *testing.T) (*systemd, Activator) {
	t.Helper()
	root := t.TempDir()
	for _, system := range []string{oldSystem, newSystem} {
		put(t, root, system+"/"+program, "#!/bin/sh\n")
		put(t, root, system+"/kernel-params", "quiet")
		put(t, root, system+"/init-interface-version", "systemd 2")
		symlink(t, root, system+"/kernel", "/nix/store/k")
		symlink(t, root, system+"/kernel-modules", "/nix/store/m")
		put(t, root, system+"/initrd", "initrd")
	}
	put(t, root, lockFile, "")
	symlink(t, root, "/run/current-system", oldSystem)
	symlink(t, root, "/run/booted-system", oldSystem)
	s := &systemd{result: unit.Result{State: unit.Gone, ExitCode: -1}, ends: unit.Result{State: unit.Ended, Reason: "success"}}
	return s, Activator{Units: s, Root: root}
}

func put(t *testing.T, root, name, text string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func symlink(t *testing.T, root, name, target string) {
	t.Helper()
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	_ = os.Remove(path)
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

// hold takes the lock as another switch does.
func hold(t *testing.T, root string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(root, lockFile), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
}

func TestSwitch(t *testing.T) {
	t.Parallel()
	s, a := machine(t)
	s.failed = []unit.Failed{{Name: "old.service", How: "failed"}}
	s.onEnd = func() { symlink(t, a.Root, "/run/current-system", newSystem) }
	request := Request{System: newSystem, Limit: time.Minute, Failing: s.failed}
	got, err := a.Switch(t.Context(), request)
	if err != nil || got.Verdict != Activated || got.Current != newSystem || len(got.Failed) > 0 {
		t.Fatalf("Switch: %+v, %v", got, err)
	}
	want := unit.Service{
		Name: SwitchUnit, Description: "Switch to " + newSystem, RuntimeMax: time.Minute,
		Argv: []string{newSystem + "/bin/switch-to-configuration", "test"},
	}
	if diff := cmp.Diff(want, *s.unit); diff != "" {
		t.Errorf("the unit (-want +got):\n%s", diff)
	}
	// The applier was restarted before it wrote the outcome down.
	if again, err := a.Switch(t.Context(), request); err != nil || again.Verdict != Activated || s.starts != 1 {
		t.Errorf("Switch once more: %+v, %v after %d starts; want the same outcome of one", again, err, s.starts)
	}
	if system, _, err := a.Running(t.Context()); err != nil || system != newSystem {
		t.Errorf("Running: %q, %v; want %q", system, err, newSystem)
	}
	// Going back: the ended unit of the other system does not stand in the way.
	s.onEnd = func() { symlink(t, a.Root, "/run/current-system", oldSystem) }
	back, err := a.Switch(t.Context(), Request{System: oldSystem, Limit: time.Minute})
	if err != nil || back.Verdict != Activated || s.starts != 2 || len(back.Failed) != 1 {
		t.Errorf("Switch back: %+v, %v after %d starts", back, err, s.starts)
	}
	if err := a.Done(t.Context()); err != nil {
		t.Error(err)
	}
	if system, _, err := a.Running(t.Context()); err != nil || system != "" {
		t.Errorf("Running after Done: %q, %v; want none", system, err)
	}
}

func TestSwitchRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		prepare func(*testing.T, *systemd, Activator)
		system  nix.StorePath
		want    error
		text    string
	}{
		"busy lock": {func(t *testing.T, _ *systemd, a Activator) { hold(t, a.Root) }, newSystem, ErrBusy, lockFile},
		"another switch": {func(_ *testing.T, s *systemd, _ Activator) {
			s.result = unit.Result{State: unit.Running, Argv: []string{oldSystem + "/" + program, "test"}}
		}, newSystem, ErrBusy, oldSystem},
		"started meanwhile": {func(_ *testing.T, s *systemd, _ Activator) { s.err = unit.ErrExists }, newSystem, ErrBusy, "exists"},
		"no systemd":        {func(_ *testing.T, s *systemd, _ Activator) { s.err = unit.ErrUnavailable }, newSystem, unit.ErrUnavailable, newSystem},
		"boot only": {func(t *testing.T, _ *systemd, a Activator) {
			if err := os.Remove(filepath.Join(a.Root, newSystem, program)); err != nil {
				t.Fatal(err)
			}
		}, newSystem, ErrBootOnly, newSystem},
		"missing system": {nil, "/nix/store/cccccccccccccccccccccccccccccccc-none", os.ErrNotExist, "none"},
		"no store path":  {nil, "/bin", nix.ErrNotStorePath, "/bin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, a := machine(t)
			if test.prepare != nil {
				test.prepare(t, s, a)
			}
			_, err := a.Switch(t.Context(), Request{System: test.system, Limit: time.Minute})
			if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) || s.starts > 0 {
				t.Errorf("Switch: %v after %d starts; want %v and %q", err, s.starts, test.want, test.text)
			}
		})
	}
}

func TestAbort(t *testing.T) {
	t.Parallel()
	s, a := machine(t)
	s.result = unit.Result{State: unit.Running, Argv: command(newSystem)}
	if err := a.Abort(t.Context()); err != nil || len(s.kills) != 1 || s.kills[0] != syscall.SIGKILL || s.forgets != 1 {
		t.Errorf("Abort: %v, %v, %d", err, s.kills, s.forgets)
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	code := func(n int) unit.Result { return unit.Result{State: unit.Ended, Reason: "exit-code", ExitCode: n} }
	signal := func(n syscall.Signal, reason string) unit.Result {
		return unit.Result{State: unit.Ended, Reason: reason, ExitCode: -1, Signal: n}
	}
	fresh := []unit.Failed{{Name: "a.service", How: "failed"}}
	for name, test := range map[string]struct {
		result  unit.Result
		current string
		lock    Lock
		failed  []unit.Failed
		want    Verdict
		why     string
		old     []unit.Failed
	}{
		"done":                  {unit.Result{State: unit.Ended, Reason: "success"}, newSystem, false, nil, Activated, "", nil},
		"done, others fail":     {unit.Result{State: unit.Ended, Reason: "success"}, newSystem, false, fresh, Activated, "", nil},
		"done, but is not":      {unit.Result{State: unit.Ended, Reason: "success"}, oldSystem, false, nil, Failed, "current system is", nil},
		"reboot":                {code(100), newSystem, false, nil, NeedsReboot, "reboot", nil},
		"refused by lock":       {code(11), oldSystem, true, nil, Refused, "exit code 11", nil},
		"refused, nixos":        {code(1), oldSystem, true, nil, Refused, lockFile, nil},
		"1 without lock":        {code(1), oldSystem, false, nil, Failed, "it was not activated", nil},
		"1 after activation":    {code(1), newSystem, true, nil, Failed, "exit code 1", nil},
		"activation":            {code(2), newSystem, false, nil, Failed, "exit code 2", nil},
		"not EINTR":             {code(4), newSystem, false, fresh, Failed, "exit code 4; failed since: a.service", nil},
		"signal":                {signal(9, "signal"), newSystem, false, nil, Failed, "signal 9", nil},
		"SIGTERM":               {signal(15, "success"), newSystem, false, nil, Failed, "signal 15", nil},
		"core":                  {signal(11, "core-dump"), oldSystem, true, nil, Failed, "signal 11", nil},
		"timeout":               {signal(15, "timeout"), oldSystem, false, nil, Failed, "in time; it was not activated", nil},
		"missing program":       {code(203), oldSystem, false, nil, Failed, "203", nil},
		"vanished":              {unit.Result{State: unit.Gone, ExitCode: -1}, newSystem, false, nil, Failed, "stopped by somebody", nil},
		"4 by an old failure":   {code(4), newSystem, false, nil, Activated, "still: a.service", fresh},
		"4 by both":             {code(4), newSystem, false, []unit.Failed{{Name: "b.service"}}, Failed, "since: b.service", fresh},
		"4 by nothing":          {code(4), newSystem, false, nil, Failed, "exit code 4", nil},
		"4 before it began":     {code(4), oldSystem, false, nil, Failed, "not activated", fresh},
		"2 with an old failure": {code(2), newSystem, false, nil, Failed, "exit code 2", fresh},
		"100 by a timeout":      {unit.Result{State: unit.Ended, Reason: "timeout", ExitCode: 100}, newSystem, false, nil, Failed, "in time", nil},
	} {
		got := Judge(test.result, newSystem, test.current, test.lock, Failing{New: test.failed, Old: test.old})
		if got.Verdict != test.want || !strings.Contains(got.Why, test.why) || (test.want == Activated && test.old == nil) != (got.Why == "") {
			t.Errorf("%s: %s %q; want %s %q", name, got.Verdict, got.Why, test.want, test.why)
		}
	}
}

func TestLocked(t *testing.T) {
	t.Parallel()
	_, a := machine(t)
	for _, want := range []bool{false, false, true} {
		if want {
			hold(t, a.Root)
		}
		if got, err := Locked(a.Root); err != nil || got != want {
			t.Errorf("Locked: %t, %v; want %t", got, err, want)
		}
	}
	if got, err := Locked(t.TempDir()); err != nil || got {
		t.Errorf("Locked without a file: %t, %v", got, err)
	}
}

func TestCompare(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		change          func(*testing.T, string)
		text            string
		live, installed Need
	}{
		"same":    {func(*testing.T, string) {}, "", NeedNothing, NeedNothing},
		"kernel":  {func(t *testing.T, root string) { symlink(t, root, newSystem+"/kernel", "/nix/store/l") }, "kernel", NeedArtifact, NeedReboot},
		"initrd":  {func(t *testing.T, root string) { put(t, root, newSystem+"/initrd", "INITRD") }, "initrd", NeedNothing, NeedReboot},
		"longer":  {func(t *testing.T, root string) { put(t, root, newSystem+"/initrd", "initrd2") }, "initrd", NeedNothing, NeedReboot},
		"params":  {func(t *testing.T, root string) { put(t, root, newSystem+"/kernel-params", "loud!") }, "kernel parameters", NeedArtifact, NeedReboot},
		"modules": {func(t *testing.T, root string) { symlink(t, root, newSystem+"/kernel-modules", "/x") }, "kernel modules", NeedArtifact, NeedNothing},
		"gone": {func(t *testing.T, root string) {
			if err := os.Remove(filepath.Join(root, newSystem, "kernel-modules")); err != nil {
				t.Fatal(err)
			}
		}, "kernel modules", NeedArtifact, NeedNothing},
		"init":           {func(t *testing.T, root string) { put(t, root, newSystem+"/init-interface-version", "systemd 3") }, "init interface", NeedArtifact, NeedReboot},
		"inhibitors":     {func(t *testing.T, root string) { put(t, root, newSystem+"/switch-inhibitors", "dbus") }, "switch inhibitors", NeedArtifact, NeedReboot},
		"old inhibitors": {func(t *testing.T, root string) { put(t, root, oldSystem+"/switch-inhibitors", "dbus") }, "", NeedNothing, NeedNothing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, a := machine(t)
			test.change(t, a.Root)
			d, err := Compare(a.Root, oldSystem, newSystem)
			if err != nil || d.String() != test.text || d.Needs(bootspec.MediumLive) != test.live || d.Needs(bootspec.MediumInstalled) != test.installed {
				t.Errorf("Compare: %+v (%s), %v; want %q, live %q, installed %q", d, d, err, test.text, test.live, test.installed)
			}
		})
	}
}

func TestMachine(t *testing.T) {
	t.Parallel()
	_, a := machine(t)
	current, err := Current(a.Root)
	booted, err2 := Booted(a.Root)
	if errors.Join(err, err2) != nil || current != oldSystem || booted != oldSystem {
		t.Errorf("Current, Booted: %q, %q, %v", current, booted, errors.Join(err, err2))
	}
	if none, err := Current(t.TempDir()); err != nil || none != "" {
		t.Errorf("Current of an empty root: %q, %v", none, err)
	}
	put(t, a.Root, newSystem+"/boot.json", `{"org.nixos.bootspec.v1": {"init": "`+newSystem+`/init", "kernel": "`+newSystem+`/kernel",
		"kernelParams": [], "label": "l", "system": "x86_64-linux", "toplevel": "`+newSystem+`"}, "org.xnodeos.v1": {"medium": "live"}}`)
	if medium, err := Medium(a.Root, newSystem); err != nil || medium != bootspec.MediumLive {
		t.Errorf("Medium: %q, %v", medium, err)
	}
	if _, err := Medium(a.Root, oldSystem); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Medium without boot.json: %v", err)
	}
}
