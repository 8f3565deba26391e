package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/agent"
	"xnodeos.org/agent/activate"
	"xnodeos.org/agent/probe"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/unit"
)

// trials switches this machine between systems, as the applier does.
type trials struct {
	*guest
	activator activate.Activator
	prober    probe.Prober
	systems   map[string]nix.StorePath
	before    agent.Baseline
	failing   []unit.Failed
}

// follower answers in place of DNS, which this machine has not.
type follower struct{}

func (follower) Reread(context.Context) (probe.Answer, error) {
	return probe.Answer{Texts: []string{"a record"}, From: "nobody"}, nil
}

func (g *guest) newTrials(ctx context.Context, file string) (*trials, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	t := &trials{guest: g, activator: activate.Activator{Units: g.units}}
	if err := json.Unmarshal(data, &t.systems); err != nil {
		return nil, err
	}
	t.prober = probe.Prober{
		Units: g.units, Follower: follower{}, Routes: probe.DefaultRoutes, Pause: time.Second,
		Verify: func(string) error { return nil },
		Ping: func(ctx context.Context) error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "unix", statusSocket)
			if err != nil {
				return err
			}
			return conn.Close()
		},
	}
	if t.failing, err = g.units.Failed(ctx); err != nil {
		return nil, err
	}
	t.before, err = t.prober.Baseline(ctx, string(t.systems["base"]), probe.Default())
	g.say("baseline", t.before, err)
	return t, err
}

// outcome is what the host compares.
type outcome struct {
	Verdict string   `json:"verdict"`
	Result  string   `json:"result"`
	Failed  []string `json:"failed,omitempty"`
	Current bool     `json:"current"` // the system that was asked for is the current one
}

// try switches to a system and says how it went.
func (t *trials) try(ctx context.Context, step, name string, limit time.Duration) {
	o, err := t.activator.Switch(ctx, activate.Request{System: t.systems[name], Limit: limit, Failing: t.failing})
	got := outcome{Verdict: string(o.Verdict), Result: o.Result.String(), Current: o.Current == string(t.systems[name])}
	for _, f := range o.Failed {
		got.Failed = append(got.Failed, f.Name+" "+f.How)
	}
	t.say(step, got, errors.Join(err, t.activator.Done(ctx)))
}

// examine probes the current system and says what is red.
func (t *trials) examine(ctx context.Context, step, name string, settle, timeout time.Duration) {
	report, err := t.prober.Examine(ctx, probe.Exam{
		System: string(t.systems[name]), Set: probe.Default(), Before: t.before, Settle: settle, Timeout: timeout,
	})
	red := []string{}
	for _, p := range report.Probes {
		if !p.Green {
			red = append(red, p.Name+": "+p.Observed)
		}
	}
	t.say(step, red, err)
}

// back goes back to the base and makes sure that it is well again.
func (t *trials) back(ctx context.Context, from string) {
	t.try(ctx, from+" back", "base", 2*time.Minute)
	t.examine(ctx, from+" well again", "base", 2*time.Second, 90*time.Second)
}

func (t *trials) run(ctx context.Context) {
	sleeper := unit.Service{Name: "agentunits-sleeper.service", Argv: []string{t.self, "sleep", "1h"}}
	t.say("sleeper", nil, t.units.Start(ctx, sleeper))
	// One that a switch must not touch, as the dead man.
	t.say("dead man", nil, t.units.Arm(ctx, unit.Alarm{Name: "agentunits-deadman", After: time.Hour, Argv: []string{t.self, "sleep", "0s"}}))
	t.try(ctx, "two", "two", 2*time.Minute)
	t.examine(ctx, "two exam", "two", 2*time.Second, 60*time.Second)
	greeting, err := os.ReadFile("/run/pocket-greeting")
	t.say("two greeting", string(greeting), err)
	t.back(ctx, "two")
	_, err = os.Stat("/run/pocket-greeting")
	t.say("two gone", errors.Is(err, os.ErrNotExist), nil)

	for _, name := range []string{"activation", "unit", "agent", "exit-100", "signal-9"} {
		t.try(ctx, name, name, 2*time.Minute)
		if name == "agent" {
			t.examine(ctx, "agent exam", name, time.Second, 8*time.Second)
		}
		t.back(ctx, name)
	}
	t.try(ctx, "late", "late", 2*time.Minute)
	t.examine(ctx, "late exam", "late", 36*time.Second, 38*time.Second)
	t.back(ctx, "late")
	t.try(ctx, "network", "network", 2*time.Minute)
	t.examine(ctx, "network exam", "network", 30*time.Second, 10*time.Second)
	t.back(ctx, "network")
	t.hanging(ctx)
	t.busy(ctx)
	r, err := t.units.Result(ctx, sleeper.Name)
	armed, alarmErr := t.units.Disarm(ctx, "agentunits-deadman")
	t.say("dead man untouched", armed, alarmErr)
	t.say("sleeper untouched", r.State, errors.Join(err, t.units.Forget(ctx, sleeper.Name)))
}

// hanging plays an applier that dies in the middle of a switch that hangs.
func (t *trials) hanging(ctx context.Context) {
	short, cancel := context.WithTimeout(ctx, 2*time.Second)
	_, err := t.activator.Switch(short, activate.Request{System: t.systems["hang"], Limit: 8 * time.Second})
	cancel()
	t.say("hang applier dies", errors.Is(err, context.DeadlineExceeded), nil)
	system, r, err := t.activator.Running(ctx)
	t.say("hang goes on", []any{system == string(t.systems["hang"]), r.State}, err)
	_, err = t.activator.Switch(ctx, activate.Request{System: t.systems["two"], Limit: time.Minute})
	t.say("hang keeps others out", errors.Is(err, activate.ErrBusy), nil)
	t.try(ctx, "hang joined", "hang", time.Hour)
	t.back(ctx, "hang")

	begun := make(chan error, 1)
	go func() {
		_, err := t.activator.Switch(ctx, activate.Request{System: t.systems["hang"], Limit: time.Hour})
		begun <- err
	}()
	for ctx.Err() == nil {
		locked, err := activate.Locked("")
		if err != nil || locked {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.say("hang aborted", nil, errors.Join(t.activator.Abort(ctx), <-begun))
	locked, err := activate.Locked("")
	t.say("hang lock", locked, err)
	t.back(ctx, "abort")
}

// busy holds the lock as somebody else's switch does.
func (t *trials) busy(ctx context.Context) {
	f, err := os.OpenFile("/run/nixos/switch-to-configuration.lock", os.O_RDWR, 0)
	if err != nil {
		t.say("busy", nil, err)
		return
	}
	defer f.Close()
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		t.say("busy", nil, err)
		return
	}
	_, err = t.activator.Switch(ctx, activate.Request{System: t.systems["two"], Limit: time.Minute})
	t.say("busy", []any{errors.Is(err, activate.ErrBusy), strings.Contains(fmt.Sprint(err), "switch-to-configuration.lock")}, nil)
}

// compare holds systems against each other.
func (t *trials) compare() {
	for _, name := range []string{"two", "prepare-root"} {
		d, err := activate.Compare("", string(t.systems["base"]), string(t.systems[name]))
		t.say("compare "+name, []any{d.String(), d.Needs("live"), d.Needs("installed")}, err)
	}
}
