package apply

import (
	"context"
	"errors"
	"fmt"

	"xnodeos.org/agent"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/trust"
)

// Handle answers one request. ctx is that of the process: a transaction that
// the request begins outlives it.
func (a *Applier) Handle(ctx context.Context, req agent.Request) agent.Response {
	err := a.handle(ctx, req)
	status := a.Status()
	resp := agent.Response{Status: &status}
	var refusal *agent.Refusal
	switch {
	case errors.As(err, &refusal):
		resp.Refused = &agent.Reason{Code: refusal.Reason.Code, Text: clamp(refusal.Reason.Text)}
		a.opt.Log.Info("refused", "op", req.Op, "reason", refusal.Reason.String())
	case err != nil:
		resp.Error = clamp(err.Error())
		a.opt.Log.Error("request", "op", req.Op, "err", err)
	}
	return resp
}

func (a *Applier) handle(ctx context.Context, req agent.Request) error {
	if req.Op == agent.OpStatus {
		return nil
	}
	a.asking.Lock()
	defer a.asking.Unlock()
	if a.State().Phase.AtRest() {
		a.Wait() // for what the last transaction tidies up
	}
	switch req.Op {
	case agent.OpAccept:
		_, err := a.accept(req)
		return err
	case agent.OpTry:
		return a.try(ctx, req, agent.EventTry)
	case agent.OpStage:
		return a.try(ctx, req, agent.EventStage)
	case agent.OpTrust:
		return a.trust(req.Trust)
	case agent.OpRollback:
		return a.rollback(ctx)
	case agent.OpPause:
		return a.begin(ctx, agent.Event{Kind: agent.EventPause})
	case agent.OpResume:
		return a.begin(ctx, agent.Event{Kind: agent.EventResume})
	case agent.OpAdopt:
		return a.adopt(ctx)
	case agent.OpClear:
		return a.clear(req.System)
	}
	return refusal(agent.CodeInvalid, "unknown operation %q", req.Op)
}

func refusal(code agent.Code, format string, args ...any) *agent.Refusal {
	return &agent.Refusal{Reason: agent.Reason{Code: code, Text: fmt.Sprintf(format, args...)}}
}

// refused words an error of verification as a refusal: it is the request that
// proves nothing, not the applier that is broken.
func refused(err error) error {
	var known *agent.Refusal
	var order *announce.OrderError
	var below *announce.BelowError
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &order), errors.As(err, &below):
		return refusal(agent.CodeReplay, "%v", err)
	}
	return refusal(agent.CodeInvalid, "%v", err)
}

// accept verifies an announcement and stores its order. Nothing is stored
// before all of it verified.
func (a *Applier) accept(req agent.Request) (*agent.Decision, error) {
	keys, err := a.keys()
	if err != nil {
		return nil, err
	}
	in := agent.Announcement{Record: req.Record, Release: req.Release, Nodes: req.Nodes}
	have := a.accepted()
	d, err := agent.Accept(in, a.opt.Node, keys, have, a.clock())
	if err != nil {
		return nil, refused(err)
	}
	if d.Accepted != have {
		if err := a.opt.Memory.RaiseAccepted(d.Accepted); err != nil {
			return nil, err
		}
	}
	return d, a.opt.Memory.RaiseTimeFloor(d.Floor)
}

// decide is accept, or for what is to be applied again after a boot the check
// without dates; only the very record that was kept counts there.
func (a *Applier) decide(req agent.Request) (*agent.Decision, error) {
	again := a.State().Reapply.System
	if again == "" || req.System != again {
		return a.accept(req)
	}
	kept, err := a.opt.Releases.Kept(again)
	if err != nil || kept.Record != req.Record {
		return a.accept(req)
	}
	keys, err := a.keys()
	if err != nil {
		return nil, err
	}
	in := agent.Announcement{Record: req.Record, Release: req.Release, Nodes: req.Nodes}
	d, err := agent.AcceptAgain(in, a.opt.Node, keys)
	if err != nil {
		return nil, refused(err)
	}
	return d, nil
}

func (a *Applier) try(ctx context.Context, req agent.Request, kind agent.EventKind) error {
	d, err := a.decide(req)
	if err != nil {
		return err
	}
	if req.System != d.Target.System {
		return refusal(agent.CodeInvalid, "release %d names %s for class %q, not %q", d.Target.Sequence, d.Target.System, d.Class, req.System)
	}
	if s := a.State(); !s.Phase.AtRest() {
		return refusal(agent.CodeBusy, "%s of sequence %d is under way (%s)", s.Candidate.System, s.Candidate.Sequence, s.Phase)
	}
	if err := a.opt.Store.Check(ctx, d.Target.System, d.Target.Closure); err != nil {
		return refusal(agent.CodeMissing, "%v", err)
	}
	event := agent.Event{Kind: kind, Target: d.Target}
	if event.Facts, err = a.facts(ctx, d.Target.System); err != nil {
		return err
	}
	event.Facts.Halted, event.Facts.WindowOpen = d.Accepted.Halted, req.Window
	switch next, effects, err := a.opt.Rules.Step(a.State(), event); {
	case err != nil:
		return err // before anything is touched for it
	case len(effects) == 0 && next.Equal(a.State()):
		return nil // it runs already
	}
	in := agent.Announcement{Record: req.Record, Release: req.Release, Nodes: req.Nodes}
	if err := a.opt.Releases.Keep(d.Target.System, in, d.Target.Closure); err != nil {
		return err
	}
	if event.Facts.Baseline, err = a.prepare(ctx, d.Target.System, event.Facts.World); err != nil {
		return err
	}
	return a.begin(ctx, event)
}

// prepare does what is harmless and must be there before ARMED: roots, room,
// synced store, baseline.
func (a *Applier) prepare(ctx context.Context, candidate string, w agent.World) (agent.Baseline, error) {
	if err := a.opt.Store.Room(ctx); err != nil {
		return agent.Baseline{}, refusal(agent.HeldSpace, "%v", err)
	}
	s := a.State()
	for _, r := range []struct {
		name   agent.Root
		system string
	}{
		{agent.RootBooted, w.Booted}, {agent.RootLastGoodBoot, s.LastGoodBoot.System},
		{agent.RootLastGoodLive, s.LastGoodLive.System}, {agent.RootCandidate, candidate},
	} {
		if err := a.opt.Links.SetRoot(r.name, r.system); err != nil {
			return agent.Baseline{}, err
		}
	}
	if err := a.opt.Store.Sync(ctx); err != nil {
		return agent.Baseline{}, err
	}
	b, err := a.opt.Prober.Baseline(ctx, s.LastGoodLive.System, candidate)
	if err != nil {
		return b, fmt.Errorf("take the baseline: %w", err)
	}
	b.FailedUnits, b.RedProbes = first(b.FailedUnits), first(b.RedProbes)
	return b, nil
}

// maxBaseline bounds each list of a baseline in the journal.
const maxBaseline = 200

func first(list []string) []string {
	if len(list) > maxBaseline {
		list = list[:maxBaseline]
	}
	for i := range list {
		list[i] = clamp(list[i])
	}
	return list
}

// begin decides a request's event, journals, and sets the effects going.
func (a *Applier) begin(ctx context.Context, event agent.Event) error {
	a.deciding.Lock()
	next, effects, err := a.opt.Rules.Step(a.State(), event)
	if err == nil {
		if err = a.store(next); err != nil {
			err = fmt.Errorf("nothing is begun: %w", err)
		}
	}
	a.deciding.Unlock()
	if err != nil {
		return err
	}
	a.work(ctx, effects)
	return nil
}

func (a *Applier) rollback(ctx context.Context) error {
	back := a.State().Previous.System
	event := agent.Event{Kind: agent.EventRollback}
	var err error
	if event.Facts, err = a.facts(ctx, back); err != nil {
		return err
	}
	return a.attempt(ctx, event, back)
}

func (a *Applier) adopt(ctx context.Context) error {
	world, err := a.world(ctx)
	if err != nil {
		return err
	}
	event := agent.Event{Kind: agent.EventAdopt, Target: agent.Target{System: world.Current, Medium: world.Medium}}
	if event.Facts, err = a.facts(ctx, world.Current); err != nil {
		return err
	}
	return a.attempt(ctx, event, world.Current)
}

// attempt begins what an operator asked for, of a system without a release.
func (a *Applier) attempt(ctx context.Context, event agent.Event, system string) error {
	if _, _, err := a.opt.Rules.Step(a.State(), event); err != nil {
		return err
	}
	if err := a.opt.Store.Check(ctx, system, ""); err != nil {
		return refusal(agent.CodeMissing, "%v", err)
	}
	var err error
	if event.Facts.Baseline, err = a.prepare(ctx, system, event.Facts.World); err != nil {
		return err
	}
	return a.begin(ctx, event)
}

func (a *Applier) clear(system string) error {
	was, err := a.opt.Memory.ClearVerdict(system)
	if err == nil && !was {
		return refusal(agent.CodeNothing, "%q is not in quarantine", system)
	}
	return err
}

// trust takes a trust document. The root keys decide, whoever brings it, and
// its version only rises.
func (a *Applier) trust(file *agent.TrustFile) error {
	if file == nil {
		return refusal(agent.CodeInvalid, "no trust document")
	}
	keys, err := a.keys()
	if err != nil {
		return err
	}
	bundle := trust.Bundle{Document: file.Document}
	for _, sig := range file.Signatures {
		bundle.Signatures = append(bundle.Signatures, sig)
	}
	next, err := keys.Apply(bundle)
	if err != nil {
		return refused(err)
	}
	return a.opt.Memory.SetTrust(next.Chain)
}
