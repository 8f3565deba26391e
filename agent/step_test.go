package agent

import (
	"errors"
	"testing"
)

// TestEveryPhaseAndEvent: each event in each phase, reachable or not, leads to
// a known phase or is refused and changes nothing; nothing panics.
func TestEveryPhaseAndEvent(t *testing.T) {
	t.Parallel()
	r := modelRules()
	pairs := 0
	for _, medium := range []Medium{MediumLive, MediumInstalled} {
		for _, arm := range []Arm{"", Live, Reboot} {
			for _, phase := range Phases() {
				for _, kind := range EventKinds() {
					for _, result := range []SwitchResult{SwitchOK, SwitchReboot, SwitchBusy, SwitchFailed} {
						pairs++
						s := State{
							Phase: phase, Arm: arm, Medium: medium, Candidate: Target{System: "B", Sequence: 2, Medium: medium},
							LastGoodLive: Target{System: "A", Medium: medium}, LastGoodBoot: Target{System: "A", Medium: medium},
							BootID: "0", Booted: "A", Loader: medium == MediumInstalled,
						}
						e := Event{Kind: kind, Switch: result, Target: Target{System: "C", Sequence: 3, Medium: medium}, Facts: Facts{
							World: World{BootID: "0", Medium: medium, Booted: "A", Current: "A", Loader: s.Loader}, Durable: true, WindowOpen: true,
						}}
						next, effects, err := r.Step(s, e)
						var refusal *Refusal
						switch {
						case err != nil && !errors.As(err, &refusal):
							t.Errorf("%s in %s %s %s: error %v is no refusal", kind, medium, arm, phase, err)
						case err != nil && (!next.Equal(s) || len(effects) > 0):
							t.Errorf("%s in %s %s %s: refused, and yet changed", kind, medium, arm, phase)
						}
						for _, effect := range effects {
							if effect.Kind == "" {
								t.Errorf("%s in %s %s %s: an effect without kind", kind, medium, arm, phase)
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d combinations", pairs)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	base := State{
		Phase: Idle, Medium: MediumLive, LastGoodLive: Target{System: "A", Sequence: 5, Medium: MediumLive},
		LastGoodBoot: Target{System: "A", Sequence: 5, Medium: MediumLive}, BootID: "0", Booted: "A",
	}
	target := Target{System: "B", Sequence: 6, Medium: MediumLive}
	facts := Facts{World: World{BootID: "0", Medium: MediumLive, Booted: "A", Current: "A"}, Durable: true, WindowOpen: true}
	for _, tt := range []struct {
		name   string
		change func(*State, *Event)
		want   Code
	}{
		{"halted", func(_ *State, e *Event) { e.Facts.Halted = true }, HeldHalted},
		{"paused", func(s *State, _ *Event) { s.Paused = true }, HeldPaused},
		{"quarantined", func(_ *State, e *Event) { e.Facts.Quarantined = true }, CodeQuarantined},
		{"condemned", func(s *State, _ *Event) { s.Condemned = []Verdict{{System: "B"}} }, CodeQuarantined},
		{"older", func(_ *State, e *Event) { e.Target.Sequence = 4 }, CodeReplay},
		{"for disks", func(_ *State, e *Event) { e.Target.Medium = MediumInstalled }, HeldNeedsInstall},
		{"another kernel on a live node", func(_ *State, e *Event) { e.Facts.NeedsReboot = true }, HeldNeedsArtifact},
		{"RAM-only, just booted", func(_ *State, e *Event) { e.Facts.Durable = false; e.Facts.Uptime = 599 }, HeldUptime},
		{"tried three times", func(s *State, _ *Event) { s.Trials = []Trial{{System: "B", Sequence: 6, Tries: 3}} }, HeldExhausted},
		{"SAFE, the same sequence", func(s *State, _ *Event) { s.Phase, s.Candidate.Sequence = Safe, 6 }, HeldRejected},
		{"under way", func(s *State, _ *Event) { s.Phase = Probing }, CodeBusy},
		{"nothing named", func(_ *State, e *Event) { e.Target = Target{} }, CodeInvalid},
		{"RAM-only after ten minutes", func(_ *State, e *Event) { e.Facts.Durable = false; e.Facts.Uptime = 600 }, ""},
		{"SAFE, a newer sequence", func(s *State, _ *Event) { s.Phase, s.Candidate.Sequence = Safe, 5 }, ""},
	} {
		s, e := base, Event{Kind: EventTry, Target: target, Facts: facts}
		tt.change(&s, &e)
		_, _, err := modelRules().Step(s, e)
		var refusal *Refusal
		var got Code
		if errors.As(err, &refusal) {
			got = refusal.Reason.Code
		}
		if got != tt.want {
			t.Errorf("%s: refused %q (%v); want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestFollowPhases(t *testing.T) {
	t.Parallel()
	f := FollowState{Phase: FollowIdle}
	for _, p := range followOrder[1:] {
		next, err := f.Advance(p, 7, 1)
		if err != nil || next.Phase != p {
			t.Fatalf("%s -> %s: %v", f.Phase, p, err)
		}
		if _, err := next.Advance(FollowApplying, 7, 1); err == nil && p != FollowChecked {
			t.Errorf("%s -> APPLYING was allowed", p)
		}
		if _, err := next.Advance(FollowSeen, 6, 1); err == nil {
			t.Errorf("%s -> SEEN of an older sequence was allowed", p)
		}
		f = next
	}
	if f = f.Fail(Reason{Code: CodeMissing}, 2); f.Phase != FollowIdle || f.Failures != 1 {
		t.Errorf("after a failure: %+v", f)
	}
}
