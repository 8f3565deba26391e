package agent

import "fmt"

// admit decides whether a transaction begins.
func (r Rules) admit(s State, e Event) (State, []Effect, error) {
	if !s.Phase.AtRest() {
		return s, nil, refuse(CodeBusy, "%s of sequence %d is under way (%s)", s.Candidate.System, s.Candidate.Sequence, s.Phase)
	}
	switch e.Kind {
	case EventRollback:
		return r.rollback(s, e.Facts)
	case EventAdopt:
		return r.adopt(s, e.Target, e.Facts)
	}
	if err := r.admissible(s, e); err != nil {
		return s, nil, err
	}
	if e.Target.System == s.LastGoodLive.System && e.Facts.Current == e.Target.System {
		return r.renumber(s, e.Target)
	}
	arm := Live
	if e.Kind == EventStage {
		arm = Reboot
	}
	return r.begin(s, e.Target, arm, e.Facts)
}

// renumber takes over a release that names the system which runs already.
func (r Rules) renumber(s State, t Target) (State, []Effect, error) {
	if s.LastGoodLive == t || s.Phase == Safe {
		return s, nil, nil
	}
	if s.LastGoodBoot.System == t.System {
		s.LastGoodBoot = t
	}
	s.LastGoodLive = t
	if s.Reapply.Sequence <= t.Sequence {
		s.Reapply = Target{}
	}
	s.Since = r.Now().Unix()
	return s, []Effect{{Kind: DoSaveRelease, System: t.System}, {Kind: DoPrune}}, nil
}

// admissible checks a target that verified: whether it is for this node, now.
func (r Rules) admissible(s State, e Event) error {
	t, f := e.Target, e.Facts
	reapply := !s.Reapply.IsZero() && t.System == s.Reapply.System
	switch {
	case t.IsZero():
		return refuse(CodeInvalid, "no system is named")
	case f.Halted && !reapply:
		return refuse(HeldHalted, "the record of sequence %d says p=0", t.Sequence)
	case s.Paused:
		return refuse(HeldPaused, "an operator paused the agent; xnode resume")
	case f.Quarantined || s.condemned(t):
		return refuse(CodeQuarantined, "%s proved bad on this node; only an operator can clear it (xnode quarantine clear)", t.System)
	case t.Sequence < s.LastGoodLive.Sequence && !reapply:
		return refuse(CodeReplay, "sequence %d is older than %d, which runs", t.Sequence, s.LastGoodLive.Sequence)
	case t.Medium != s.Medium && s.Medium == MediumLive:
		return refuse(HeldNeedsInstall, "the class is %s, the node runs from memory", t.Medium)
	case t.Medium != s.Medium:
		return refuse(CodeMedium, "%s is made for medium %q, the node is %s", t.System, t.Medium, s.Medium)
	case !f.Durable && t.Sequence > s.LastGoodLive.Sequence && f.Uptime < int64(r.Limits.Stable.Seconds()):
		return refuse(HeldUptime, "a node without state tries a newer release after %s of uptime, and has %ds", r.Limits.Stable, f.Uptime)
	case s.Phase == Safe && t.Sequence <= s.Candidate.Sequence:
		return refuse(HeldRejected, "SAFE is left by a release above sequence %d or by xnode resume", s.Candidate.Sequence)
	}
	if e.Target.System == s.LastGoodLive.System && f.Current == t.System {
		return nil // nothing is going to be activated
	}
	return r.possible(s, e)
}

// possible checks the arm and the bounds.
func (r Rules) possible(s State, e Event) error {
	t, f := e.Target, e.Facts
	trial := s.trial(t)
	same := t.System == s.Candidate.System
	switch {
	case trial.Sequence == t.Sequence && trial.Tries >= r.Limits.Tries:
		return refuse(HeldExhausted, "sequence %d was tried %d times; xnode resume or a newer release", t.Sequence, trial.Tries)
	case trial.Sequence == t.Sequence && trial.Writes > r.Limits.Writes-r.Limits.Reserve:
		return refuse(HeldExhausted, "sequence %d used %d journal writes; xnode resume or a newer release", t.Sequence, trial.Writes)
	case s.Phase == Held && same && s.Reason.Code == HeldNeedsArtifact:
		return &Refusal{s.Reason}
	case e.Kind == EventTry && f.NeedsReboot && s.Medium == MediumLive:
		return refuse(HeldNeedsArtifact, "%s needs another kernel, modules or parameters: boot an image of it", t.System)
	case e.Kind == EventTry && (f.NeedsReboot || s.Phase == Held && same && s.Reason.Code == HeldNeedsReboot):
		return refuse(HeldNeedsReboot, "%s needs a reboot", t.System)
	case e.Kind == EventStage && s.Medium == MediumLive:
		return refuse(HeldNeedsArtifact, "the node runs from memory: boot an image of %s", t.System)
	case e.Kind == EventStage && !f.Loader:
		return refuse(HeldNoLoader, "no boot entry can be tried once on this machine")
	case e.Kind == EventStage && !f.WindowOpen:
		return refuse(HeldWindow, "no reboot window is open")
	}
	return nil
}

func (s *State) condemned(t Target) bool {
	for _, v := range s.Condemned {
		if v.System == t.System {
			return true
		}
	}
	return false
}

func (r Rules) begin(s State, t Target, arm Arm, f Facts) (State, []Effect, error) {
	trial := s.trial(t)
	if trial.Sequence != t.Sequence { // deaths are the system's, the rest is the sequence's
		trial = Trial{System: t.System, Sequence: t.Sequence, Deaths: trial.Deaths}
	}
	trial.Tries++
	s.Candidate, s.Arm, s.Baseline = t, arm, f.Baseline
	s.setTrial(trial)
	s.Leaving, s.Reason, s.Resumes, s.Fallback = Target{}, Reason{}, 0, false
	s.Loader, s.FromSafe = f.Loader, s.Phase == Safe
	return r.to(s, Armed)
}

// rollback goes back to what was last-good before, and quarantines what it
// leaves once the old one proved itself again.
func (r Rules) rollback(s State, f Facts) (State, []Effect, error) {
	from, back := s.LastGoodLive, s.Previous
	switch {
	case back.IsZero() || back.System == from.System:
		return s, nil, refuse(CodeNothing, "no earlier generation was proven on this node")
	case from.Crosses(back):
		return s, nil, refuse(CodeBarrier, "going back from %s would pass the data barrier %q", from.System, from.Barrier)
	case f.Quarantined || s.condemned(back):
		return s, nil, refuse(CodeQuarantined, "%s is in quarantine", back.System)
	case f.NeedsReboot && s.Medium == MediumLive:
		return s, nil, refuse(HeldNeedsArtifact, "%s needs another kernel, modules or parameters: boot an image of it", back.System)
	case f.NeedsReboot && !f.Loader:
		return s, nil, refuse(HeldNoLoader, "no boot entry can be tried once on this machine")
	}
	arm := Live
	if f.NeedsReboot {
		arm = Reboot
	}
	s.forget(back.System) // an operator's word begins the count anew
	s.forget(from.System)
	s, _, _ = r.begin(s, back, arm, f)
	s.Leaving = from
	return s, effectsOf(s), nil
}

// adopt judges a system that somebody else switched to.
func (r Rules) adopt(s State, t Target, f Facts) (State, []Effect, error) {
	switch {
	case t.IsZero() || t.System != f.Current:
		return s, nil, refuse(CodeNothing, "only the running system can be adopted")
	case t.System == s.LastGoodLive.System:
		return s, nil, refuse(CodeNothing, "%s is last-good already", t.System)
	case f.Quarantined || s.condemned(t):
		return s, nil, refuse(CodeQuarantined, "%s proved bad on this node", t.System)
	case t.Medium != s.Medium:
		return s, nil, refuse(CodeMedium, "%s is made for medium %q, the node is %s", t.System, t.Medium, s.Medium)
	case f.NeedsReboot:
		return s, nil, refuse(HeldNeedsReboot, "%s needs a reboot: boot it, then it is judged", t.System)
	}
	t.Sequence = max(t.Sequence, s.LastGoodLive.Sequence)
	return r.begin(s, t, Live, f)
}

// Fresh is the state of a node on which the applier never ran, or whose state
// did not outlive the boot.
func (r Rules) Fresh(w World) State {
	booted := Target{System: w.Booted, Sequence: w.BootedSequence, Medium: w.Medium}
	s := State{
		Phase: Idle, Medium: w.Medium, LastGoodLive: booted, LastGoodBoot: booted,
		BootID: w.BootID, Booted: w.Booted, Loader: w.Loader, Since: r.Now().Unix(),
	}
	if w.Current != w.Booted && w.Current != "" {
		s.LastGoodLive = Target{System: w.Current, Medium: w.Medium}
	}
	return s
}

// Lost is the safe answer where there was a journal and both copies are
// damaged: nothing is activated until an operator or a release above the
// newest accepted one says so. The roots are what the links of gcroots name.
func (r Rules) Lost(w World, roots map[Root]string, accepted uint32, why error) State {
	s := r.Fresh(w)
	if old := roots[RootLastGoodLive]; old != "" {
		s.LastGoodLive = Target{System: old, Medium: w.Medium}
	}
	if old := roots[RootLastGoodBoot]; old != "" && w.Medium == MediumInstalled {
		s.LastGoodBoot = Target{System: old, Medium: w.Medium}
	}
	s.Phase, s.Candidate.Sequence = Safe, accepted
	s.Reason = Reason{RedJournal, fmt.Sprint(why)}
	return s
}
