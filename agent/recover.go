package agent

// Recover answers a start of the applier: after a crash of the process (same
// boot id) or of the machine. It is one table over journal, booted and current
// system, boot id, mark and one-shot entry; the first row that fits decides.
// Doing it twice is the same as doing it once.
func (r Rules) Recover(s State, w World) (State, []Effect) {
	next, effects, _ := r.recover(s, w)
	return next, effects
}

// RecoverRow is Recover, with the name of the row that decided.
func (r Rules) RecoverRow(s State, w World) (State, []Effect, string) { return r.recover(s, w) }

func (r Rules) recover(s State, w World) (State, []Effect, string) {
	if s.Phase == "" {
		s = r.Fresh(w)
		next, effects, _ := r.to(s, Idle)
		return next, effects, "no journal"
	}
	before := s
	if s.BootID == "" { // written by Lost
		s.BootID, s.Booted = w.BootID, w.Booted
	}
	s.Loader = w.Loader
	rebooted := s.BootID != w.BootID
	for _, row := range rows() {
		if row.rebooted != rebooted || !row.fits(s, w) {
			continue
		}
		next, effects, _ := row.then(r, s, w)
		return r.count(before, next), effects, row.name
	}
	panic("BUG: agent: no row of the recovery table fits " + string(s.Phase))
}

// row is a line of the recovery table.
type row struct {
	name     string
	rebooted bool // the machine has restarted since the journal was written
	phases   []Phase
	arm      Arm                         // "" for both
	when     func(s State, w World) bool // nil: always
	then     func(Rules, State, World) (State, []Effect, error)
}

func (row row) fits(s State, w World) bool {
	for _, p := range row.phases {
		if p == s.Phase {
			return (row.arm == "" || row.arm == s.Arm) && (row.when == nil || row.when(s, w))
		}
	}
	return false
}

func rows() []row {
	return append(sameBoot(), otherBoot()...)
}

// sameBoot: the applier died or handed over; the machine did not.
func sameBoot() []row {
	return []row{
		{name: "armed: nothing was begun", phases: []Phase{Armed}, then: func(r Rules, s State, _ World) (State, []Effect, error) {
			s.Reason = Reason{CodeInternal, "the applier was stopped before the switch"}
			return r.transient(s)
		}},
		{
			name: "probing: somebody switched away", phases: []Phase{Probing}, arm: Live,
			when: func(s State, w World) bool { return w.Current != s.Candidate.System },
			then: func(r Rules, s State, w World) (State, []Effect, error) {
				return r.giveUp(s, Reason{RedSwitch, w.Current + " runs instead of the candidate"})
			},
		},
		{name: "blessing: repeat it", phases: []Phase{Blessed}, then: func(r Rules, s State, w World) (State, []Effect, error) {
			return r.blessAgain(s, w, Reason{RedCrashes, "the applier was started again and again"})
		}},
		{name: "under way: go on", phases: []Phase{
			Trying, Probing, Passed, Committing, Staged, Rebooting, Reverting, ProbingOld, Quarantined,
		}, then: func(r Rules, s State, _ World) (State, []Effect, error) {
			return r.again(s, Reason{RedCrashes, "the applier was started again and again in " + string(s.Phase)})
		}},
		{name: "at rest", phases: []Phase{Idle, Settled, Held, Safe}, then: func(r Rules, s State, _ World) (State, []Effect, error) {
			return r.to(s, s.Phase)
		}},
	}
}

// otherBoot: the machine restarted. What runs now is what was booted.
func otherBoot() []row {
	trial := []Phase{Staged, Rebooting, Probing}
	return []row{
		{
			name: "a quarantined system was booted: away from it", rebooted: true, phases: Phases(),
			when: func(s State, w World) bool {
				return w.BootedQuarantined && w.Loader && s.Medium == MediumInstalled && w.Booted != s.LastGoodBoot.System && s.Phase != Safe
			},
			then: Rules.leaveBoot,
		},
		{name: "SAFE stays", rebooted: true, phases: []Phase{Safe}, then: func(r Rules, s State, w World) (State, []Effect, error) {
			return r.to(r.base(s, w), Safe)
		}},
		{
			name: "the trial boot came up", rebooted: true, phases: trial, arm: Reboot,
			when: func(s State, w World) bool { return w.Booted == s.Candidate.System }, then: Rules.arrived,
		},
		{
			name: "the trial boot failed", rebooted: true, phases: trial, arm: Reboot,
			when: func(s State, w World) bool {
				return s.Phase == Probing || w.Mark == s.Candidate.System && w.OneShot == ""
			},
			then: Rules.died,
		},
		{name: "the trial boot was not tried", rebooted: true, phases: trial, arm: Reboot, then: func(r Rules, s State, w World) (State, []Effect, error) {
			s = r.base(s, w)
			if s.Phase == Probing || s.Phase == Rebooting {
				s.Phase = Staged
			}
			return r.again(s, s.Reason)
		}},
		{name: "the trial died with the machine", rebooted: true, phases: []Phase{Trying, Probing}, arm: Live, then: Rules.died},
		{
			name: "committed live and booted", rebooted: true, phases: []Phase{Passed, Committing},
			when: func(s State, w World) bool { return s.Medium == MediumInstalled && w.Booted == s.Candidate.System },
			then: func(r Rules, s State, w World) (State, []Effect, error) {
				proven := s.Candidate
				s = r.base(s, w)
				s.LastGoodLive, s.Reapply = proven, Target{}
				return r.rest(s)
			},
		},
		{name: "passed, but the boot did not bring it", rebooted: true, phases: []Phase{Passed, Committing}, then: func(r Rules, s State, w World) (State, []Effect, error) {
			proven := s.Candidate
			s = r.base(s, w)
			if s.Booted != proven.System {
				s.Reapply = proven
			}
			return r.restAfterBoot(s)
		}},
		{
			name: "blessing was cut: repeat it", rebooted: true, phases: []Phase{Blessed},
			when: func(s State, w World) bool { return w.Booted == s.Candidate.System || w.Default == s.Candidate.System },
			then: func(r Rules, s State, w World) (State, []Effect, error) {
				return r.blessAgain(r.base(s, w), w, Reason{RedCommit, "the machine restarted again and again"})
			},
		},
		{name: "blessing was cut before the entry moved", rebooted: true, phases: []Phase{Blessed}, then: func(r Rules, s State, w World) (State, []Effect, error) {
			proven := s.Candidate
			s = r.base(s, w)
			s.Reapply = proven
			return r.restAfterBoot(s)
		}},
		{
			name: "still the red candidate: reboot again", rebooted: true, phases: []Phase{Reverting}, arm: Reboot,
			when: func(s State, w World) bool { return w.Booted == s.Candidate.System },
			then: func(r Rules, s State, w World) (State, []Effect, error) {
				return r.again(r.base(s, w), s.Reason)
			},
		},
		{
			name: "the one reboot came up", rebooted: true, phases: []Phase{Quarantined, ProbingOld},
			when: func(s State, _ World) bool { return s.Fallback },
			then: func(r Rules, s State, w World) (State, []Effect, error) {
				if s = r.base(s, w); s.Phase == ProbingOld {
					return r.again(s, s.Reason)
				}
				s.Resumes = 0
				return r.to(s, ProbingOld)
			},
		},
		{
			name: "the way back is done by the boot", rebooted: true,
			phases: []Phase{Reverting, ProbingOld, Quarantined, Armed, Idle, Settled, Held}, then: Rules.returned,
		},
	}
}

// base takes over what a boot decides: a live node is back in its payload, an
// installed one in a boot entry. What was proven live and was not booted is to
// be applied again, unless that boot was its second failure.
func (r Rules) base(s State, w World) State {
	lost := s.LastGoodLive
	s.BootID, s.Booted, s.Bad, s.FromSafe = w.BootID, w.Booted, w.BootedQuarantined, false
	if s.Medium == MediumLive {
		if s.LastGoodBoot.System != w.Booted {
			s.LastGoodBoot = Target{System: w.Booted, Sequence: w.BootedSequence, Medium: MediumLive}
		}
		s.LastGoodLive = s.LastGoodBoot
		if lost.System != w.Booted {
			s.Reapply = lost
		}
		if s.Reapply.System == w.Booted || w.BootedSequence > 0 && s.Reapply.Sequence <= w.BootedSequence {
			s.Reapply = Target{} // a newer image was booted
		}
		return s
	}
	if w.Booted == lost.System {
		return s
	}
	s.LastGoodLive = s.LastGoodBoot
	if !s.Loader && w.Booted != s.Candidate.System {
		s.LastGoodBoot = Target{System: w.Booted, Medium: MediumInstalled} // another loader chooses; we follow
		s.LastGoodLive = s.LastGoodBoot
	}
	if lost.System == s.LastGoodLive.System || s.condemned(lost) {
		return s
	}
	if w.Mark == lost.System && w.OneShot == "" {
		if s = r.death(s, lost, "it was committed live and did not boot"); s.condemned(lost) {
			return s
		}
	}
	s.Reapply = lost
	return s
}

// death counts a machine restart against a system, and condemns it when it has
// caused too many.
func (r Rules) death(s State, t Target, text string) State {
	trial := s.trial(t)
	trial.Deaths++
	s.setTrial(trial)
	s.Reason = Reason{RedDied, text}
	if trial.Deaths >= r.Limits.Deaths && t.System != s.LastGoodBoot.System {
		s.condemn(t, s.Reason)
	}
	return s
}

// restAfterBoot is rest, but not past a data barrier: the system that was
// booted must not read what the other one wrote.
func (r Rules) restAfterBoot(s State) (State, []Effect, error) {
	if s.Medium == MediumInstalled && s.Reapply.Crosses(s.LastGoodBoot) && s.Booted == s.LastGoodBoot.System {
		s.Candidate = s.Reapply
		return r.safe(s, Reason{CodeBarrier, s.Booted + " was booted, which is from before the data barrier " + s.Reapply.Barrier})
	}
	if s.Phase == Settled && s.Booted == s.LastGoodLive.System && s.Booted == s.LastGoodBoot.System && len(s.Condemned) == 0 {
		return r.to(s, Settled)
	}
	return r.rest(s)
}

func (r Rules) arrived(s State, w World) (State, []Effect, error) {
	again := s.Phase == Probing
	s = r.base(s, w)
	s.Phase = Probing
	if again {
		return r.again(s, Reason{RedCrashes, "the machine restarted again and again during the trial boot"})
	}
	return s, effectsOf(s), nil
}

// died: the machine restarted during the trial. Once it may have been the
// power; twice it was the candidate.
func (r Rules) died(s State, w World) (State, []Effect, error) {
	candidate, arm, deaths := s.Candidate, s.Arm, s.trial(s.Candidate).Deaths
	s = r.base(s, w)
	if s.trial(candidate).Deaths == deaths { // else the base has counted it
		s = r.death(s, candidate, "the machine restarted during the trial")
	}
	if candidate.Crosses(s.LastGoodBoot) && s.Medium == MediumInstalled {
		s.condemn(candidate, s.Reason)
		return r.safe(s, Reason{CodeBarrier, s.Booted + " was booted, which is from before the data barrier " + candidate.Barrier})
	}
	if len(s.Condemned) == 0 && arm == Reboot && s.Booted == s.LastGoodBoot.System && !r.spent(s) {
		s.Resumes = 0
		return r.to(s, Staged)
	}
	return r.transientAfterBoot(s)
}

func (r Rules) transientAfterBoot(s State) (State, []Effect, error) {
	if len(s.Condemned) > 0 {
		return r.to(s, Quarantined)
	}
	return r.transient(s)
}

// leaveBoot reboots out of a quarantined system that was booted.
func (r Rules) leaveBoot(s State, w World) (State, []Effect, error) {
	again := s.Phase == Reverting && s.Arm == Reboot && s.Candidate.System == w.Booted
	s = r.base(s, w)
	if again {
		return r.again(s, s.Reason)
	}
	return r.leave(s)
}

func (r Rules) returned(s State, w World) (State, []Effect, error) {
	s = r.base(s, w)
	switch s.Phase {
	case Armed:
		s.Reason = Reason{CodeInternal, "the machine restarted before the switch"}
		return r.transientAfterBoot(s)
	case Held: // a hold is over with the boot
		if s.Reason.Code != HeldExhausted {
			s.Reason = Reason{}
		}
	}
	return r.restAfterBoot(s)
}
