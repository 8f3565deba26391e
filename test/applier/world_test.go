// Package applier tests the applier with its real journal, memory and links
// over a machine in memory: it is killed at every write and effect, and asked
// by a follower that lies.
package applier

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/agent/apply"
	"xnodeos.org/agent/journal"
	"xnodeos.org/agent/links"
	"xnodeos.org/internal/unit"
)

// Store paths of the systems; B is the candidate.
const (
	systemA = "/nix/store/00000000000000000000000000000001-a"
	systemB = "/nix/store/00000000000000000000000000000002-b"
	systemC = "/nix/store/00000000000000000000000000000003-c"
)

// plan is how a machine behaves.
type plan struct {
	name    string
	medium  agent.Medium
	reboot  bool               // B needs a reboot
	result  agent.SwitchResult // of the switch to B
	red     bool               // B's probes
	panics  bool               // B does not come up when booted
	freezes bool               // a switch to B freezes systemd
	good    bool               // B is to be what runs in the end
}

// machine is all that outlives a process. A power cut takes what is in memory.
type machine struct {
	plan
	t   testing.TB
	dir string

	mu       sync.Mutex
	boot     int
	booted   string
	current  string
	entries  apply.Entries
	deadMan  string
	switched string // system of the switch unit
	outcome  agent.SwitchResult

	points  int // places passed where the process can be killed
	killAt  int
	where   string // it was killed
	cut     bool   // by a power cut
	process *process
	frozen  int // times that systemd did not answer
	tried   int // switches to B while it was in quarantine
	writes  int
}

// process is one run of the applier.
type process struct {
	cancel context.CancelFunc
	dead   bool
	next   string // "hand-over" or "reboot" when it ended by itself
}

func newMachine(t testing.TB, p plan) *machine {
	m := &machine{plan: p, t: t, dir: folder(t), booted: systemA, current: systemA}
	if p.medium == agent.MediumInstalled {
		m.entries.Default = systemA
	}
	for _, dir := range []string{"applier", "profiles", "roots"} {
		if err := os.Mkdir(filepath.Join(m.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// folder is one in memory where there is one: hundreds of lives sync thousands
// of files, which proves nothing here.
func folder(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "applier-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// point is a place where the process can be killed.
func (m *machine) point(name string) {
	m.mu.Lock()
	p := m.process
	m.points++
	if m.points == m.killAt {
		p.dead, m.where = true, name
		p.cancel()
	}
	dead := p.dead
	m.mu.Unlock()
	if dead {
		runtime.Goexit()
	}
}

// around runs an effect between two places where it can be killed.
func (m *machine) around(name string, effect func() error) error {
	m.point("before " + name)
	m.mu.Lock()
	err := effect()
	m.mu.Unlock()
	m.point("after " + name)
	return err
}

func (m *machine) options(e *envelope) apply.Options {
	dir := filepath.Join(m.dir, "applier")
	l, err := links.Open(filepath.Join(m.dir, "profiles"), filepath.Join(m.dir, "roots"))
	if err != nil {
		m.t.Fatal(err)
	}
	opt := apply.Options{
		Journal: &killable{m, journal.Open(dir)}, Memory: memory{journal.OpenMemory(dir), m}, Releases: releases{journal.OpenReleases(dir), m},
		Links: rooted{l, m}, Machine: m, Switcher: switcher{m}, DeadMan: deadMan{m}, Services: services{m}, Prober: prober{m}, Store: store{m}, Power: power{m},
		Rules: agent.Rules{Limits: agent.DefaultLimits(), Now: func() time.Time { return e.clock().Now }},
		Node:  e.node, Embedded: e.trust, Clock: e.clock, Durable: true,
		SwitchTimeout: time.Minute, ProbeTimeout: time.Minute, Settle: time.Second, Grace: time.Minute, Log: e.log,
	}
	if m.medium == agent.MediumInstalled {
		opt.Loader = loader{m}
	}
	return opt
}

// restart boots the machine again.
func (m *machine) restart() {
	m.boot++
	m.deadMan, m.switched = "", ""
	if m.medium == agent.MediumLive {
		m.booted = systemA
		for _, dir := range []string{"profiles", "roots"} { // they are in memory
			if err := errors.Join(os.RemoveAll(filepath.Join(m.dir, dir)), os.Mkdir(filepath.Join(m.dir, dir), 0o755)); err != nil {
				m.t.Fatal(err)
			}
		}
	} else {
		try := m.entries.OneShot
		m.entries.OneShot = ""
		m.booted = m.entries.Default
		if try != "" && !(try == systemB && m.panics) {
			m.booted = try
		}
	}
	m.current = m.booted
}

func (m *machine) World(context.Context) (agent.World, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return agent.World{BootID: fmt.Sprint(m.boot), Medium: m.medium, Booted: m.booted, Current: m.current}, nil
}

func (m *machine) Need(_ context.Context, booted, candidate string) (agent.Arm, error) {
	if m.reboot && booted != candidate && (booted == systemB || candidate == systemB) {
		return agent.Reboot, nil
	}
	return agent.Live, nil
}

func (m *machine) Uptime() time.Duration { return time.Hour }

type killable struct {
	m *machine
	*journal.Journal
}

func (k *killable) Store(s agent.State) error {
	return k.m.around("journal "+string(s.Phase), func() error {
		k.m.writes++
		return k.Journal.Store(s)
	})
}

type memory struct {
	*journal.Memory
	m *machine
}

func (a memory) AddVerdict(v agent.Verdict) error {
	return a.m.around("quarantine", func() error { return a.Memory.AddVerdict(v) })
}

type releases struct {
	*journal.Releases
	m *machine
}

func (r releases) SetLastGood(system string) error {
	return r.m.around("save-release", func() error { return r.Releases.SetLastGood(system) })
}

type rooted struct {
	*links.Links
	m *machine
}

func (r rooted) SetProfile(system string) error {
	return r.m.around("set-profile", func() error { return r.Links.SetProfile(system) })
}

func (r rooted) SetRoot(name agent.Root, system string) error {
	return r.m.around("set-root "+string(name), func() error { return r.Links.SetRoot(name, system) })
}

type switcher struct{ m *machine }

func (s switcher) Switch(_ context.Context, system string, _ time.Duration) (agent.SwitchResult, string, error) {
	m := s.m
	if m.freezes && system == systemB {
		return "", "", m.freeze()
	}
	err := m.around("switch", func() error {
		if m.switched == system { // join it
			return nil
		}
		bad, err := journal.OpenMemory(filepath.Join(m.dir, "applier")).Quarantine()
		for _, v := range bad {
			if v.System == system {
				m.tried++
			}
		}
		m.switched, m.outcome, m.current = system, agent.SwitchOK, system
		if system == systemB {
			m.outcome = m.result
		}
		return err
	})
	return m.outcome, "as planned", err
}

// freeze is a systemd that does not answer any more; the third time somebody
// asks it, the watchdog resets the machine.
func (m *machine) freeze() error {
	m.mu.Lock()
	m.current = systemB
	m.frozen++
	reset := m.frozen%3 == 0
	if reset {
		m.process.dead, m.cut, m.where = true, true, "frozen"
		m.process.cancel()
	}
	m.mu.Unlock()
	if reset {
		runtime.Goexit()
	}
	return fmt.Errorf("switch: %w: no answer", unit.ErrUnavailable)
}

func (s switcher) Done(context.Context) error {
	return s.m.around("forget the switch", func() error { s.m.switched = ""; return nil })
}

func (s switcher) Stop(context.Context) error { s.m.switched = ""; return nil }

type deadMan struct{ m *machine }

func (d deadMan) Arm(_ context.Context, old string, _ time.Duration) error {
	return d.m.around("arm-dead-man", func() error { d.m.deadMan = old; return nil })
}

func (d deadMan) Disarm(context.Context) error {
	return d.m.around("disarm-dead-man", func() error { d.m.deadMan = ""; return nil })
}

type services struct{ m *machine }

func (s services) HandOver(context.Context) error {
	return s.m.around("hand-over", func() error { s.m.process.next = "hand-over"; s.m.process.cancel(); return nil })
}

func (s services) StopApplier(context.Context) error { return nil }

type power struct{ m *machine }

func (p power) Reboot(context.Context, string) error {
	return p.m.around("reboot", func() error { p.m.process.next = "reboot"; p.m.process.cancel(); return nil })
}

type prober struct{ m *machine }

func (p prober) Baseline(context.Context, string, string) (agent.Baseline, error) {
	return agent.Baseline{FailedUnits: []string{"old.service"}}, nil
}

func (p prober) Probe(_ context.Context, exam apply.Exam) (agent.Report, error) {
	err := p.m.around("probe", func() error { return nil })
	green := exam.System != systemB || !p.m.red
	return agent.Report{System: exam.System, Probes: []agent.Probe{{Name: "all", Green: green}}}, err
}

type store struct{ m *machine }

func (s store) Check(context.Context, string, string) error { return nil }
func (s store) Room(context.Context) error                  { return nil }
func (s store) Sync(context.Context) error                  { return nil }

type loader struct{ m *machine }

func (l loader) Usable(context.Context) error {
	return l.m.around("check-loader", func() error { return nil })
}

func (l loader) Pending(context.Context) (apply.Entries, error) {
	l.m.mu.Lock()
	defer l.m.mu.Unlock()
	return l.m.entries, nil
}

func (l loader) Stage(_ context.Context, system string) error {
	return errors.Join(
		l.m.around("stage: old mark", func() error { l.m.entries.Mark = ""; return nil }),
		l.m.around("stage: one-shot", func() error { l.m.entries.OneShot = system; return nil }),
		l.m.around("stage: mark", func() error { l.m.entries.Mark = system; return nil }))
}

func (l loader) Unstage(context.Context) error {
	return l.m.around("unstage", func() error { l.m.entries.Mark, l.m.entries.OneShot = "", ""; return nil })
}

func (l loader) Bless(_ context.Context, system string) error {
	return l.m.around("bless", func() error { l.m.entries.Default = system; return nil })
}
