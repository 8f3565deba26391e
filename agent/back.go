package agent

import "fmt"

// giveUp is the way back from a red candidate. Past a data barrier there is
// none: the old generation must not read what the new one wrote.
func (r Rules) giveUp(s State, why Reason) (State, []Effect, error) {
	s.Reason = why
	s.Resumes = 0
	old := s.LastGoodLive
	if s.Arm == Reboot {
		old = s.LastGoodBoot
		if s.LastGoodLive.System == s.Candidate.System { // proven live, but not by its boot
			s.LastGoodLive = old
		}
	}
	// What the node falls back to is never condemned by a trial of it.
	if s.Candidate.System != old.System && s.Candidate.System != s.LastGoodBoot.System {
		s.condemn(s.Candidate, why)
	}
	if s.Candidate.Crosses(old) {
		return r.safe(s, Reason{CodeBarrier, fmt.Sprintf("%s; going back would pass the data barrier %q", why, s.Candidate.Barrier)})
	}
	s.FromSafe = false // it is decided by the way back
	return r.to(s, Reverting)
}

// again enters the phase once more after a failure or a crash, within the
// bounds; past them it takes the safe way out of each phase.
func (r Rules) again(s State, why Reason) (State, []Effect, error) {
	s.Resumes++
	if s.Resumes <= r.Limits.Resumes && !r.spent(s) {
		return r.to(s, s.Phase)
	}
	s.Resumes = 0
	switch s.Phase {
	case Trying, Probing:
		return r.giveUp(s, why)
	case Staged:
		return r.hold(s, Reason{HeldNoLoader, "the boot entry was staged again and again"})
	case Rebooting:
		return r.hold(s, Reason{RedReboot, "the machine was asked to reboot again and again"})
	case Reverting:
		if s.Arm == Live {
			return r.oldRed(s, why.String())
		}
	case ProbingOld:
		return r.oldRed(s, why.String())
	}
	return r.safe(s, why)
}

// wayOut is how many journal writes the way to rest needs at most, once nothing
// is tried again.
const wayOut = 10

// spent says that the sequence has only the writes for its way out left.
func (r Rules) spent(s State) bool {
	return s.trial(s.Candidate).Writes > r.Limits.Writes-wayOut
}

// oldRed: the old generation is not well either. One reboot may help.
func (r Rules) oldRed(s State, text string) (State, []Effect, error) {
	if s.Fallback {
		return r.safe(s, Reason{RedOld, text})
	}
	s.Fallback, s.Resumes = true, 0
	if s.Reason.IsZero() {
		s.Reason = Reason{RedOld, text}
	}
	return r.to(s, Quarantined)
}

func (r Rules) safe(s State, why Reason) (State, []Effect, error) {
	s.Reason, s.Resumes, s.FromSafe = why, 0, false
	return r.to(s, Safe)
}

// transient ends a transaction that says nothing bad about the candidate. If it
// began in SAFE, nothing is better than before.
func (r Rules) transient(s State) (State, []Effect, error) {
	if t := s.trial(s.Candidate); t.Tries >= r.Limits.Tries && !final(s.Reason.Code) {
		s.Reason = Reason{HeldExhausted, fmt.Sprintf("tried %d times; the last time: %s", t.Tries, s.Reason)}
	}
	if s.FromSafe {
		return r.safe(s, s.Reason)
	}
	return r.rest(s)
}

// hold stops a reboot that cannot be made.
func (r Rules) hold(s State, why Reason) (State, []Effect, error) {
	s.Reason = why
	if s.FromSafe {
		return r.safe(s, why)
	}
	return r.to(s, Held)
}

// final says whether a hold lasts until the world changes, so that trying again
// is no use and no count is needed.
func final(c Code) bool {
	return c == HeldNeedsArtifact || c == HeldNeedsReboot || c == HeldExhausted
}

// rest ends a transaction. A system that a boot brought and that is not yet the
// default has its exam now.
func (r Rules) rest(s State) (State, []Effect, error) {
	s.Leaving, s.FromSafe = Target{}, false
	if len(s.Condemned) > 0 {
		if s.Phase == Quarantined { // the machine restarted before it was done
			return r.again(s, s.Reason)
		}
		return r.to(s, Quarantined)
	}
	if s.Medium == MediumInstalled && s.Booted != s.LastGoodBoot.System && s.Loader {
		if s.Bad {
			return r.leave(s)
		}
		s.Candidate, s.Arm, s.Resumes, s.Fallback, s.Reason = s.known(s.Booted), Reboot, 0, false, Reason{}
		return r.to(s, Probing)
	}
	s.Resumes, s.Fallback, s.Baseline = 0, false, Baseline{}
	if (&Refusal{s.Reason}).Held() {
		return r.to(s, Held)
	}
	return r.to(s, Idle)
}

// leave reboots out of a quarantined system.
func (r Rules) leave(s State) (State, []Effect, error) {
	s.Candidate, s.Leaving, s.Arm, s.Resumes = Target{System: s.Booted, Medium: s.Medium}, Target{}, Reboot, 0
	s.Reason = Reason{CodeQuarantined, s.Booted + " was booted, which is in quarantine"}
	if s.LastGoodLive.System == s.Booted {
		s.LastGoodLive = s.LastGoodBoot
	}
	return r.to(s, Reverting)
}

// effectsOf lists what a phase does when it is entered, the first time or
// after a crash.
func effectsOf(s State) []Effect {
	c := s.Candidate.System
	switch s.Phase {
	case Armed:
		effects := verdicts(s.Condemned)
		if s.Arm == Reboot {
			return append(effects, Effect{Kind: DoCheckLoader})
		}
		return append(effects, Effect{Kind: DoArmDeadMan, System: s.LastGoodLive.System})
	case Trying:
		return []Effect{{Kind: DoSwitch, System: c}}
	case Probing:
		if s.Arm == Reboot {
			return []Effect{{Kind: DoProbe, System: c, Old: s.LastGoodBoot.System}}
		}
		return []Effect{{Kind: DoProbe, System: c, Old: s.LastGoodLive.System}}
	case Passed:
		return []Effect{{Kind: DoDisarmDeadMan}}
	case Committing:
		return committing(s)
	case Staged:
		return []Effect{{Kind: DoStage, System: c}}
	case Rebooting:
		return []Effect{{Kind: DoReboot}}
	case Blessed:
		return blessed(s)
	case Reverting:
		if s.Arm == Reboot {
			return []Effect{{Kind: DoUnstage}, {Kind: DoReboot}}
		}
		return []Effect{{Kind: DoSwitch, System: s.LastGoodLive.System}}
	case ProbingOld:
		return []Effect{{Kind: DoProbe, System: s.LastGoodLive.System}}
	case Quarantined:
		return quarantined(s)
	case Settled:
		return []Effect{{Kind: DoPrune}}
	case Held:
		if s.Arm == Reboot && s.Loader {
			return []Effect{{Kind: DoUnstage, Optional: true}, {Kind: DoDisarmDeadMan}}
		}
	}
	return []Effect{{Kind: DoDisarmDeadMan}}
}

func verdicts(list []Verdict) []Effect {
	var effects []Effect
	for _, v := range list {
		effects = append(effects, Effect{Kind: DoQuarantine, System: v.System, Verdict: v})
	}
	return effects
}

func (s State) leavingVerdict() []Effect {
	if s.Leaving.IsZero() {
		return nil
	}
	v := Verdict{System: s.Leaving.System, Sequence: s.Leaving.Sequence, Reason: Reason{Code: RedRollback}}
	return verdicts([]Verdict{v})
}

func committing(s State) []Effect {
	c := s.Candidate.System
	effects := []Effect{
		{Kind: DoSetProfile, System: c},
		{Kind: DoSetRoot, Root: RootLastGoodLive, System: c},
		{Kind: DoSaveRelease, System: c},
	}
	switch {
	case s.Medium != MediumInstalled || !s.Loader:
	case c == s.LastGoodBoot.System:
		effects = append(effects, Effect{Kind: DoUnstage})
	default:
		effects = append(effects, Effect{Kind: DoOfferBoot, System: c})
	}
	return append(effects, s.leavingVerdict()...) // until here it was last-good
}

// blessed moves the default last: until then a power cut ends in the old one.
// What comes after it only tidies up.
func blessed(s State) []Effect {
	c := s.Candidate.System
	return append(s.leavingVerdict(),
		Effect{Kind: DoSetProfile, System: c},
		Effect{Kind: DoSetRoot, Root: RootLastGoodBoot, System: c},
		Effect{Kind: DoSetRoot, Root: RootLastGoodLive, System: c},
		Effect{Kind: DoSaveRelease, System: c},
		Effect{Kind: DoBless, System: c},
		Effect{Kind: DoUnstage, Optional: true},
		Effect{Kind: DoDisarmDeadMan})
}

func quarantined(s State) []Effect {
	effects := append(verdicts(s.Condemned), Effect{Kind: DoSetProfile, System: s.LastGoodLive.System})
	unblessed := s.LastGoodLive.System != s.LastGoodBoot.System
	if s.Medium == MediumInstalled && s.Loader && (s.Arm == Reboot || s.Fallback || !unblessed) {
		effects = append(effects, Effect{Kind: DoUnstage})
	}
	if s.Fallback {
		return append(effects, Effect{Kind: DoReboot})
	}
	return append(effects, Effect{Kind: DoDisarmDeadMan})
}
