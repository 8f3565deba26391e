package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"xnodeos.org/internal/unit"
)

const shell = "/bin/sh"

// result is a unit's result as text, so that the host compares a line.
func result(r unit.Result) string { return string(r.State) + ": " + r.String() }

// services starts units that end in every way.
func (g *guest) services(ctx context.Context) {
	for name, script := range map[string]string{
		"exit 0": "exit 0", "exit 4": "exit 4", "exit 100": "exit 100",
		"signal 9": "kill -9 $$", "signal 15": "kill -15 $$", "signal 6": "kill -6 $$",
	} {
		r, err := g.units.Run(ctx, unit.Service{Name: "agentunits-one.service", Argv: []string{shell, "-c", script}})
		g.say("service "+name, result(r), err)
	}
	r, err := g.units.Run(ctx, unit.Service{Name: "agentunits-one.service", Argv: []string{"/nonexistent/program"}})
	g.say("service missing", result(r), err)
	r, err = g.units.Run(ctx, unit.Service{Name: "agentunits-one.service", Argv: []string{g.self, "sleep", "10m"}, RuntimeMax: time.Second})
	g.say("service timeout", result(r), err)
	r, err = g.units.Run(ctx, unit.Service{
		Name: "agentunits-one.service", Env: []string{"WORD=a b%h"}, Argv: []string{shell, "-c", `[ "$WORD" = "a b%h" ] && [ "$1" = '$HOME %h' ]`, "sh", "$HOME %h"},
	})
	g.say("service words", result(r), err)
	r, err = g.units.Result(ctx, "agentunits-one.service")
	g.say("service forgotten", result(r), err)
	g.remembered(ctx)
	g.cancelled(ctx)
	g.confined(ctx)
}

// remembered starts a unit, drops the connection and reads the result on
// another, as after a restart of the applier.
func (g *guest) remembered(ctx context.Context) {
	s := unit.Service{Name: "agentunits-kept.service", Argv: []string{shell, "-c", "sleep 1; exit 7"}}
	if err := g.units.Start(ctx, s); err != nil {
		g.say("service remembered", nil, err)
		return
	}
	if err := g.units.Start(ctx, s); !errors.Is(err, unit.ErrExists) {
		g.say("service twice", nil, err)
	}
	g.units.Close()
	r, err := g.units.Wait(ctx, s.Name)
	g.say("service remembered", []any{result(r), r.Argv}, err)
	failed, err := g.units.Failed(ctx)
	g.say("service failed", failed, err)
	g.say("service forget", nil, g.units.Forget(ctx, s.Name))
	failed, err = g.units.Failed(ctx)
	g.say("service forgotten too", failed, err)
	g.say("service forget again", nil, g.units.Forget(ctx, s.Name))
}

// cancelled gives up waiting: the unit must end with that.
func (g *guest) cancelled(ctx context.Context) {
	short, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
	defer cancel()
	_, err := g.units.Run(short, unit.Service{Name: "agentunits-long.service", Argv: []string{g.self, "sleep", "10m"}})
	r, resultErr := g.units.Result(ctx, "agentunits-long.service")
	g.say("service cancelled", []any{errors.Is(err, context.DeadlineExceeded), result(r)}, resultErr)
	if err := g.units.Start(ctx, unit.Service{Name: "agentunits-long.service", Argv: []string{g.self, "sleep", "10m"}}); err != nil {
		g.say("service killed", nil, err)
		return
	}
	err = g.units.Kill(ctx, "agentunits-long.service", syscall.SIGKILL)
	r, waitErr := g.units.Wait(ctx, "agentunits-long.service")
	g.say("service killed", result(r), errors.Join(err, waitErr, g.units.Forget(ctx, "agentunits-long.service")))
}

// confined looks at what a confined unit may do.
func (g *guest) confined(ctx context.Context) {
	script := `[ "$(id -u)" -ne 0 ] || exit 11
touch /etc/agentunits 2>/dev/null && exit 12
touch /var/agentunits 2>/dev/null && exit 13
[ -b /dev/vda ] && exit 14
touch /tmp/agentunits || exit 15
cat /etc/shadow 2>/dev/null && exit 16
exit 0`
	r, err := g.units.Run(ctx, unit.Service{
		Name: "agentunits-confined.service", Argv: []string{shell, "-c", script}, Confinement: unit.Confined,
		MemoryMax: 64 << 20, TasksMax: 16,
	})
	_, leaked := os.Stat("/tmp/agentunits")
	g.say("service confined", []any{result(r), os.IsNotExist(leaked)}, err)
	r, err = g.units.Run(ctx, unit.Service{
		Name: "agentunits-greedy.service", Argv: []string{shell, "-c", "head -c 200000000 /dev/zero | tail -c 190000000 >/dev/null"}, MemoryMax: 16 << 20,
	})
	g.say("service greedy", result(r), err)
}

// alarm lets one fire and disarms another.
func (g *guest) alarm(ctx context.Context) {
	dir, err := os.MkdirTemp("/run", "agentunits-")
	if err != nil {
		g.say("alarm", nil, err)
		return
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "woken")
	a := unit.Alarm{Name: "agentunits-alarm", After: 2 * time.Second, Argv: []string{g.self, "sleep", "0s", file}}
	if err := g.units.Arm(ctx, a); err != nil {
		g.say("alarm", nil, err)
		return
	}
	state, err := g.units.Alarm(ctx, a.Name)
	g.say("alarm armed", state, err)
	g.say("alarm twice", errors.Is(g.units.Arm(ctx, a), unit.ErrExists), nil)
	for {
		if _, err := os.Stat(file); err == nil || ctx.Err() != nil {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	state, err = g.units.Alarm(ctx, a.Name)
	g.say("alarm fired", state, err)
	state, err = g.units.Disarm(ctx, a.Name)
	g.say("alarm disarmed late", state, err)
	state, err = g.units.Alarm(ctx, a.Name)
	g.say("alarm gone", state, err)
	if err := os.Remove(file); err != nil {
		g.say("alarm file", nil, err)
	}
	g.say("alarm again", nil, g.units.Arm(ctx, a))
	state, err = g.units.Disarm(ctx, a.Name)
	g.say("alarm disarmed", state, err)
	time.Sleep(3 * time.Second)
	_, err = os.Stat(file)
	g.say("alarm silent", os.IsNotExist(err), nil)
	state, err = g.units.Disarm(ctx, a.Name)
	g.say("alarm disarmed again", state, err)
	g.postponed(ctx, a, file)
}

// postponed reloads systemd again and again while an alarm waits, which must
// not put it off.
func (g *guest) postponed(ctx context.Context, a unit.Alarm, file string) {
	const reloads, pause = 12, 2 * time.Second
	a.After = 14 * time.Second
	err := g.units.Arm(ctx, a)
	fired := false
	for range reloads {
		time.Sleep(pause)
		r, reloadErr := g.units.Run(ctx, unit.Service{Name: "agentunits-reload.service", Argv: []string{shell, "-c", "systemctl daemon-reload"}})
		if reloadErr != nil || !r.Success() {
			err = errors.Join(err, reloadErr, errors.New("daemon-reload: "+r.String()))
		}
		if _, statErr := os.Stat(file); statErr == nil {
			fired = true
		}
	}
	state, disarmErr := g.units.Disarm(ctx, a.Name)
	g.say("alarm not put off", []any{fired, state}, errors.Join(err, disarmErr))
}

// manager asks systemd about itself.
func (g *guest) manager(ctx context.Context) {
	state, err := g.units.State(ctx)
	g.say("manager state", state, err)
	watchdog, err := g.units.RuntimeWatchdog(ctx)
	g.say("manager watchdog", watchdog.String(), err)
	failed, err := g.units.Failed(ctx)
	g.say("manager failed", failed, err)
	pid, err := g.units.MainPID(ctx, "sshd.service")
	g.say("manager main pid", pid > 0, err)
	pid, err = g.units.MainPID(ctx, "no-such-unit.service")
	g.say("manager no pid", pid, err)
	g.say("manager restart", nil, g.units.Restart(ctx, "no-such-unit.service"))
}
