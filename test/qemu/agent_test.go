package qemu

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// liveTimings let a test tell the story in minutes. A switch of the pocket
// system takes seconds, of an emulated machine that is short of time many.
func liveTimings() timings { return timings{switching: 60, probing: 40, settle: 3, stable: 1} }

// One node lives through the whole live arm: what runs is announced, a better
// system is applied, and systems that are broken in different ways go back and
// into quarantine, each leaving the better one running. Then the power is cut at
// the states of the journal that all this went through.
func TestAgentLiveArm(t *testing.T) {
	f := newFleet(t, liveTimings(), nil).withState(t)
	f.record = filepath.Join(t.TempDir(), "writes.log")
	if err := os.WriteFile(f.record, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	n := f.boot(t, nil)
	first := f.announce(t, "label=pocket-1")
	n.watchAccepted(t, first)
	second := f.announce(t, "label=pocket-2,greeting=second")
	n.settlesAt(t, second, "pocket-2")
	for _, broken := range []struct {
		variant, why string
		timings      timings
	}{
		{variant: "activation", why: "switch"},
		{variant: "unit", why: "pocket-broken.service"},
		// It fails 30 s after its start, and that has to be waited for.
		{variant: "late", why: "pocket-broken.service", timings: timings{switching: 60, probing: 45, settle: 35, stable: 1}},
		{variant: "network", why: "route"},
		{variant: "agent", why: "xnode-follow.service"},
		{variant: "hang", why: "did not end in time", timings: timings{switching: 40, probing: 40, settle: 3, stable: 1}},
	} {
		ok := t.Run(broken.variant, func(t *testing.T) {
			if broken.timings == (timings{}) {
				broken.timings = liveTimings()
			}
			broken.timings.set(t, n)
			sequence := f.announce(t, "label=pocket-bad-"+broken.variant+",broken="+broken.variant)
			begun := time.Now()
			n.goesBack(t, sequence, "pocket-2", broken.why)
			t.Logf("from the announcement until the good system was proven again: %.0f s", time.Since(begun).Seconds())
		})
		if !ok {
			break
		}
	}
	n.checkWell(t, "pocket-2", 6)
	n.shell(t, "sync")
	n.Stop()
	t.Run("power cut", func(t *testing.T) { checkPowerCuts(t, f, f.record, "pocket-2") })
}

// checkWell makes sure that nothing is left of what went wrong.
func (n *node) checkWell(t *testing.T, label string, quarantined int) {
	t.Helper()
	facts := n.facts(t, map[string]string{
		"system": "readlink -f /run/current-system", "profile": "readlink -f /nix/var/nix/profiles/system",
		"failed": "systemctl --failed --plain --no-legend", "history": "xnode history", "list": "xnode quarantine list",
		"left": "systemctl list-units --all --plain --no-legend 'xnode-switch*' 'xnode-deadman*'",
	})
	t.Logf("history:\n%s", facts["history"])
	if !strings.HasSuffix(facts["system"], "-xnodeos-"+label) || facts["profile"] != facts["system"] {
		t.Errorf("at the end %s runs and the profile is %s; want %s for both", facts["system"], facts["profile"], label)
	}
	if facts["failed"] != "" {
		t.Errorf("failed units at the end: %s", facts["failed"])
	}
	if facts["left"] != "" {
		t.Errorf("units of a trial are left: %s", facts["left"])
	}
	if got := strings.Count(facts["list"], "  /nix/store/"); got != quarantined {
		t.Errorf("%d systems in quarantine, want %d:\n%s", got, quarantined, facts["list"])
	}
	if strings.Count(facts["history"], "quarantined") != quarantined {
		t.Errorf("the history does not tell %d quarantines:\n%s", quarantined, facts["history"])
	}
}
