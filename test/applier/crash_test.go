package applier

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/agent"
	"xnodeos.org/agent/apply"
	"xnodeos.org/agent/journal"
)

var plans = []plan{
	{name: "live, good", medium: agent.MediumLive, result: agent.SwitchOK, good: true},
	{name: "live, switch fails", medium: agent.MediumLive, result: agent.SwitchFailed},
	{name: "live, probes red", medium: agent.MediumLive, result: agent.SwitchOK, red: true},
	{name: "installed, live arm, good", medium: agent.MediumInstalled, result: agent.SwitchOK, good: true},
	{name: "installed, live arm, red", medium: agent.MediumInstalled, result: agent.SwitchOK, red: true},
	{name: "installed, reboot arm, good", medium: agent.MediumInstalled, reboot: true, good: true},
	{name: "installed, reboot arm, probes red", medium: agent.MediumInstalled, reboot: true, red: true},
	{name: "installed, reboot arm, panics", medium: agent.MediumInstalled, reboot: true, panics: true},
}

// life runs appliers until nothing is left to do: what a node and its follower
// do by themselves.
func (m *machine) life(e *envelope) agent.Status {
	var status agent.Status
	idle := 0
	for range 60 {
		m.run(func(ctx context.Context, a *apply.Applier) {
			if err := a.Start(ctx); err != nil {
				m.t.Errorf("start: %v", err)
			}
			a.Wait()
			if ctx.Err() != nil {
				return
			}
			status = a.Status()
			before := m.writes
			for _, op := range []agent.Op{agent.OpTry, agent.OpStage} {
				a.Handle(ctx, e.request(op, systemB, true))
				a.Wait()
			}
			if ctx.Err() == nil {
				status = a.Status()
				if m.writes == before {
					idle++
				}
			}
		})
		if idle > 0 {
			return status
		}
	}
	m.t.Errorf("%s, killed %s: no rest within 60 processes", m.name, m.where)
	return status
}

// run is one process, and what ends it.
func (m *machine) run(body func(context.Context, *apply.Applier)) {
	ctx, cancel := context.WithCancel(m.t.Context())
	defer cancel()
	p := &process{cancel: cancel}
	m.mu.Lock()
	m.process = p
	m.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		a := apply.New(m.options(testEnvelope(m.t, m.medium)))
		body(ctx, a)
	}()
	<-done
	m.mu.Lock()
	defer m.mu.Unlock()
	if p.next == "reboot" || p.dead && m.cut {
		m.restart()
	}
}

// TestCrashMatrix kills the applier at every journal write and effect, by the
// end of the process and by a power cut, and lets it come to rest.
func TestCrashMatrix(t *testing.T) {
	t.Parallel()
	table := "| scenario | places | killed: process | killed: power | ends | most journal writes |\n|---|---:|---:|---:|---|---:|\n"
	for _, p := range plans {
		whole := newMachine(t, p)
		checkEnd(whole, whole.life(testEnvelope(t, p.medium)))
		places, most := whole.points, whole.writes
		for _, cut := range []bool{false, true} {
			for at := 1; at <= places; at++ {
				m := newMachine(t, p)
				m.killAt, m.cut = at, cut
				checkEnd(m, m.life(testEnvelope(t, p.medium)))
				most = max(most, m.writes)
			}
		}
		end := "A runs, B in quarantine"
		if p.good {
			end = "B runs"
		}
		table += fmt.Sprintf("| %s | %d | %d | %d | %s | %d |\n", p.name, places, places, places, end, most)
	}
	t.Logf("crash matrix:\n%s", table)
	readme, err := os.ReadFile(filepath.Join("..", "..", "agent", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), table) {
		t.Errorf("agent/README.md does not have this table:\n%s", table)
	}
}

func checkEnd(m *machine, status agent.Status) {
	m.t.Helper()
	s := status.State
	want := systemA
	if m.good {
		want = systemB
	}
	where := fmt.Sprintf("%s, killed %q at %d (power %v)", m.name, m.where, m.killAt, m.cut)
	if !s.Phase.AtRest() || s.Phase == agent.Safe {
		m.t.Errorf("%s: ends in %s (%s)", where, s.Phase, s.Reason)
	}
	if m.current != want || s.LastGoodLive.System != want {
		m.t.Errorf("%s: %s runs, last-good-live is %s; want %s", where, m.current, s.LastGoodLive.System, want)
	}
	if bad := len(status.Quarantine) > 0; bad == m.good {
		m.t.Errorf("%s: quarantine %v", where, status.Quarantine)
	}
	if m.medium == agent.MediumInstalled && m.entries.Default != s.LastGoodBoot.System {
		m.t.Errorf("%s: default entry %s, last-good-boot %s", where, m.entries.Default, s.LastGoodBoot.System)
	}
	if m.tried > 0 {
		m.t.Errorf("%s: switched %d times to a quarantined system", where, m.tried)
	}
	if status.Accepted.Sequence != 2 || status.Accepted.Published != published {
		m.t.Errorf("%s: accepted %+v", where, status.Accepted)
	}
	if m.writes > 32 {
		m.t.Errorf("%s: %d journal writes", where, m.writes)
	}
	onDisk, err := journal.Open(filepath.Join(m.dir, "applier")).Load()
	if err != nil || !onDisk.Equal(s) {
		m.t.Errorf("%s: the journal does not say what the applier says: %v", where, err)
	}
}
