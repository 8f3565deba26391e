package probe

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/internal/unit"
)

// FollowerUnit is the unit of the agent's unprivileged half.
const FollowerUnit = "xnode-follow.service"

// ownUnits begin the names of units that are the trial's own.
var ownUnits = []string{"xnode-switch.", "xnode-deadman.", "xnode-probe-"}

// Units is systemd.
type Units interface {
	Failed(context.Context) ([]unit.Failed, error)
	// MainPID is 0 for a service that does not run.
	MainPID(ctx context.Context, service string) (int, error)
	// Run starts a service, waits for its end and forgets it.
	Run(context.Context, unit.Service) (unit.Result, error)
}

// Follower is the agent's unprivileged half, over its own socket.
type Follower interface {
	// Reread asks DNS for the record now. The texts are what came; none with no
	// error means that the resolver answered and has none. An error means that
	// no resolver answered, or that the follower did not (Unreachable).
	Reread(context.Context) (Answer, error)
}

// Answer is what a follower read.
type Answer struct {
	Texts []string // of the TXT records, verbatim
	From  string   // which resolver said so
}

// Prober asks the questions of a set.
type Prober struct {
	Units    Units
	Follower Follower
	// Ping says whether the follower answers on its socket.
	Ping func(context.Context) error
	// Verify checks signature and name of a record's text.
	Verify func(text string) error
	// Routes lists what default routes there are, for people; empty means none.
	Routes func(context.Context) ([]string, error)
	// Pause is between two rounds of questions; 0 means 2 seconds.
	Pause time.Duration
	// Root is where the file system begins; empty means "/".
	Root string
}

// Exam is one trial.
type Exam struct {
	// System is the toplevel that is on trial.
	System string
	Set    Set
	// Before is the baseline; a probe or unit in it is excused.
	Before agent.Baseline
	// Settle is how long everything must stay green.
	Settle time.Duration
	// Timeout is for the whole exam, at least Settle.
	Timeout time.Duration
	// Seen gets the report of each round; may be nil.
	Seen func(agent.Report)
}

// Baseline asks before a trial, once, what is red already. Probes that only the
// candidate brings are not asked.
func (p Prober) Baseline(ctx context.Context, system string, set Set) (agent.Baseline, error) {
	failed, err := p.Units.Failed(ctx)
	if err != nil {
		return agent.Baseline{}, fmt.Errorf("take the baseline: %w", err)
	}
	before := agent.Baseline{}
	for _, f := range failed {
		if !isOwn(f.Name) {
			before.FailedUnits = append(before.FailedUnits, f.Name)
		}
	}
	old := slices.DeleteFunc(slices.Clone(set), func(q Probe) bool { return q.New || q.Kind == KindUnits })
	report := p.round(ctx, Exam{System: system, Set: old})
	if err := ctx.Err(); err != nil {
		return agent.Baseline{}, fmt.Errorf("take the baseline: %w", err)
	}
	for _, r := range report.Probes {
		if !r.Green {
			before.RedProbes = append(before.RedProbes, r.Name)
		}
	}
	slices.Sort(before.FailedUnits)
	slices.Sort(before.RedProbes)
	return before, nil
}

// Examine asks all questions again and again until everything was green, or
// excused, for Settle, or Timeout is over. The report is the last one; it says
// by itself whether the exam was passed. The error is the context's.
func (p Prober) Examine(ctx context.Context, e Exam) (agent.Report, error) {
	limit, cancel := context.WithTimeout(ctx, e.Timeout)
	defer cancel()
	settled := newSettle(limit, e.Settle)
	defer settled.stop()
	for whole := (agent.Report{}); ; {
		report := p.round(limit, e)
		if err := ctx.Err(); err != nil {
			return report, fmt.Errorf("probe %q: %w", e.System, err)
		}
		if limit.Err() != nil && whole.Probes != nil {
			report = whole // the end of time cut this round off; the one before says more
		}
		whole = report
		if e.Seen != nil {
			e.Seen(report)
		}
		over := limit.Err() != nil
		if settled.done(report.Green()) && report.Green() || over {
			return p.verdict(report, over, settled, e), nil
		}
		settled.pause(limit, p.pause())
	}
}

// verdict makes sure that an exam whose time ran out is red, also if the last
// round was green but not for long enough.
func (p Prober) verdict(report agent.Report, over bool, s *settle, e Exam) agent.Report {
	if over && report.Green() && !s.reached {
		report.Probes = append(report.Probes, agent.Probe{
			Name:     "settle",
			Observed: fmt.Sprintf("not everything was green for %s within %s", e.Settle, e.Timeout),
		})
	}
	return report
}

func (p Prober) pause() time.Duration {
	if p.Pause > 0 {
		return p.Pause
	}
	return 2 * time.Second
}

// round asks every question once, all at the same time.
func (p Prober) round(ctx context.Context, e Exam) agent.Report {
	report := agent.Report{System: e.System, Probes: make([]agent.Probe, len(e.Set))}
	reread := p.rereadOnce(ctx, e.Set)
	var wait sync.WaitGroup
	for i, q := range e.Set {
		wait.Go(func() {
			one, cancel := context.WithTimeout(ctx, limitOf(q))
			defer cancel()
			observed, err := p.ask(one, e, q, reread)
			report.Probes[i] = judge(q, observed, err, e.Before)
		})
	}
	wait.Wait()
	return report
}

// limitOf is a little more than a command's deadline, which systemd keeps, so
// that the result says what happened.
func limitOf(q Probe) time.Duration {
	if q.Kind == KindCommand {
		return q.Deadline + 15*time.Second
	}
	return q.Deadline
}

// judge makes a result of an answer. Two kinds know no excuse: the agent has to
// be the candidate's, and units are compared one by one.
func judge(q Probe, observed string, err error, before agent.Baseline) agent.Probe {
	r := agent.Probe{Name: q.ID(), Green: err == nil, Observed: observed}
	if err == nil {
		return r
	}
	r.Observed = strings.TrimSpace(observed + " " + err.Error())
	if q.New || q.Kind == KindAgent || q.Kind == KindUnits {
		return r
	}
	r.Excused = slices.Contains(before.RedProbes, r.Name)
	return r
}

func isOwn(name string) bool {
	return slices.ContainsFunc(ownUnits, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
}

// settle watches how long everything has been green.
type settle struct {
	span    time.Duration
	timer   *time.Timer
	green   bool
	reached bool
	wake    <-chan struct{}
}

func newSettle(ctx context.Context, span time.Duration) *settle {
	t := time.NewTimer(span)
	t.Stop()
	return &settle{span: span, timer: t, wake: ctx.Done()}
}

func (s *settle) stop() { s.timer.Stop() }

// done takes the colour of a round and says whether it has been green for long
// enough.
func (s *settle) done(green bool) bool {
	if !green {
		s.timer.Stop()
		s.green, s.reached = false, false
		return false
	}
	if !s.green {
		s.green = true
		s.timer.Reset(s.span)
	}
	return s.reached || s.span == 0
}

// pause waits for the next round, or for the end of the span: the round after
// that is the last.
func (s *settle) pause(ctx context.Context, d time.Duration) {
	next := time.NewTimer(d)
	defer next.Stop()
	select {
	case <-ctx.Done():
	case <-next.C:
	case <-s.timer.C:
		s.reached = true
	}
}
