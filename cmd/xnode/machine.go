package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/agent"
	"xnodeos.org/agent/activate"
	"xnodeos.org/agent/probe"
	"xnodeos.org/agent/statusapi"
	"xnodeos.org/agent/units"
	"xnodeos.org/internal/command"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/daemon"
	"xnodeos.org/internal/unit"
)

// machine is this machine as the applier sees it.
type machine struct {
	at    layout
	units *units.Manager
}

// World implements apply.Machine.
func (m machine) World(context.Context) (agent.World, error) {
	var w agent.World
	id, err := os.ReadFile(m.at.path("proc/sys/kernel/random/boot_id"))
	if err != nil {
		return w, fmt.Errorf("read boot id: %w", err)
	}
	w.BootID = strings.TrimSpace(string(id))
	if w.Booted, err = activate.Booted(m.at.root); err != nil {
		return w, err
	}
	if w.Current, err = activate.Current(m.at.root); err != nil {
		return w, err
	}
	medium, err := activate.Medium(m.at.root, w.Booted)
	if err != nil {
		return w, err
	}
	w.Medium = agent.Medium(medium)
	was, err := m.at.booted()
	if err != nil {
		return w, err
	}
	w.BootedSequence = was.Sequence
	return w, nil
}

// Need implements apply.Machine.
func (m machine) Need(_ context.Context, booted, candidate string) (agent.Arm, error) {
	only, err := activate.BootOnly(m.at.root, candidate)
	if err != nil || only {
		return agent.Reboot, err
	}
	medium, err := activate.Medium(m.at.root, booted)
	if err != nil {
		return "", err
	}
	difference, err := activate.Compare(m.at.root, booted, candidate)
	if err != nil {
		return "", err
	}
	if difference.Needs(medium) != activate.NeedNothing {
		return agent.Reboot, nil
	}
	return agent.Live, nil
}

// Uptime implements apply.Machine.
func (m machine) Uptime() time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano())
}

// switcher switches the machine in a unit of its own.
type switcher struct {
	activate.Activator
	// baseline are the units that failed before the trial: journalled, because
	// asking again after a restart of the applier would excuse what it broke.
	baseline func() []string
}

// Switch implements apply.Switcher.
func (s switcher) Switch(ctx context.Context, system string, limit time.Duration) (agent.SwitchResult, string, error) {
	path, err := nix.ParseStorePath(system)
	if err != nil {
		return "", "", err
	}
	var failing []unit.Failed
	for _, name := range s.baseline() {
		failing = append(failing, unit.Failed{Name: name})
	}
	out, err := s.Activator.Switch(ctx, activate.Request{System: path, Limit: limit, Failing: failing})
	switch {
	case errors.Is(err, activate.ErrBusy):
		return agent.SwitchBusy, err.Error(), nil
	case errors.Is(err, activate.ErrBootOnly):
		return agent.SwitchReboot, err.Error(), nil
	case err != nil:
		return "", "", err
	}
	switch out.Verdict {
	case activate.Activated:
		return agent.SwitchOK, "", nil
	case activate.NeedsReboot:
		return agent.SwitchReboot, out.Why, nil
	case activate.Refused:
		return agent.SwitchBusy, out.Why, nil
	default:
		return agent.SwitchFailed, out.Why, nil
	}
}

// Stop implements apply.Switcher.
func (s switcher) Stop(ctx context.Context) error { return s.Abort(ctx) }

// The applier's own units.
const (
	applierUnit = "xnode-apply.service"
	deadManUnit = "xnode-deadman"
)

// deadMan is a timer of systemd that runs the old generation's program.
type deadMan struct{ units *units.Manager }

// Arm implements apply.DeadMan.
func (d deadMan) Arm(ctx context.Context, old string, after time.Duration) error {
	if _, err := d.units.Disarm(ctx, deadManUnit); err != nil {
		return err
	}
	// One that failed in an earlier trial keeps the name, and no trial could
	// begin any more. None is at work: this process holds the lock.
	if err := d.units.Forget(ctx, deadManUnit+".service"); err != nil {
		return err
	}
	return d.units.Arm(ctx, unit.Alarm{
		Name: deadManUnit, Description: "Go back to " + old, After: after,
		Argv: []string{filepath.Join(old, "sw/bin/xnode"), "apply", "--dead-man"}, RuntimeMax: max(30*time.Minute, 2*after),
	})
}

// Disarm implements apply.DeadMan.
func (d deadMan) Disarm(ctx context.Context) error {
	_, err := d.units.Disarm(ctx, deadManUnit)
	return err
}

// services are the applier's own unit.
type services struct{ units *units.Manager }

// HandOver implements apply.Services: systemd starts what the unit file of the
// running system says by now.
func (s services) HandOver(ctx context.Context) error { return s.units.Restart(ctx, applierUnit) }

// StopApplier implements apply.Services.
func (s services) StopApplier(ctx context.Context) error { return s.units.Stop(ctx, applierUnit) }

// power reboots the machine.
type power struct{}

// Reboot implements apply.Power.
func (power) Reboot(ctx context.Context, why string) error {
	return command.Run(ctx, command.Cmd{Name: "systemctl", Args: []string{"--message=xnode: " + why, "reboot"}})
}

// rereader asks the follower for what DNS says.
type rereader struct{ *statusapi.Client }

// Reread implements probe.Follower.
func (r rereader) Reread(ctx context.Context) (probe.Answer, error) {
	got, err := r.Client.Reread(ctx)
	return probe.Answer{Texts: got.Texts, From: got.Source}, err
}

// probes are what a system asks of itself.
func (l layout) probes(system string) (probe.Set, error) {
	if system == "" {
		return probe.Default(), nil
	}
	name := l.path(system, "etc/xnode/probes.toml")
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return probe.Default(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("read probes: %w", err)
	}
	return probe.ParseLenient(name, data)
}

// closures asks the Nix database what is there.
type closures struct {
	at     layout
	socket string
}

// read walks from the system over all that it refers to.
func (c closures) read(ctx context.Context, system string) (*nix.ClosureList, error) {
	conn, err := daemon.Dial(ctx, daemon.Options{Socket: c.socket})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	root, err := nix.ParseStorePath(system)
	if err != nil {
		return nil, err
	}
	seen := map[nix.StorePath]bool{root: true}
	var infos []nix.PathInfo
	for next := []nix.StorePath{root}; len(next) > 0; next = next[1:] {
		info, err := conn.PathInfo(ctx, next[0])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", next[0], err)
		}
		infos = append(infos, info)
		for _, text := range info.References {
			ref, err := nix.ParseStorePath(text)
			if err != nil {
				return nil, err
			}
			if !seen[ref] {
				seen[ref] = true
				next = append(next, ref)
			}
		}
	}
	return nix.NewClosureList(infos)
}

// Sync implements apply.Store.
func (c closures) Sync(context.Context) error {
	folder, err := os.Open(c.at.path("nix/store"))
	if err != nil {
		return fmt.Errorf("sync the store: %w", err)
	}
	defer func() { _ = folder.Close() }()
	if err := unix.Syncfs(int(folder.Fd())); err != nil {
		return fmt.Errorf("sync the store: %w", err)
	}
	return nil
}
