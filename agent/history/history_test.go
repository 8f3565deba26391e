package history

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/agent"
)

// memory is a journal in memory.
type memory struct {
	state agent.State
	err   error
}

func (m *memory) Load() (agent.State, error) { return m.state, nil }
func (m *memory) Store(s agent.State) error {
	if m.err == nil {
		m.state = s
	}
	return m.err
}

func keeper(t *testing.T) (*Keeper, *memory) {
	t.Helper()
	m := &memory{state: agent.State{Phase: agent.Idle}}
	k := &Keeper{
		Journal: m, Path: filepath.Join(t.TempDir(), "history.jsonl"),
		Now:    func() time.Time { return time.Unix(1795180800, 0) },
		Report: func(err error) { t.Errorf("history: %v", err) },
	}
	if _, err := k.Load(); err != nil {
		t.Fatal(err)
	}
	return k, m
}

func TestTellsATrialThatWentBack(t *testing.T) {
	t.Parallel()
	k, _ := keeper(t)
	s := agent.State{
		Candidate:    agent.Target{Sequence: 3, System: "/nix/store/c-three"},
		LastGoodLive: agent.Target{Sequence: 2, System: "/nix/store/b-two"}, Arm: agent.Live,
	}
	for _, phase := range []agent.Phase{agent.Armed, agent.Trying, agent.Probing, agent.Reverting, agent.ProbingOld, agent.Quarantined, agent.Idle} {
		s.Phase = phase
		if phase == agent.Reverting {
			s.Reason = agent.Reason{Code: agent.RedProbe, Text: "unit web.service failed"}
		}
		if err := k.Store(s); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(k.Path)
	if err != nil {
		t.Fatal(err)
	}
	at := int64(1795180800)
	want := []Event{
		{at, 2, "/nix/store/b-two", "back", "the last good system runs again"},
		{at, 3, "/nix/store/c-three", "quarantined", "unit web.service failed"},
		{at, 3, "/nix/store/c-three", "going back", "unit web.service failed"},
		{at, 3, "/nix/store/c-three", "trying", "in the running machine"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("history (-want +got):\n%s", diff)
	}
}

// The phase that writes the verdict is entered before the one reboot and after
// it; one quarantine is told.
func TestTellsTheOneReboot(t *testing.T) {
	t.Parallel()
	before := agent.State{Phase: agent.ProbingOld, Candidate: agent.Target{Sequence: 3}, Reason: agent.Reason{Code: agent.RedDeadMan}}
	after := before
	after.Phase, after.Fallback = agent.Quarantined, true
	if e, ok := Tell(before, after, time.Unix(0, 0)); !ok || e.Event != "rebooting" || !strings.Contains(e.Detail, "last good system") {
		t.Errorf("with the reboot to come: %+v, %t", e, ok)
	}
	after.Fallback = false
	if e, ok := Tell(before, after, time.Unix(0, 0)); !ok || e.Event != "quarantined" {
		t.Errorf("after it: %+v, %t", e, ok)
	}
}

func TestPauseIsTold(t *testing.T) {
	t.Parallel()
	k, m := keeper(t)
	for _, paused := range []bool{true, true, false} {
		s := m.state
		s.Paused = paused
		if err := k.Store(s); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(k.Path)
	if err != nil || len(got) != 2 || got[0].Event != "resumed" || got[1].Event != "paused" {
		t.Errorf("history = %v, %v", got, err)
	}
}

// What the journal did not take did not happen.
func TestNothingIsToldThatTheJournalRefused(t *testing.T) {
	t.Parallel()
	k, m := keeper(t)
	m.err = errors.New("disk full")
	if err := k.Store(agent.State{Phase: agent.Armed}); !errors.Is(err, m.err) {
		t.Errorf("Store = %v", err)
	}
	if got, err := Read(k.Path); err != nil || len(got) != 0 {
		t.Errorf("history = %v, %v", got, err)
	}
}

// A history that cannot be written never stops the applier.
func TestFaultIsReportedAndPassedOver(t *testing.T) {
	t.Parallel()
	k, _ := keeper(t)
	var reported error
	k.Report = func(err error) { reported = err }
	k.Path = filepath.Join(k.Path, "below", "nothing")
	if err := k.Store(agent.State{Phase: agent.Armed}); err != nil || reported == nil {
		t.Errorf("Store = %v, reported %v", err, reported)
	}
}

func TestReadPassesOverACutLineAndGoesOn(t *testing.T) {
	t.Parallel()
	k, _ := keeper(t)
	if err := os.WriteFile(k.Path, []byte("{\"time\":1,\"event\":\"trying\"}\n{\"time\":2,\"ev"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := k.Store(agent.State{Phase: agent.Safe}); err != nil {
		t.Fatal(err)
	}
	got, err := Read(k.Path)
	if err != nil || len(got) != 2 || got[0].Event != "safe" || got[1].Event != "trying" {
		t.Errorf("history = %v, %v", got, err)
	}
}

func TestStaysShort(t *testing.T) {
	t.Parallel()
	k, m := keeper(t)
	for i := range 3 * maxEvents {
		s := m.state
		s.Paused = i%2 == 0
		if err := k.Store(s); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(k.Path)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte("\n")); n > maxEvents || n < keptEvents {
		t.Errorf("%d lines after %d events; want between %d and %d", n, 3*maxEvents, keptEvents, maxEvents)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"time\":1,\"event\":\"trying\"}\n"))
	f.Add([]byte(strings.Repeat("x", maxLine+1) + "\n{\"event\":\"a\"}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		events, err := parse(bytes.NewReader(data))
		if err != nil || len(events) > 2*maxEvents {
			t.Errorf("parse = %d events, %v", len(events), err)
		}
	})
}
