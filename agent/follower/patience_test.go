package follower

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/release"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/trust"
)

// A git server that sends a byte a second must not keep back what DNS said.
func TestNewsOfDNSDoesNotWaitForGit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		w.slowGit = 10 * time.Minute
		w.serve(f.publish(2, live(2), nil))
		run(t, w, f, func(*Follower) {
			time.Sleep(3 * time.Second)
			if got := w.events(); !slices.Contains(got, "try xnodeos-pocket-2") {
				t.Errorf("done after 3 s, while git is slow: %q; want the release tried", got)
			}
		})
	})
}

// A node that starts before its network, where DNS is blocked for good, must not
// wait for the branch's next hour.
func TestReadsTheBranchSoonAfterAStartWithoutNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		rec, files := f.publish(2, live(2), nil)
		w.serve(rec, files)
		w.texts = nil
		run(t, w, f, func(*Follower) {
			time.Sleep(90 * time.Second)
			w.set(func() { w.announced = []Announced{{Record: rec.Text(), From: "git"}} })
			time.Sleep(3 * time.Minute)
			if got := w.events(); !slices.Contains(got, "try xnodeos-pocket-2") {
				t.Errorf("done 3 minutes after the network came: %q", got)
			}
		})
	})
}

// Who stole a key and used a high sequence must not keep honest records away
// once the key is taken out of the trust.
func TestRecordOfARemovedKeyHoldsNothingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, thief, honest := newWorld(), newFleet(t), newFleet(t)
		signer, err := sshsign.Open(t.Context(), sshsign.OpenOptions{Path: testkit.KeyFile(t, 2)})
		if err != nil {
			t.Fatal(err)
		}
		honest.signer = signer
		node := newFleet(t)
		rotated := false
		node.trusted = func() (*trust.State, error) {
			defer w.lock()()
			if rotated {
				return honest.trust()
			}
			lines := trust.Line(thief.signer.PublicKey(), "stolen", trust.NamespaceAnnounce) + "\n" +
				trust.Line(signer.PublicKey(), "release", trust.NamespaceAnnounce) + "\n"
			signers, err := trust.Parse([]byte(lines))
			if err != nil {
				return nil, err
			}
			return trust.Embedded(signers, nil), nil
		}
		high, _ := thief.publish(5000, live(3), nil) // names nothing that exists
		w.texts = []string{high.Text()}
		view := run(t, w, node, func(*Follower) {
			time.Sleep(2 * time.Minute)
			w.set(func() { rotated = true })
			w.serve(honest.publish(2, live(2), nil))
			time.Sleep(3 * time.Minute)
		})
		if view.Record == nil || view.Record.Sequence != 2 {
			t.Errorf("after the rotation the record is %v; want release 2", view.Record)
		}
		if got := w.events(); !slices.Contains(got, "try xnodeos-pocket-2") {
			t.Errorf("what was done: %q; want release 2 tried", got)
		}
	})
}

// What is held for weeks costs the node nothing: the applier sleeps.
func TestHeldReleaseIsAskedForMoreAndMoreSeldom(t *testing.T) {
	tests := []struct {
		name          string
		change        func(*world)
		tries, starts int // at most, in a day
	}{
		{"by the applier", func(w *world) {
			w.refuse = &agent.Refusal{Reason: agent.Reason{Code: agent.HeldNeedsArtifact, Text: "another kernel"}}
		}, 160, 10},
		{"by an operator", func(w *world) { w.status.State.Paused = true }, 0, 10},
		{"for good", func(w *world) { w.status.Quarantine = []agent.Verdict{{System: systemOf(2)}} }, 0, 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, f := newWorld(), newFleet(t)
				tt.change(w)
				w.serve(f.publish(2, live(2), nil))
				run(t, w, f, func(*Follower) { time.Sleep(24 * time.Hour) })
				defer w.lock()()
				if w.wanted > tt.tries || w.asked > tt.starts {
					t.Errorf("in a day it asked %d times for a try and %d times for the status; want at most %d and %d", w.wanted, w.asked, tt.tries, tt.starts)
				}
			})
		})
	}
}

// An operator's word is acted upon at once, however long the pause had become.
func TestOperatorDoesNotWaitForTheBackOff(t *testing.T) {
	tests := []struct {
		name string
		fail func(*world)
		mend func(*world, *Follower)
	}{
		{"poll after the cache came back", func(w *world) { w.storeErr = errors.New("the cache is down") },
			func(w *world, node *Follower) {
				w.set(func() { w.storeErr = nil })
				node.Poll()
			}},
		{"resume", func(w *world) {
			w.refuse = &agent.Refusal{Reason: agent.Reason{Code: agent.HeldExhausted, Text: "tried 3 times"}}
		}, func(w *world, _ *Follower) {
			w.set(func() {
				w.refuse = nil
				w.status.State.Since++ // the journal was written
			})
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, f := newWorld(), newFleet(t)
				tt.fail(w)
				w.serve(f.publish(2, live(2), nil))
				run(t, w, f, func(node *Follower) {
					time.Sleep(3 * time.Hour)
					tt.mend(w, node)
					time.Sleep(6 * time.Second)
					if got := w.events(); !slices.Contains(got, "try xnodeos-pocket-2") {
						t.Errorf("done 6 s after: %q", got[max(0, len(got)-3):])
					}
				})
			})
		})
	}
}

// A trial that ended without a verdict is not begun again in the same second:
// who holds the lock of switches for half a minute must not use up three tries.
func TestTrialsWithoutVerdictAreSpacedOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		var at []time.Time
		node := &held{world: w, at: &at}
		w.serve(f.publish(2, live(2), nil))
		view := run(t, w, f, func(*Follower) { time.Sleep(2 * time.Minute) }, func(o *Options) { o.Applier = node })
		if view.Counts.Rollbacks != 0 {
			t.Errorf("%d rollbacks are counted; nothing went back", view.Counts.Rollbacks)
		}
		if len(at) < 3 || at[1].Sub(at[0]) < retryFloor || at[2].Sub(at[1]) < 2*retryFloor {
			t.Errorf("it was tried at %v; want at least 10 s and 20 s between", at)
		}
	})
}

// held is an applier whose trials end in HELD(lock).
type held struct {
	*world
	at *[]time.Time
}

func (h *held) Do(ctx context.Context, r agent.Request) (agent.Status, error) {
	if r.Op != agent.OpTry {
		return h.world.Do(ctx, r)
	}
	defer h.lock()()
	*h.at = append(*h.at, time.Now())
	h.status.State.Phase, h.status.State.Since = agent.Held, time.Now().Unix()
	h.status.State.Reason = agent.Reason{Code: agent.HeldLock, Text: "another switch is at work"}
	return h.status, nil
}

func TestTellsOfEquivocation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		view := run(t, w, f, func(*Follower) {
			one, files := f.publish(5, live(2), nil)
			w.serve(one, files)
			time.Sleep(2 * time.Minute)
			other, _ := f.publish(5, live(3), func(r *announce.Record, _ *release.Release) { r.Published++ })
			w.set(func() { w.texts = []string{other.Text()} })
			time.Sleep(2 * time.Minute)
		})
		if !strings.Contains(view.Alarm, "contradict") {
			t.Errorf("the alarm is %q", view.Alarm)
		}
	})
}

// What a download held against the garbage collector costs a process of the
// daemon, so it is let go when the applier has it.
func TestLetsGoOfWhatItBrought(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		w.serve(f.publish(2, live(2), nil))
		run(t, w, f, func(*Follower) { time.Sleep(time.Minute) })
		defer w.lock()()
		if w.released != 1 {
			t.Errorf("it was let go of %d times; want once, after the try", w.released)
		}
	})
}
