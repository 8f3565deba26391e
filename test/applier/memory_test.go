package applier

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/agent"
	"xnodeos.org/agent/apply"
	"xnodeos.org/agent/journal"
)

// TestDamagedMemory: a file that a bad disk changed locks nobody out. What the
// journal and the record prove goes on and writes it anew; without the
// quarantine nothing new is tried, and somebody is told.
func TestDamagedMemory(t *testing.T) {
	t.Parallel()
	for name, tried := range map[string]bool{"accepted.json": true, "time-floor": true, "trust.json": true, "quarantine.json": false} {
		for _, text := range []string{"", "x", "{\"sequence\":\"seven\"}\n"} {
			m, e := journalled(t, agent.Idle)
			path := filepath.Join(m.dir, "applier", name)
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			m.process = &process{cancel: cancel}
			a := apply.New(m.options(e))
			if err := a.Start(ctx); err != nil {
				t.Errorf("%s is %q: the applier does not start: %v", name, text, err)
				cancel()
				continue
			}
			if st := a.Handle(ctx, agent.Request{Op: agent.OpStatus}).Status; !strings.Contains(st.Problem, name) {
				t.Errorf("%s is %q: the problem is %q", name, text, st.Problem)
			}
			resp := a.Handle(ctx, e.request(agent.OpTry, systemB, true))
			a.Wait()
			cancel()
			if did := m.current == systemB; did != tried || tried != (resp.Error == "" && resp.Refused == nil) {
				t.Errorf("%s is %q: a try is answered with %q %+v, and %s runs", name, text, resp.Error, resp.Refused, m.current)
			}
			if !tried && !strings.Contains(resp.Error, "mv ") {
				t.Errorf("%s is %q: %q says no remedy", name, text, resp.Error)
			}
			memory := journal.OpenMemory(filepath.Join(m.dir, "applier"))
			if _, err := memory.Accepted(); err != nil {
				t.Errorf("%s is %q: afterwards: %v", name, text, err)
			}
			if _, err := memory.TimeFloor(); err != nil {
				t.Errorf("%s is %q: afterwards: %v", name, text, err)
			}
		}
	}
}

// TestWayBackWithoutMemory: whatever is damaged, the dead man goes back.
func TestWayBackWithoutMemory(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"accepted.json", "time-floor", "trust.json", "quarantine.json"} {
		m, e := journalled(t, agent.Probing)
		if err := os.WriteFile(filepath.Join(m.dir, "applier", name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		s := fireDeadMan(t, m, e)
		if m.current != systemA || !s.Phase.AtRest() {
			t.Errorf("%s is damaged: %s runs, %s", name, m.current, s.Phase)
		}
	}
}
