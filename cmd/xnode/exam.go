package main

import (
	"context"
	"log/slog"
	"os"

	"github.com/BurntSushi/toml"

	"xnodeos.org/agent"
	"xnodeos.org/agent/apply"
	"xnodeos.org/agent/probe"
	"xnodeos.org/agent/units"
)

// examiner judges a system by its own probes.
type examiner struct {
	at     layout
	units  *units.Manager
	verify func(owner, text string) error
	log    *slog.Logger
}

// prober asks of a system that runs. The record is judged under the name that
// this system follows: the process may be of another one, which is gone.
func (e *examiner) prober(system string) probe.Prober {
	follower := e.at.follower()
	return probe.Prober{
		Units: e.units, Follower: rereader{follower}, Routes: probe.DefaultRoutes, Root: e.at.root,
		Verify: func(text string) error { return e.verify(e.at.owner(system), text) },
		Ping: func(ctx context.Context) error {
			_, err := follower.Status(ctx)
			return err
		},
	}
}

// set is the union of what two systems ask. A candidate whose probes cannot be
// read is refused; an old one that got here with such a file, by its image or
// under an agent that read it, must not keep every other release away.
func (e *examiner) set(old, candidate string) (probe.Set, error) {
	fresh, err := e.at.probes(candidate)
	if err != nil {
		return nil, &agent.Refusal{Reason: agent.Reason{Code: agent.CodeInvalid, Text: err.Error()}}
	}
	if old == "" || old == candidate {
		return fresh, nil
	}
	before, err := e.at.probes(old)
	if err != nil {
		e.log.Warn("the old generation's probes cannot be read; the built-in ones count", "error", err)
		before = probe.Default()
	}
	return probe.Union(before, fresh), nil
}

// Baseline implements apply.Prober.
func (e *examiner) Baseline(ctx context.Context, old, candidate string) (agent.Baseline, error) {
	set, err := e.set(old, candidate)
	if err != nil {
		return agent.Baseline{}, err
	}
	return e.prober(old).Baseline(ctx, old, set)
}

// questions are what an exam asks. The way back, which has no Old, ends in the
// old generation whatever its file says.
func (e *examiner) questions(exam apply.Exam) (probe.Set, error) {
	set, err := e.set(exam.Old, exam.System)
	if err != nil && exam.Old == "" {
		e.log.Warn("the old generation's probes cannot be read; the built-in ones count", "error", err)
		return probe.Default(), nil
	}
	return set, err
}

// Probe implements apply.Prober.
func (e *examiner) Probe(ctx context.Context, exam apply.Exam) (agent.Report, error) {
	set, err := e.questions(exam)
	if err != nil {
		return agent.Report{}, err
	}
	return e.prober(exam.System).Examine(ctx, probe.Exam{
		System: exam.System, Set: set, Before: exam.Baseline, Settle: exam.Settle, Timeout: exam.Timeout, Seen: exam.Seen,
	})
}

// owner is the name of the record that a system follows; of the running one if
// there is none. Nothing else of its agent.toml counts: another version of this
// program may have the keys.
func (l layout) owner(system string) string {
	own := l.etc("agent.toml")
	if system != "" {
		own = l.path(system, "etc/xnode/agent.toml")
	}
	var settings struct {
		Name string `toml:"name"`
	}
	for _, name := range []string{own, l.node("agent.toml")} {
		data, err := os.ReadFile(name)
		if err != nil {
			continue // it has none, or nobody can say
		}
		over := settings
		if toml.Unmarshal(data, &over) == nil {
			settings = over
		}
	}
	return settings.Name
}
