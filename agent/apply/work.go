package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/internal/unit"
)

// store journals a state before its effects. Only the way back goes on without
// a journal: a disk that is full must not keep a red candidate running.
func (a *Applier) store(next agent.State) error {
	if next.Equal(a.State()) {
		return nil
	}
	err := a.opt.Journal.Store(next)
	if err != nil {
		a.opt.Log.Error("journal", "phase", next.Phase, "err", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.problem = err.Error()
		if !wayBack(next.Phase) {
			return err
		}
	} else {
		a.problem = ""
	}
	if a.state.Phase != next.Phase {
		a.opt.Log.Info("phase", "was", a.state.Phase, "is", next.Phase, "system", next.Candidate.System, "sequence", next.Candidate.Sequence, "reason", next.Reason.String())
	}
	a.state = next
	return err
}

func wayBack(p agent.Phase) bool {
	switch p {
	case agent.Reverting, agent.ProbingOld, agent.Quarantined, agent.Safe, agent.Held, agent.Idle:
		return true
	}
	return false
}

// work carries out effects, and what follows from them, until the transaction
// rests or this process is to end.
func (a *Applier) work(ctx context.Context, effects []agent.Effect) {
	if len(effects) == 0 {
		return
	}
	a.mu.Lock()
	a.working = true
	a.mu.Unlock()
	a.busy.Go(func() {
		a.run(ctx, effects)
		a.mu.Lock()
		a.working = false
		a.mu.Unlock()
		a.stirred()
	})
}

// stirred restarts the time after which an idle applier ends.
func (a *Applier) stirred() {
	select {
	case a.quiet <- struct{}{}:
	default:
	}
}

func (a *Applier) run(ctx context.Context, effects []agent.Effect) {
	for {
		state := a.State()
		event, ended := a.perform(ctx, state, effects)
		if ended || ctx.Err() != nil {
			return // as after a crash: the next start goes on from the journal
		}
		next, more, err := a.step(ctx, event)
		if err != nil {
			a.opt.Log.Error("BUG: an effect led nowhere", "phase", state.Phase, "event", event.Kind, "err", err)
			return
		}
		if len(effects) > 0 && effects[len(effects)-1].Kind == agent.DoSwitch {
			if err := a.opt.Switcher.Done(ctx); err != nil {
				a.opt.Log.Warn("forget the switch", "err", err)
			}
		}
		if next.Phase.AtRest() && state.Phase.AtRest() {
			return
		}
		effects = more
	}
}

// step decides and journals. Where the journal cannot be written, the event
// counts as a failure, and the way back begins.
func (a *Applier) step(ctx context.Context, event agent.Event) (agent.State, []agent.Effect, error) {
	a.deciding.Lock()
	defer a.deciding.Unlock()
	state := a.State()
	event.Text = clamp(event.Text)
	next, effects, err := a.opt.Rules.Step(state, event)
	if err != nil {
		return state, nil, err
	}
	if err := a.store(next); err == nil || wayBack(next.Phase) {
		return next, effects, nil
	} else {
		event = agent.Event{Kind: agent.EventFailed, Text: clamp(err.Error())}
	}
	if world, err := a.world(ctx); err == nil {
		event.Facts.World = world
	}
	for range 8 { // a phase may try again a few times before it gives up
		if next, effects, err = a.opt.Rules.Step(state, event); err != nil {
			return state, nil, err
		}
		if a.store(next) == nil || wayBack(next.Phase) {
			return next, effects, nil
		}
		state = next
	}
	return state, nil, errors.New("the journal cannot be written")
}

// perform carries out the effects of a phase. Ended means that this process is
// not to decide anything more.
func (a *Applier) perform(ctx context.Context, state agent.State, effects []agent.Effect) (event agent.Event, ended bool) {
	for _, e := range effects {
		switch e.Kind {
		case agent.DoSwitch:
			return a.doSwitch(ctx, e)
		case agent.DoProbe:
			return a.doProbe(ctx, state, e)
		}
		err := a.do(ctx, state, e)
		if ctx.Err() != nil {
			return agent.Event{}, true
		}
		if err == nil && e.Kind.Concludes() {
			err = a.awaitEnd(ctx, e)
			if err == nil {
				return agent.Event{}, true
			}
		}
		if err == nil {
			continue
		}
		if e.Passable() {
			a.opt.Log.Warn("effect failed", "effect", e.Kind, "err", err)
			continue
		}
		a.opt.Log.Error("effect failed", "effect", e.Kind, "err", err)
		event = agent.Event{Kind: agent.EventFailed, Text: fmt.Sprintf("%s: %v", e.Kind, err)}
		if world, err := a.world(ctx); err == nil {
			event.Facts.World = world
		}
		return event, false
	}
	return agent.Event{Kind: agent.EventDone}, false
}

// awaitEnd waits for systemd to end this process.
func (a *Applier) awaitEnd(ctx context.Context, e agent.Effect) error {
	timer := time.NewTimer(a.opt.Grace)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil
	case <-timer.C:
		return fmt.Errorf("%s was asked for, and nothing happened within %s", e.Kind, a.opt.Grace)
	}
}

func (a *Applier) do(ctx context.Context, state agent.State, e agent.Effect) error {
	switch e.Kind {
	case agent.DoArmDeadMan:
		after := a.opt.SwitchTimeout + a.opt.ProbeTimeout + a.opt.Grace
		a.mu.Lock()
		a.due = a.opt.Clock().Now.Add(after)
		a.mu.Unlock()
		return a.opt.DeadMan.Arm(ctx, e.System, after)
	case agent.DoDisarmDeadMan:
		a.mu.Lock()
		a.due = time.Time{}
		a.mu.Unlock()
		return a.opt.DeadMan.Disarm(ctx)
	case agent.DoHandOver:
		return a.opt.Services.HandOver(ctx)
	case agent.DoSetProfile:
		return a.opt.Links.SetProfile(e.System)
	case agent.DoSetRoot:
		return a.opt.Links.SetRoot(e.Root, e.System)
	case agent.DoSaveRelease:
		return a.opt.Releases.SetLastGood(e.System)
	case agent.DoQuarantine:
		e.Verdict.At = a.opt.Clock().Now.Unix()
		return a.opt.Memory.AddVerdict(e.Verdict)
	case agent.DoReboot:
		return a.opt.Power.Reboot(ctx, state.Reason.String())
	case agent.DoPrune:
		return a.prune(state)
	}
	if a.opt.Loader == nil {
		return fmt.Errorf("%s: no boot entry can be tried once on this machine", e.Kind)
	}
	switch e.Kind {
	case agent.DoCheckLoader:
		return a.opt.Loader.Usable(ctx)
	case agent.DoStage, agent.DoOfferBoot:
		return a.opt.Loader.Stage(ctx, e.System)
	case agent.DoUnstage:
		return a.opt.Loader.Unstage(ctx)
	case agent.DoBless:
		return a.opt.Loader.Bless(ctx, e.System)
	}
	panic("BUG: apply: unknown effect " + string(e.Kind))
}

func (a *Applier) prune(s agent.State) error {
	keep := []string{s.LastGoodLive.System, s.LastGoodBoot.System, s.Previous.System, s.Reapply.System}
	return errors.Join(
		a.opt.Links.SetRoot(agent.RootCandidate, s.Previous.System), // what a rollback needs stays
		a.opt.Releases.Prune(keep...))
}

func (a *Applier) doSwitch(ctx context.Context, e agent.Effect) (agent.Event, bool) {
	result, text, err := a.patientSwitch(ctx, e.System)
	if err == nil && result == agent.SwitchBusy && a.State().Phase == agent.Reverting {
		result, text, err = a.insist(ctx, e.System)
	}
	if ctx.Err() != nil {
		return agent.Event{}, true
	}
	if err != nil {
		return agent.Event{Kind: agent.EventFailed, Text: fmt.Sprintf("switch to %s: %v", e.System, err)}, false
	}
	event := agent.Event{Kind: agent.EventSwitch, Switch: result, Text: text}
	if event.Facts.World, err = a.world(ctx); err != nil { // then nobody knows what runs: it is not the old one
		a.opt.Log.Warn("look at the machine", "err", err)
	}
	return event, false
}

// patientSwitch waits while systemd cannot be asked, as when it has frozen: then
// there is neither a way forward nor one back, and a watchdog ends it. What the
// journal says afterwards is that the machine died in this phase, which is what
// counts against the candidate. It waits no longer than the dead man would.
func (a *Applier) patientSwitch(ctx context.Context, system string) (agent.SwitchResult, string, error) {
	patient, cancel := context.WithTimeout(ctx, a.opt.SwitchTimeout+a.opt.ProbeTimeout+a.opt.Grace)
	defer cancel()
	for {
		result, text, err := a.opt.Switcher.Switch(ctx, system, a.opt.SwitchTimeout)
		if !errors.Is(err, unit.ErrUnavailable) {
			return result, text, err
		}
		a.opt.Log.Error("systemd cannot be asked to switch; waiting for it, or for the watchdog", "err", err)
		select {
		case <-patient.Done():
			return result, text, err
		case <-time.After(time.Second):
		}
	}
}

// insist makes the way back go before any other switch: the candidate's own,
// which may still run, is ended, and who else holds the lock is waited for.
func (a *Applier) insist(ctx context.Context, system string) (agent.SwitchResult, string, error) {
	if err := a.opt.Switcher.Stop(ctx); err != nil {
		a.opt.Log.Error("end the candidate's switch", "err", err)
	}
	patient, cancel := context.WithTimeout(ctx, a.opt.SwitchTimeout)
	defer cancel()
	for {
		result, text, err := a.opt.Switcher.Switch(ctx, system, a.opt.SwitchTimeout)
		if err != nil || result != agent.SwitchBusy {
			return result, text, err
		}
		select {
		case <-patient.Done():
			return result, text, nil
		case <-time.After(time.Second):
		}
	}
}

func (a *Applier) doProbe(ctx context.Context, state agent.State, e agent.Effect) (agent.Event, bool) {
	// Whatever a switch said: what is not there cannot pass.
	if world, err := a.world(ctx); err == nil && world.Current != e.System {
		return agent.Event{Kind: agent.EventRed, Text: fmt.Sprintf("the current system is %q", world.Current)}, false
	}
	exam := Exam{System: e.System, Old: e.Old, Baseline: state.Baseline, Settle: a.opt.Settle, Timeout: a.opt.ProbeTimeout, Seen: a.seen}
	report, err := a.opt.Prober.Probe(ctx, exam)
	if ctx.Err() != nil {
		return agent.Event{}, true
	}
	if err != nil {
		return agent.Event{Kind: agent.EventRed, Text: err.Error()}, false
	}
	a.seen(report)
	if report.Green() {
		return agent.Event{Kind: agent.EventGreen}, false
	}
	var red []string
	for _, p := range report.Probes {
		if !p.Green && !p.Excused {
			red = append(red, p.Name+" ("+p.Observed+")")
		}
	}
	return agent.Event{Kind: agent.EventRed, Text: strings.Join(red, ", ")}, false
}

func (a *Applier) seen(r agent.Report) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.report = &r
}

// maxText bounds what is journalled of an observation, in bytes.
const maxText = 400

func clamp(text string) string {
	if len(text) > maxText {
		return strings.ToValidUTF8(text[:maxText], "") + "..."
	}
	return text
}
