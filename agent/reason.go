package agent

import "fmt"

// Code says in one word why a phase was entered or a request refused.
type Code string

// Why a release is held: it is not bad, but not now or not here.
const (
	HeldPaused        Code = "paused"         // by the operator
	HeldHalted        Code = "halted"         // the record says p=0
	HeldWindow        Code = "window"         // no reboot window is open
	HeldInhibit       Code = "inhibit"        // something on the node asked for time
	HeldWave          Code = "wave"           // this node's turn comes later
	HeldLock          Code = "lock"           // another switch holds the lock
	HeldSpace         Code = "space"          // not enough room
	HeldUptime        Code = "uptime"         // a node without state waits for stable uptime
	HeldNeedsInstall  Code = "needs-install"  // the class is installed, the node runs from memory
	HeldNeedsArtifact Code = "needs-artifact" // only a new image can bring it to this node
	HeldNeedsReboot   Code = "needs-reboot"   // it can be staged, not switched to
	HeldNoLoader      Code = "no-loader"      // no boot entry can be tried once here
	HeldExhausted     Code = "exhausted"      // the bounds of the sequence are used up
	HeldRejected      Code = "rejected"       // still the release that led to SAFE
)

// Why a request is refused, or a candidate is red.
const (
	CodeBusy        Code = "busy"           // a transaction is under way
	CodeUnexpected  Code = "unexpected"     // the event means nothing in this phase
	CodeQuarantined Code = "quarantined"    // proved bad on this node
	CodeMedium      Code = "medium"         // made for another medium
	CodeBarrier     Code = "barrier"        // going back would pass irreversible data
	CodeNothing     Code = "nothing"        // nothing to do it to
	CodeReplay      Code = "replay"         // older than what was accepted
	CodeForbidden   Code = "forbidden"      // not for this user
	CodeInvalid     Code = "invalid"        // the request proves nothing
	CodeMissing     Code = "missing"        // store paths are not there
	CodeInternal    Code = "internal"       // the applier could not do it
	RedSwitch       Code = "switch"         // switch-to-configuration ended badly
	RedProbe        Code = "probe"          // a probe was red
	RedHandOver     Code = "handover"       // the candidate's applier did not start
	RedDeadMan      Code = "dead-man"       // nothing finished in time
	RedDied         Code = "died"           // the machine restarted during the trial
	RedCrashes      Code = "crashes"        // the applier died again and again
	RedRollback     Code = "rollback"       // the operator went back from it
	RedCommit       Code = "commit"         // it could not be made permanent
	RedOld          Code = "old-red"        // the old generation is red as well
	RedReboot       Code = "reboot"         // the machine does not reboot
	RedJournal      Code = "journal-lost"   // nothing says what was going on
	CodeForeign     Code = "foreign"        // a system that no release named here
	CodeClosed      Code = "applier-closed" // the applier is stopping
)

// Reason is a Code with what was observed.
type Reason struct {
	Code Code   `json:"code,omitempty"`
	Text string `json:"text,omitempty"`
}

// IsZero says whether there is no reason.
func (r Reason) IsZero() bool { return r == Reason{} }

func (r Reason) String() string {
	if r.Text == "" {
		return string(r.Code)
	}
	return string(r.Code) + ": " + r.Text
}

// Refusal is an event or request that changes nothing, with the reason.
type Refusal struct{ Reason Reason }

func (r *Refusal) Error() string { return "refused: " + r.Reason.String() }

// Held says whether the release may be tried later, by itself.
func (r *Refusal) Held() bool {
	switch r.Reason.Code {
	case HeldPaused, HeldHalted, HeldWindow, HeldInhibit, HeldWave, HeldLock, HeldSpace, HeldUptime,
		HeldNeedsInstall, HeldNeedsArtifact, HeldNeedsReboot, HeldNoLoader, HeldExhausted, HeldRejected, CodeBusy:
		return true
	}
	return false
}

func refuse(code Code, format string, args ...any) *Refusal {
	return &Refusal{Reason{code, fmt.Sprintf(format, args...)}}
}

// Verdict is an entry of the quarantine: this system is not tried again here,
// whatever release names it, until an operator clears it.
type Verdict struct {
	System   string `json:"system"`
	Sequence uint32 `json:"sequence"`
	Reason   Reason `json:"reason"`
	At       int64  `json:"at,omitempty"` // Unix seconds
}
