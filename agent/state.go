package agent

import (
	"slices"
	"time"
)

// Phase is where a transaction of the applier stands. It is journalled before
// the effects of the phase are carried out.
type Phase string

// The phases of the applier. Live arm: ARMED, TRYING, PROBING, PASSED,
// COMMITTING, SETTLED. Reboot arm: ARMED, STAGED, REBOOTING, PROBING, BLESSED,
// SETTLED. Way back: REVERTING, PROBING_OLD, QUARANTINED, IDLE.
const (
	Idle        Phase = "IDLE"
	Armed       Phase = "ARMED"
	Trying      Phase = "TRYING"
	Probing     Phase = "PROBING"
	Passed      Phase = "PASSED"
	Committing  Phase = "COMMITTING"
	Settled     Phase = "SETTLED"
	Staged      Phase = "STAGED"
	Rebooting   Phase = "REBOOTING"
	Blessed     Phase = "BLESSED"
	Reverting   Phase = "REVERTING"
	ProbingOld  Phase = "PROBING_OLD"
	Quarantined Phase = "QUARANTINED"
	Held        Phase = "HELD"
	Safe        Phase = "SAFE"
)

// Phases returns all phases of the applier.
func Phases() []Phase {
	return []Phase{
		Idle, Armed, Trying, Probing, Passed, Committing, Settled, Staged, Rebooting, Blessed,
		Reverting, ProbingOld, Quarantined, Held, Safe,
	}
}

// AtRest says whether nothing is going on in the phase: every transaction ends
// in one of these.
func (p Phase) AtRest() bool {
	return p == Idle || p == Settled || p == Held || p == Safe
}

// Arm is the way in which a generation takes over the machine.
type Arm string

// The arms.
const (
	Live   Arm = "live"   // switch-to-configuration test in the running machine
	Reboot Arm = "reboot" // a boot entry that is tried once
)

// Medium is what a system is made for, and what a node's root is.
type Medium string

// The media.
const (
	MediumLive      Medium = "live"      // root in memory, store from a payload
	MediumInstalled Medium = "installed" // root on disk
)

// Target is a system with what its release says about it. The zero Target is
// none. A system that no release names (adopted, or of the payload) has
// Sequence 0 or the manifest's.
type Target struct {
	Sequence  uint32 `json:"sequence,omitempty"`
	Published int64  `json:"published,omitempty"` // t of the record, Unix seconds
	System    string `json:"system,omitempty"`    // store path
	Closure   string `json:"closure,omitempty"`   // digest of the closure list, "sha256-BASE64"
	Medium    Medium `json:"medium,omitempty"`
	Barrier   string `json:"barrier,omitempty"` // irreversible data; "" if none
}

// IsZero says whether there is no target.
func (t Target) IsZero() bool { return t.System == "" }

// Crosses says whether going back from t to old would pass a data barrier.
func (t Target) Crosses(old Target) bool { return t.Barrier != "" && t.Barrier != old.Barrier }

// Baseline is what was already wrong before a trial: it is not the candidate's
// fault. Both lists are sorted.
type Baseline struct {
	FailedUnits []string `json:"failed_units,omitempty"`
	RedProbes   []string `json:"red_probes,omitempty"`
}

// Trial counts what a system has used up of its bounds. It is forgotten when
// the system proves itself.
type Trial struct {
	System   string `json:"system"`
	Sequence uint32 `json:"sequence"`
	Tries    int    `json:"tries,omitempty"`  // times ARMED
	Deaths   int    `json:"deaths,omitempty"` // machine restarts while it was on trial
	Writes   int    `json:"writes,omitempty"` // journal writes
}

// State is what the applier journals: all that it must know after a power cut.
// The JSON form is the journal's; a reader ignores keys that it does not know.
type State struct {
	Phase  Phase  `json:"phase"`
	Arm    Arm    `json:"arm,omitempty"`
	Medium Medium `json:"medium"` // of the node

	Candidate    Target `json:"candidate,omitzero"` // of the transaction; kept at rest to say what it was
	Leaving      Target `json:"leaving,omitzero"`   // what an operator's rollback leaves
	LastGoodLive Target `json:"last_good_live"`     // what a live revert goes back to
	LastGoodBoot Target `json:"last_good_boot"`     // the default boot entry; of a live node the payload's system
	Previous     Target `json:"previous,omitzero"`  // what an operator's rollback goes to
	Reapply      Target `json:"reapply,omitzero"`   // proven here, but the last boot did not bring it

	// Condemned are to be quarantined in QUARANTINED. At most maxCondemned.
	Condemned []Verdict `json:"condemned,omitempty"`
	Trials    []Trial   `json:"trials,omitempty"` // at most maxTrials

	BootID   string   `json:"boot_id"`
	Booted   string   `json:"booted"`               // system that was booted
	Bad      bool     `json:"booted_bad,omitempty"` // Booted is in quarantine
	Loader   bool     `json:"loader,omitempty"`     // boot entries can be tried once
	Resumes  int      `json:"resumes,omitempty"`    // starts of the applier in this transaction
	Fallback bool     `json:"fallback,omitempty"`
	FromSafe bool     `json:"from_safe,omitempty"` // the transaction began in SAFE
	Paused   bool     `json:"paused,omitempty"`    // by the operator: nothing new is tried
	Baseline Baseline `json:"baseline,omitzero"`
	Reason   Reason   `json:"reason,omitzero"` // of the last red, hold or SAFE
	Since    int64    `json:"since,omitempty"` // when the phase began, Unix seconds
}

// Bounds of the lists in State.
const (
	maxTrials    = 4
	maxCondemned = 4
)

// Limits bound what a transaction may use.
type Limits struct {
	Tries   int           // times that a sequence is armed
	Deaths  int           // machine restarts that a system may cause before it is quarantined
	Resumes int           // starts of the applier in one transaction, before it is given up
	Writes  int           // journal writes of a sequence until it is proven
	Reserve int           // of Writes: what a transaction needs at most once begun
	Stable  time.Duration // uptime before a node without state tries a newer release
}

// DefaultLimits are those of the design.
func DefaultLimits() Limits {
	return Limits{Tries: 3, Deaths: 2, Resumes: 3, Writes: 32, Reserve: 20, Stable: 10 * time.Minute}
}

// Rules decide. They have no state but the clock.
type Rules struct {
	Limits Limits
	Now    func() time.Time
}

// trial returns what a target has used up.
func (s *State) trial(t Target) Trial {
	for _, have := range s.Trials {
		if have.System == t.System {
			return have
		}
	}
	return Trial{System: t.System, Sequence: t.Sequence}
}

// setTrial keeps a count. The oldest one of a system that plays no part any
// more makes room.
func (s *State) setTrial(t Trial) {
	trials := slices.DeleteFunc(slices.Clone(s.Trials), func(have Trial) bool { return have.System == t.System })
	if len(trials) >= maxTrials {
		oldest := slices.IndexFunc(trials, func(have Trial) bool {
			return have.System != s.LastGoodLive.System && have.System != s.Candidate.System && have.System != s.Reapply.System
		})
		trials = slices.Delete(trials, max(oldest, 0), max(oldest, 0)+1)
	}
	s.Trials = append(trials, t)
}

func (s *State) forget(system string) {
	s.Trials = slices.DeleteFunc(slices.Clone(s.Trials), func(have Trial) bool { return have.System == system })
	if len(s.Trials) == 0 {
		s.Trials = nil
	}
}

// condemn asks for the quarantine of a target.
func (s *State) condemn(t Target, why Reason) {
	if t.IsZero() || len(s.Condemned) >= maxCondemned {
		return
	}
	for _, have := range s.Condemned {
		if have.System == t.System {
			return
		}
	}
	s.Condemned = append(slices.Clone(s.Condemned), Verdict{System: t.System, Sequence: t.Sequence, Reason: why})
}

// flushed: what was condemned is in quarantine now and plays no part any more.
func (s *State) flushed() {
	for _, v := range s.Condemned {
		if v.System == s.Reapply.System {
			s.Reapply = Target{}
		}
		if v.System == s.Previous.System {
			s.Previous = Target{}
		}
		s.forget(v.System)
		s.Bad = s.Bad || v.System == s.Booted
	}
	s.Condemned = nil
}

// known returns what the state says of a system.
func (s *State) known(system string) Target {
	for _, t := range []Target{s.LastGoodLive, s.LastGoodBoot, s.Candidate, s.Reapply, s.Previous} {
		if t.System == system {
			return t
		}
	}
	return Target{System: system, Medium: s.Medium}
}
