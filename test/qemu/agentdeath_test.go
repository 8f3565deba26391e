package qemu

import (
	"context"
	"strings"
	"testing"
	"time"

	"xnodeos.org/agent/statusapi"
	"xnodeos.org/internal/vm"
)

// both are the agent's halves, to be killed together.
const both = "xnode-apply.service xnode-follow.service"

// when runs a command on the node as soon as a condition holds there, whoever
// is logged in then. A switch is over in seconds, so it looks often.
func (n *node) when(t *testing.T, condition, command string) {
	t.Helper()
	n.shell(t, "systemd-run --quiet --collect --property=OOMScoreAdjust=-900 sh -c '"+
		"for i in $(seq 3000); do if "+condition+"; then "+command+"; echo done >/run/when; exit; fi; sleep 0.1; done'")
}

// inPhase is the condition that the journal says this phase.
func inPhase(phase string) string {
	return `grep -q "\"phase\": \"` + phase + `\"" /var/lib/xnode/applier/journal.a`
}

// known is what has to outlive a reboot.
func (n *node) known(t *testing.T) map[string]string {
	t.Helper()
	return n.facts(t, map[string]string{
		"key": "cat /var/lib/xnode/node-key.pub", "quarantine": "xnode quarantine list",
		"accepted": "cat /var/lib/xnode/applier/accepted.json", "floor": "cat /var/lib/xnode/applier/time-floor 2>/dev/null || true",
	})
}

// comesUp waits for the READY of another boot.
func (n *node) comesUp(t *testing.T, seen int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	// A switch says READY as well.
	_, line, err := n.ExpectFrom(ctx, seen, vm.Text("xnode-init: first stage on"))
	if err != nil {
		t.Fatalf("the machine does not start again: %v", err)
	}
	which, line, err := n.ExpectFrom(ctx, line.N, ready, kernelPanic, stageFailed)
	if err != nil || which > 0 {
		t.Fatalf("the machine does not come up again: %q, %v", line.Text, err)
	}
}

// runsAgain waits until a system that was proven before a boot is proven again.
func (n *node) runsAgain(t *testing.T, label string) {
	t.Helper()
	n.watch(t, label+" applied again", func(s *statusapi.Status) bool {
		return s.Phase == "SETTLED" && strings.HasSuffix(s.Systems.Current, "-xnodeos-"+label)
	})
}

// TestAgentDeath kills both halves of the agent in the middle of a switch,
// breaks the applier for good in another, fills the disk under both, and at last
// restarts the machine while no server can be reached: each time the node ends
// with a system that was proven, and knows all that it knew.
func TestAgentDeath(t *testing.T) {
	f := newFleet(t, liveTimings(), nil).withState(t)
	n := f.boot(t, func(m *vm.Machine) { m.Reboot = vm.KeepOnReboot })
	n.watchAccepted(t, f.announce(t, "label=pocket-1"))

	t.Run("both killed in the switch", func(t *testing.T) {
		n.when(t, "systemctl is-active --quiet xnode-switch.service", "systemctl kill --signal=KILL "+both)
		n.settlesAt(t, f.announce(t, "label=pocket-2"), "pocket-2")
		if got := n.shell(t, "cat /run/when; rm -f /run/when; journalctl -b -o cat -u xnode-apply | grep 'row=\"under way: go on\"'"); !strings.HasPrefix(got, "done") {
			t.Errorf("they were not killed in the middle: %s", got)
		}
	})
	t.Run("both killed while probing", func(t *testing.T) {
		n.when(t, inPhase("PROBING"), "systemctl kill --signal=KILL "+both)
		n.settlesAt(t, f.announce(t, "label=pocket-3"), "pocket-3")
		if got := n.shell(t, "cat /run/when; rm -f /run/when"); strings.TrimSpace(got) != "done" {
			t.Errorf("they were not killed in the middle: %s", got)
		}
	})
	t.Run("disk full", func(t *testing.T) { fillState(t, f, n) })
	t.Run("applier does not start any more", func(t *testing.T) { breakApplier(t, f, n) })
	n.checkWell(t, "pocket-4", 1)
	t.Run("reboot without servers", func(t *testing.T) {
		before := n.known(t)
		if err := f.Cut(); err != nil {
			t.Fatal(err)
		}
		seen := len(n.Lines(0))
		if err := n.QMP(t.Context(), "system_reset", nil, nil); err != nil {
			t.Fatal(err)
		}
		n.comesUp(t, seen)
		n.runsAgain(t, "pocket-4")
		after := n.known(t)
		for name := range before {
			if before[name] != after[name] {
				t.Errorf("%s was %q before the reboot and is %q", name, before[name], after[name])
			}
		}
		if err := f.Mend(); err != nil {
			t.Fatal(err)
		}
		// The announced release is the one that went back: it stays where it is.
		s := n.watch(t, "the record of the stopped release", func(s *statusapi.Status) bool {
			return s.Record != nil && s.Phase == "IDLE"
		})
		if !strings.HasSuffix(s.Systems.Current, "-xnodeos-pocket-4") || !strings.Contains(s.Reason, "quarantined") {
			t.Errorf("%s runs (%s); want pocket-4, and that the release is in quarantine", s.Systems.Current, s.Reason)
		}
	})
}

// breakApplier kills the candidate's applier once it has taken over, and keeps
// every one from starting: the dead man goes back, finds the old system no better
// and restarts the machine, which ends it.
func breakApplier(t *testing.T, f *fleet, n *node) {
	t.Helper()
	timings{switching: 40, probing: 20, settle: 15, stable: 1}.set(t, n)
	n.shell(t, `set -e
mkdir -p /run/systemd/system/xnode-apply.service.d
printf '[Service]\nExecStartPre=/bin/sh -c "test ! -e /run/broken"\n' >/run/systemd/system/xnode-apply.service.d/broken.conf
systemctl daemon-reload`)
	n.when(t, inPhase("PROBING"), "sleep 5; touch /run/broken; systemctl kill --signal=KILL xnode-apply.service")
	begun := time.Now()
	n.goesBack(t, f.announce(t, "label=pocket-stopped"), "pocket-4", "dead-man")
	t.Logf("the dead man, one reboot and the way back took %.0f s", time.Since(begun).Seconds())
	if got := n.shell(t, "xnode history"); !strings.Contains(got, "rebooting") {
		t.Errorf("the history does not tell of the reboot:\n%s", got)
	}
}

// fillState fills the disk of the state before a release comes, and frees it
// again: nothing is tried without a journal, then everything goes on.
func fillState(t *testing.T, f *fleet, n *node) {
	t.Helper()
	n.shell(t, "dd if=/dev/zero of=/var/lib/xnode/filler bs=64k 2>/dev/null; cat /dev/zero >>/var/lib/xnode/filler 2>/dev/null; sync; df -k /var/lib/xnode")
	sequence := f.announce(t, "label=pocket-4")
	s := n.watch(t, "that the disk is full", func(s *statusapi.Status) bool {
		return s.Record != nil && s.Record.Sequence == sequence && strings.Contains(s.Reason+strings.Join(s.Problems, " "), "no space left")
	})
	if !strings.HasSuffix(s.Systems.Current, "-xnodeos-pocket-3") {
		t.Errorf("with a full disk %s runs; want pocket-3", s.Systems.Current)
	}
	t.Logf("what the node says of a full disk: %s; %q", s.Reason, s.Problems)
	n.shell(t, "rm /var/lib/xnode/filler; sync")
	n.settlesAt(t, sequence, "pocket-4")
}

// TestAgentFreeze lets a release freeze systemd, twice: the watchdog resets the
// machine, it boots its image and applies what was good, without a server and
// with them; the second time the release is in quarantine.
func TestAgentFreeze(t *testing.T) {
	if !full() {
		t.Log("with XNODE_FULL=1 only; TestAgentUnits has the watchdog reset a frozen machine")
		return
	}
	f := newFleet(t, liveTimings(), nil).withState(t)
	n := f.boot(t, func(m *vm.Machine) {
		m.Append += " systemd.watchdog_sec=20"
		m.Extra = append(m.Extra, "-device", "i6300esb", "-action", "watchdog=reset")
		m.Reboot = vm.KeepOnReboot
	})
	n.watchAccepted(t, f.announce(t, "label=pocket-1"))
	n.settlesAt(t, f.announce(t, "label=pocket-2"), "pocket-2")
	seen, begun := len(n.Lines(0)), time.Now()
	sequence := f.announce(t, "label=pocket-frozen,broken=freeze")
	n.watch(t, "the trial", func(s *statusapi.Status) bool { return s.Phase == "TRYING" })
	if err := f.Cut(); err != nil {
		t.Fatal(err)
	}
	n.comesUp(t, seen)
	t.Logf("frozen, reset and up again %.0f s after the announcement", time.Since(begun).Seconds())
	n.runsAgain(t, "pocket-2")
	// With the servers back the release is tried once more: one death may have
	// been the power's.
	seen = len(n.Lines(0))
	if err := f.Mend(); err != nil {
		t.Fatal(err)
	}
	n.comesUp(t, seen)
	n.goesBack(t, sequence, "pocket-2", "died")
	n.checkWell(t, "pocket-2", 1)
}
