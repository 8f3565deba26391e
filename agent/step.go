package agent

import "reflect"

// Step answers an event: the State to journal, then the Effects to carry out
// in their order. An effect that fails ends them with EventFailed, unless it is
// best effort; when all are done EventDone follows, unless one Concludes. A
// *Refusal changes nothing.
func (r Rules) Step(s State, e Event) (State, []Effect, error) {
	next, effects, err := r.decide(s, e)
	if err != nil {
		return s, nil, err
	}
	return r.count(s, next), effects, nil
}

// Equal says whether two states are the same, so that nothing need be written.
func (s State) Equal(other State) bool { return reflect.DeepEqual(s, other) }

// count adds the journal write that next needs to what its candidate has used.
func (r Rules) count(before, next State) State {
	if before.Equal(next) || next.Candidate.IsZero() || before.Phase.AtRest() && next.Phase.AtRest() {
		return next
	}
	t := next.trial(next.Candidate)
	if next.Phase == Settled && t == (Trial{System: t.System, Sequence: t.Sequence}) {
		return next // proved: the count begins anew
	}
	t.Writes++
	next.setTrial(t)
	return next
}

func (r Rules) decide(s State, e Event) (State, []Effect, error) {
	switch e.Kind {
	case EventTry, EventStage, EventRollback, EventAdopt:
		return r.admit(s, e)
	case EventPause:
		s.Paused = true
		return s, nil, nil
	case EventResume:
		return r.resume(s)
	case EventDone:
		return r.done(s)
	case EventFailed:
		return r.failed(s, e.Text, e.Facts.World)
	case EventSwitch:
		return r.switched(s, e)
	case EventGreen:
		return r.green(s)
	case EventRed:
		return r.red(s, e.Text)
	case EventDeadMan:
		return r.deadMan(s)
	}
	return s, nil, refuse(CodeUnexpected, "unknown event %q", e.Kind)
}

func unexpected(s State, e EventKind) (State, []Effect, error) {
	return s, nil, refuse(CodeUnexpected, "%s means nothing in %s", e, s.Phase)
}

// to enters a phase: its effects are the same when it is entered again after a
// crash.
func (r Rules) to(s State, p Phase) (State, []Effect, error) {
	if s.Phase != p {
		s.Phase, s.Since = p, r.Now().Unix()
	}
	return s, effectsOf(s), nil
}

func (r Rules) resume(s State) (State, []Effect, error) {
	s.Paused = false
	if s.Phase != Held && s.Phase != Safe {
		return s, nil, nil
	}
	s.forget(s.Candidate.System)
	s.Reason, s.Fallback, s.Resumes = Reason{}, false, 0
	if len(s.Condemned) > 0 {
		return r.to(s, Quarantined)
	}
	return r.to(s, Idle)
}

func (r Rules) done(s State) (State, []Effect, error) {
	switch s.Phase {
	case Armed:
		s.flushed()
		if s.Arm == Reboot {
			return r.to(s, Staged)
		}
		return r.to(s, Trying)
	case Passed:
		return r.to(s, Committing)
	case Committing:
		return r.settle(s)
	case Staged:
		return r.to(s, Rebooting)
	case Blessed:
		return r.isDefault(s)
	case Quarantined:
		if s.Fallback {
			return unexpected(s, EventDone) // the reboot is what ends it
		}
		s.flushed()
		return r.rest(s)
	case Idle, Settled, Held, Safe:
		return s, nil, nil
	}
	return unexpected(s, EventDone)
}

// isDefault: the candidate is the default boot entry now.
func (r Rules) isDefault(s State) (State, []Effect, error) {
	s.LastGoodBoot = s.Candidate
	return r.settle(s)
}

// blessAgain repeats the blessing within the bounds. Past them the truth is
// what the loader says.
func (r Rules) blessAgain(s State, w World, why Reason) (State, []Effect, error) {
	if (s.Resumes >= r.Limits.Resumes || r.spent(s)) && w.Default == s.Candidate.System {
		return r.isDefault(s)
	}
	return r.again(s, why)
}

// settle makes the candidate, which is committed by now, last-good. If it was
// blessed by a boot that has ended since, it is what is to be applied again.
func (r Rules) settle(s State) (State, []Effect, error) {
	running := s.Arm == Live || s.Booted == s.Candidate.System
	if s.Reapply.System == s.Candidate.System || s.Reapply.Sequence <= s.Candidate.Sequence {
		s.Reapply = Target{}
	}
	if running {
		if s.LastGoodLive.System != s.Candidate.System {
			s.Previous = s.LastGoodLive
		}
		s.LastGoodLive = s.Candidate
	} else {
		s.Reapply = s.Candidate
	}
	if !s.Leaving.IsZero() {
		s.Previous, s.Leaving = Target{}, Target{}
	}
	deaths := s.trial(s.Candidate).Deaths
	s.forget(s.Candidate.System)
	if deaths > 0 && s.LastGoodBoot.System != s.Candidate.System && s.Medium == MediumInstalled {
		s.setTrial(Trial{System: s.Candidate.System, Sequence: s.Candidate.Sequence, Deaths: deaths})
	}
	s.Reason, s.Resumes, s.Fallback, s.FromSafe, s.Baseline = Reason{}, 0, false, false, Baseline{}
	if !running {
		return r.to(s, Idle)
	}
	return r.to(s, Settled)
}

func (r Rules) failed(s State, text string, w World) (State, []Effect, error) {
	switch s.Phase {
	case Armed:
		s.Reason = Reason{CodeInternal, text}
		return r.transient(s)
	case Trying:
		s.Reason, s.Resumes, s.FromSafe = Reason{CodeInternal, text}, 0, false
		return r.to(s, Reverting)
	case Probing:
		if s.Arm == Live {
			return r.giveUp(s, Reason{RedHandOver, text})
		}
		return r.giveUp(s, Reason{RedProbe, text})
	case Passed: // the dead man reads PASSED and does nothing
		return r.to(s, Committing)
	case Committing:
		return r.again(s, Reason{RedCommit, text})
	case Blessed:
		return r.blessAgain(s, w, Reason{RedCommit, text})
	case Staged:
		return r.hold(s, Reason{HeldNoLoader, text})
	case Rebooting:
		return r.hold(s, Reason{RedReboot, text})
	case Reverting:
		if s.Arm == Live {
			return r.to(s, ProbingOld)
		}
		return r.safe(s, Reason{RedReboot, text})
	case ProbingOld:
		return r.oldRed(s, text)
	case Quarantined:
		return r.safe(s, Reason{RedCommit, text})
	}
	return s, nil, nil // at rest nothing depends on it
}

func (r Rules) switched(s State, e Event) (State, []Effect, error) {
	switch {
	case s.Phase == Reverting && s.Arm == Live:
		if e.Switch == SwitchBusy && s.Resumes < r.Limits.Resumes {
			s.Resumes++
			return r.to(s, Reverting)
		}
		return r.to(s, ProbingOld) // whatever it said: the probes judge
	case s.Phase != Trying:
		return unexpected(s, e.Kind)
	}
	switch e.Switch {
	case SwitchOK:
		s, _, _ = r.to(s, Probing)
		return s, []Effect{{Kind: DoHandOver}}, nil
	case SwitchReboot:
		s.Reason = Reason{HeldNeedsReboot, e.Text}
		if s.Medium == MediumLive {
			s.Reason.Code = HeldNeedsArtifact
		}
	case SwitchBusy:
		s.Reason = Reason{HeldLock, e.Text}
	default:
		return r.giveUp(s, Reason{RedSwitch, e.Text})
	}
	if e.Facts.Current == s.LastGoodLive.System {
		return r.transient(s)
	}
	s.Resumes, s.FromSafe = 0, false
	return r.to(s, Reverting)
}

func (r Rules) green(s State) (State, []Effect, error) {
	switch {
	case s.Phase == Probing && s.Arm == Live:
		return r.to(s, Passed)
	case s.Phase == Probing:
		return r.to(s, Blessed)
	case s.Phase == ProbingOld && len(s.Condemned) > 0:
		s.Fallback = false
		return r.to(s, Quarantined)
	case s.Phase == ProbingOld:
		s.Fallback = false
		return r.transient(s)
	}
	return unexpected(s, EventGreen)
}

func (r Rules) red(s State, text string) (State, []Effect, error) {
	switch s.Phase {
	case Probing:
		return r.giveUp(s, Reason{RedProbe, text})
	case ProbingOld:
		return r.oldRed(s, text)
	}
	return unexpected(s, EventRed)
}

// deadMan judges that the time is over. From PASSED on it has no say.
func (r Rules) deadMan(s State) (State, []Effect, error) {
	switch s.Phase {
	case Armed:
		s.Reason = Reason{RedDeadMan, "nothing was switched to yet"}
		return r.transient(s)
	case Trying, Probing:
		return r.giveUp(s, Reason{RedDeadMan, "not proven in time"})
	case Reverting, ProbingOld, Quarantined:
		return r.again(s, s.Reason)
	}
	return s, nil, nil
}
