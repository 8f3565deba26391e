package applier

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/agent/apply"
	"xnodeos.org/agent/journal"
)

// journalled puts a machine where a trial of B stands.
func journalled(t *testing.T, phase agent.Phase) (*machine, *envelope) {
	t.Helper()
	m, e := newMachine(t, plans[2]), testEnvelope(t, agent.MediumLive)
	a := agent.Target{System: systemA, Sequence: 1, Medium: agent.MediumLive}
	s := agent.State{
		Phase: phase, Arm: agent.Live, Medium: agent.MediumLive, LastGoodLive: a, LastGoodBoot: a, BootID: "0", Booted: systemA,
		Candidate: agent.Target{System: systemB, Sequence: 2, Medium: agent.MediumLive},
	}
	if err := journal.Open(filepath.Join(m.dir, "applier")).Store(s); err != nil {
		t.Fatal(err)
	}
	if phase != agent.Armed && phase != agent.Idle {
		m.current = systemB
	}
	return m, e
}

func fireDeadMan(t *testing.T, m *machine, e *envelope, change ...func(*apply.Options)) agent.State {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m.process = &process{cancel: cancel}
	lock := filepath.Join(m.dir, "lock")
	opt := m.options(e)
	for _, change := range change {
		change(&opt)
	}
	err := apply.New(opt).DeadMan(ctx, func(ctx context.Context) (func(), error) {
		f, err := apply.TakeLock(ctx, lock)
		return func() { f.Close() }, err
	})
	if err != nil {
		t.Errorf("dead man: %v", err)
	}
	s, err := journal.Open(filepath.Join(m.dir, "applier")).Load()
	if err != nil && !strings.Contains(err.Error(), "no copy") {
		t.Fatal(err)
	}
	return s
}

// TestDeadMan: before PASSED he reverts and quarantines, from PASSED on and at
// rest he does nothing.
func TestDeadMan(t *testing.T) {
	t.Parallel()
	for _, phase := range []agent.Phase{agent.Trying, agent.Probing, agent.Reverting, agent.ProbingOld} {
		m, e := journalled(t, phase)
		if phase == agent.ProbingOld || phase == agent.Reverting {
			m.current = systemA
		}
		s := fireDeadMan(t, m, e)
		if m.current != systemA || s.Phase != agent.Idle {
			t.Errorf("%s: %s runs, %s", phase, m.current, s.Phase)
		}
		bad, err := journal.OpenMemory(filepath.Join(m.dir, "applier")).Quarantine()
		if want := phase == agent.Trying || phase == agent.Probing; err != nil || (len(bad) == 1) != want {
			t.Errorf("%s: quarantine %v, %v", phase, bad, err)
		}
	}
	for _, phase := range []agent.Phase{agent.Passed, agent.Committing, agent.Settled, agent.Held, agent.Safe, agent.Idle} {
		m, e := journalled(t, phase)
		before := m.current
		if s := fireDeadMan(t, m, e); m.current != before || s.Phase != phase || m.points > 0 {
			t.Errorf("%s: he acted: %s runs, %s", phase, m.current, s.Phase)
		}
	}
}

// TestDeadManWithoutJournal: both copies are damaged while B is on trial; the
// root of last-good says where to go back to.
func TestDeadManWithoutJournal(t *testing.T) {
	t.Parallel()
	m, e := journalled(t, agent.Probing)
	opt := m.options(e)
	m.process = &process{cancel: func() {}}
	if err := opt.Links.SetRoot(agent.RootLastGoodLive, systemA); err != nil {
		t.Fatal(err)
	}
	damage(t, m)
	if fireDeadMan(t, m, e); m.current != systemA {
		t.Errorf("%s runs; want A", m.current)
	}
}

// TestLostJournal: nothing is activated, the follower is told, and a release
// above the accepted one leaves SAFE.
func TestLostJournal(t *testing.T) {
	t.Parallel()
	m, e := journalled(t, agent.Idle)
	damage(t, m)
	if err := journal.OpenMemory(filepath.Join(m.dir, "applier")).RaiseAccepted(agent.Accepted{Sequence: 2, Published: published - 5}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m.process = &process{cancel: cancel}
	a := apply.New(m.options(e))
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	a.Wait()
	if s := a.State(); s.Phase != agent.Safe || s.Reason.Code != agent.RedJournal {
		t.Fatalf("%s (%s); want SAFE", s.Phase, s.Reason)
	}
	if resp := a.Handle(ctx, e.request(agent.OpTry, systemB, true)); resp.Refused == nil || resp.Refused.Code != agent.HeldRejected || m.current != systemA {
		t.Errorf("try of the same sequence: %+v, %s runs", resp.Refused, m.current)
	}
}

func damage(t *testing.T, m *machine) {
	t.Helper()
	for _, name := range []string{"journal.a", "journal.b"} {
		if err := os.WriteFile(filepath.Join(m.dir, "applier", name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// full is a journal on a full disk.
type full struct{ apply.Journal }

func (full) Store(agent.State) error { return errors.New("no space left on device") }

// TestFullDisk: without a journal nothing is begun, and what is under way goes
// back in memory.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	m, e := newMachine(t, plans[0]), testEnvelope(t, agent.MediumLive)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	m.process = &process{cancel: cancel}
	opt := m.options(e)
	opt.Journal = full{opt.Journal}
	a := apply.New(opt)
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	if resp := a.Handle(ctx, e.request(agent.OpTry, systemB, true)); !strings.Contains(resp.Error, "no space left") {
		t.Errorf("try: %+v %q", resp.Refused, resp.Error)
	}
	a.Wait()
	if m.current != systemA || m.deadMan != "" {
		t.Errorf("something was begun: %s runs", m.current)
	}

	m, e = journalled(t, agent.Probing)
	m.process = &process{cancel: cancel}
	opt = m.options(e)
	opt.Journal = full{opt.Journal}
	if err := apply.New(opt).Start(ctx); err == nil {
		t.Error("the applier went on with a trial that it cannot journal")
	}
	fireDeadMan(t, m, e, func(opt *apply.Options) { opt.Journal = full{opt.Journal} })
	if m.current != systemA {
		t.Errorf("the dead man on a full disk: %s runs; want A", m.current)
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	first, err := apply.TakeLock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := apply.TakeLock(short, path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the lock was given twice: %v", err)
	}
	first.Close()
	second, err := apply.TakeLock(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	second.Close()
}

// TestFrozenSystemd: a candidate freezes systemd, which can then be asked for
// nothing, neither a switch nor a reboot. The applier waits for the watchdog
// instead of giving the node up; the second death quarantines the candidate.
func TestFrozenSystemd(t *testing.T) {
	t.Parallel()
	m := newMachine(t, plan{name: "frozen", medium: agent.MediumLive, result: agent.SwitchOK, freezes: true})
	status := m.life(testEnvelope(t, agent.MediumLive))
	if m.current != systemA || status.State.Phase != agent.Idle {
		t.Errorf("%s runs, in %s (%s); want A, IDLE", m.current, status.State.Phase, status.State.Reason)
	}
	if len(status.Quarantine) != 1 || status.Quarantine[0].System != systemB {
		t.Errorf("quarantine: %v; want B", status.Quarantine)
	}
	if m.boot != 2 {
		t.Errorf("the machine was reset %d times; want 2", m.boot)
	}
}
