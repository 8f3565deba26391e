package agent

import "slices"

// FollowPhase is where the follower stands with the newest announcement.
type FollowPhase string

// The phases of the follower, in their order. From any of them the way leads
// back to IDLE, to HELD, or to SEEN when a newer record comes.
const (
	FollowIdle     FollowPhase = "IDLE"
	FollowSeen     FollowPhase = "SEEN"     // a record verified and is newer
	FollowFetched  FollowPhase = "FETCHED"  // its commit is here
	FollowVerified FollowPhase = "VERIFIED" // release.json is the one that d binds
	FollowHeld     FollowPhase = "HELD"     // see FollowState.Reason
	FollowRealised FollowPhase = "REALISED" // every path is in the store
	FollowChecked  FollowPhase = "CHECKED"  // the applier may be asked
	FollowApplying FollowPhase = "APPLYING" // it was asked
)

var followOrder = []FollowPhase{
	FollowIdle, FollowSeen, FollowFetched, FollowVerified, FollowRealised, FollowChecked, FollowApplying,
}

// FollowState is the follower's part of the status. It is not journalled:
// everything in it can be found out again.
type FollowState struct {
	Phase    FollowPhase `json:"phase"`
	Sequence uint32      `json:"sequence,omitempty"`
	Target   Target      `json:"target,omitzero"`
	Reason   Reason      `json:"reason,omitzero"` // of HELD, or why the last attempt ended
	Since    int64       `json:"since"`           // Unix seconds
	Failures int         `json:"failures,omitempty"`
}

// Advance moves to the next phase of the same sequence, or starts again with a
// newer one. A step backwards or a jump over a check is refused: what was not
// fetched cannot be verified.
func (f FollowState) Advance(to FollowPhase, sequence uint32, now int64) (FollowState, error) {
	if to == FollowSeen && sequence >= f.Sequence {
		return FollowState{Phase: to, Sequence: sequence, Since: now}, nil
	}
	from, at := slices.Index(followOrder, f.Phase), slices.Index(followOrder, to)
	if f.Phase == FollowHeld {
		from = slices.Index(followOrder, FollowVerified)
		if !f.Target.IsZero() && f.Failures == 0 && at == slices.Index(followOrder, FollowChecked) {
			from = slices.Index(followOrder, FollowRealised)
		}
	}
	if at != from+1 || sequence != f.Sequence {
		return f, refuse(CodeUnexpected, "follower: %s of sequence %d does not follow %s of sequence %d", to, sequence, f.Phase, f.Sequence)
	}
	f.Phase, f.Since, f.Reason = to, now, Reason{}
	return f, nil
}

// Hold stops where the follower is; the reason says what is waited for.
func (f FollowState) Hold(why Reason, now int64) FollowState {
	f.Phase, f.Reason, f.Since = FollowHeld, why, now
	return f
}

// Fail goes back to IDLE: the next round starts from the record.
func (f FollowState) Fail(why Reason, now int64) FollowState {
	return FollowState{Phase: FollowIdle, Sequence: f.Sequence, Reason: why, Since: now, Failures: f.Failures + 1}
}

// Rest goes back to IDLE because there is nothing to do; why may say more, such
// as needs-install.
func (f FollowState) Rest(why Reason, now int64) FollowState {
	return FollowState{Phase: FollowIdle, Sequence: f.Sequence, Target: f.Target, Reason: why, Since: now}
}
