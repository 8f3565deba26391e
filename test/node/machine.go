package node

import (
	"context"
	"os"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/agent/activate"
	"xnodeos.org/agent/apply"
)

// machine obeys: what is switched to is what runs.
type machine struct{ n *Node }

func (m machine) World(context.Context) (agent.World, error) {
	w := agent.World{BootID: "00000000-0000-4000-8000-000000000001", Medium: agent.MediumLive}
	var err error
	if w.Booted, err = activate.Booted(m.n.opt.Root); err != nil {
		return w, err
	}
	w.Current, err = activate.Current(m.n.opt.Root)
	return w, err
}

func (machine) Need(context.Context, string, string) (agent.Arm, error) { return agent.Live, nil }
func (machine) Uptime() time.Duration                                   { return time.Hour }

func (m machine) Switch(_ context.Context, system string, _ time.Duration) (agent.SwitchResult, string, error) {
	if m.n.opt.Fails != nil {
		if why := m.n.opt.Fails(system); why != "" {
			return agent.SwitchFailed, why, nil
		}
	}
	link := m.n.path("run/current-system")
	if err := os.Symlink(system, link+".new"); err != nil {
		return "", "", err
	}
	return agent.SwitchOK, "", os.Rename(link+".new", link)
}

func (machine) Done(context.Context) error { return nil }
func (machine) Stop(context.Context) error { return nil }

// sleeper is a dead man who never has to act.
type sleeper struct{}

func (sleeper) Arm(context.Context, string, time.Duration) error { return nil }
func (sleeper) Disarm(context.Context) error                     { return nil }

// units starts the applier again.
type units struct{ handOver func() }

func (u units) HandOver(context.Context) error {
	u.handOver()
	return nil
}

func (u units) StopApplier(context.Context) error { return nil }

func (u units) Reboot(context.Context, string) error {
	u.handOver()
	return nil
}

// green finds everything well.
type green struct{}

func (green) Baseline(context.Context, string, string) (agent.Baseline, error) {
	return agent.Baseline{}, nil
}

func (green) Probe(_ context.Context, exam apply.Exam) (agent.Report, error) {
	return agent.Report{System: exam.System, Probes: []agent.Probe{{Name: "route", Green: true, Observed: "default via 192.0.2.1"}}}, nil
}

// full has every path.
type full struct{}

func (full) Check(context.Context, string, string) error { return nil }
func (full) Room(context.Context) error                  { return nil }
func (full) Sync(context.Context) error                  { return nil }
