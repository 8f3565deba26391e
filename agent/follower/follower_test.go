package follower

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/agent"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/release"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/trust"
)

const (
	owner  = "stable._xnode.example.org"
	system = "/nix/store/%s-xnodeos-pocket-%d"
)

func systemOf(n int) string { return fmt.Sprintf(system, strings.Repeat(string(rune('a'+n)), 32), n) }

// now is today's clock: that of a bubble starts in a year whose seconds have
// nine digits, which no record has.
func now() time.Time { return time.Now().AddDate(26, 10, 19) }

// fleet makes what an operator publishes.
type fleet struct {
	t      *testing.T
	signer *sshsign.Signer
	now    func() time.Time
	// trusted is what the node trusts.
	trusted func() (*trust.State, error)
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	signer, err := sshsign.Open(t.Context(), sshsign.OpenOptions{Path: testkit.KeyFile(t, 1)})
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{t: t, signer: signer, now: now}
	f.trusted = f.trust
	return f
}

func (f *fleet) trust() (*trust.State, error) {
	line := trust.Line(f.signer.PublicKey(), "release", trust.NamespaceAnnounce)
	signers, err := trust.Parse([]byte(line + "\n"))
	if err != nil {
		return nil, err
	}
	return trust.Embedded(signers, nil), nil
}

// publish returns the record and files of a release; change may alter either.
func (f *fleet) publish(seq uint32, target release.Target, change func(*announce.Record, *release.Release)) (*announce.Record, Files) {
	f.t.Helper()
	rel := &release.Release{
		V: release.Version, Seq: seq, Published: 1795180800 + int64(seq),
		Classes: map[string]map[string]release.Target{"edge": {"x86_64-linux": target}},
	}
	rec := announce.Record{
		Sequence: seq, Commit: strings.Repeat("ab", 20),
		Published: f.now().Unix(), Expires: f.now().Add(48 * time.Hour).Unix(),
	}
	if change != nil {
		change(&rec, rel)
	}
	data, err := rel.Encode()
	if err != nil {
		f.t.Fatal(err)
	}
	rec.Digest = release.Digest(data)
	signed, err := announce.Sign(f.t.Context(), owner, rec, f.signer)
	if err != nil {
		f.t.Fatal(err)
	}
	return signed, Files{Release: data, From: "git"}
}

func live(n int) release.Target {
	return release.Target{System: systemOf(n), Closure: "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", Medium: release.Live}
}

// world is everything that the follower meets, in memory.
type world struct {
	mu        sync.Mutex
	texts     []string // DNS's answer; nil: SERVFAIL
	announced []Announced
	files     map[string]Files // by commit and digest
	fetchErr  error
	storeErr  error
	status    agent.Status
	outcome   agent.Phase // of each try
	refuse    *agent.Refusal
	log       []string
	slow      time.Duration // of a download
	kept      Kept
	keptErr   error
	behind    time.Duration // of the clock, which then nobody has set
	released  int
	asked     int // for its status
	wanted    int // tries that were asked for, refused ones too
	slowGit   time.Duration
}

func (w *world) note(format string, args ...any) { w.log = append(w.log, fmt.Sprintf(format, args...)) }

func (w *world) lock() func() { w.mu.Lock(); return w.mu.Unlock }

func (w *world) Lookup(_ context.Context, _ string, good func(Answer) error) (Answer, error) {
	unlock := w.lock()
	texts := slices.Clone(w.texts)
	unlock()
	if texts == nil {
		return Answer{}, errors.New("SERVFAIL")
	}
	a := Answer{Texts: texts, TTL: time.Minute, From: "192.0.2.1:53"}
	return a, good(a)
}

func (w *world) Fetch(_ context.Context, r *announce.Record) (Files, error) {
	defer w.lock()()
	w.note("fetch %d", r.Sequence)
	files, ok := w.files[fmt.Sprint(r.Digest)]
	if w.fetchErr != nil || !ok {
		return Files{}, errors.Join(errors.New("no remote has it"), w.fetchErr)
	}
	return files, nil
}

func (w *world) Announced(ctx context.Context, _ string) ([]Announced, error) {
	defer w.lock()()
	if slow := w.slowGit; slow > 0 {
		w.mu.Unlock()
		select {
		case <-time.After(slow):
		case <-ctx.Done():
		}
		w.mu.Lock()
	}
	if w.announced == nil {
		return nil, errors.New("no branch announce")
	}
	return w.announced, nil
}

func (w *world) Realise(ctx context.Context, t agent.Target, _ []string, progress func(Transfer)) error {
	unlock := w.lock()
	w.note("realise %d", t.Sequence)
	slow, err := w.slow, w.storeErr
	unlock()
	progress(Transfer{Paths: 2, PathsDone: 1, Bytes: 20, BytesDone: 10})
	select {
	case <-time.After(slow):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return err
}

func (w *world) Release() {
	defer w.lock()()
	w.released++
}

func (w *world) Do(_ context.Context, r agent.Request) (agent.Status, error) {
	defer w.lock()()
	switch r.Op {
	case agent.OpStatus:
		w.asked++
		return w.status, nil
	case agent.OpAccept:
		rec, err := announce.Parse(r.Record)
		if err != nil {
			return w.status, err
		}
		w.note("accept %d halted=%t", rec.Sequence, rec.Halted)
		w.status.Accepted = agent.Accepted{Sequence: rec.Sequence, Published: rec.Published, Record: r.Record}
	case agent.OpTry:
		w.wanted++
		if w.refuse != nil {
			return w.status, w.refuse
		}
		w.note("try %s", strings.TrimPrefix(r.System, r.System[:44]))
		w.status.State.Phase = w.outcome
		if w.outcome == agent.Settled {
			w.status.State.LastGoodLive = agent.Target{System: r.System, Sequence: w.status.Accepted.Sequence}
			w.status.State.Reapply = agent.Target{}
		} else {
			w.status.Quarantine = append(w.status.Quarantine, agent.Verdict{System: r.System, Reason: agent.Reason{Code: agent.RedProbe}})
		}
	case agent.OpTrust:
		w.note("trust")
	}
	return w.status, nil
}

// everyMinute is the schedule of the tests.
type everyMinute struct{}

func (everyMinute) Run(ctx context.Context, poll <-chan struct{}, look func(context.Context) (time.Duration, error)) error {
	for {
		_, _ = look(ctx)
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-poll:
		case <-time.After(time.Minute):
		}
	}
}

// run follows for some time in a bubble and returns the last view.
func run(t *testing.T, w *world, f *fleet, script func(*Follower), changes ...func(*Options)) View {
	t.Helper()
	var last View
	opt := Options{
		Name: owner, Class: "edge", Arch: "x86_64-linux", Medium: agent.MediumLive, NodeKey: "SHA256:node",
		Asker: w, Repository: w, Store: w, Applier: w, Schedule: everyMinute{}, GitInterval: time.Hour,
		Changed: func() string {
			defer w.lock()()
			return fmt.Sprint(w.status)
		},
		Kept:  func(string) (Kept, error) { return w.kept, w.keptErr },
		Trust: func() (*trust.State, error) { return f.trusted() },
		Clock: func() announce.Clock { return announce.Clock{Now: now().Add(-w.behind), Synchronised: w.behind == 0} },
		Show:  func(v View) { last = v },
		Log:   slog.New(slog.DiscardHandler),
	}
	for _, change := range changes {
		change(&opt)
	}
	ctx, cancel := context.WithCancel(t.Context())
	node := New(opt)
	done := make(chan error)
	go func() { done <- node.Run(ctx) }()
	script(node)
	synctest.Wait()
	last = node.now()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v", err)
	}
	return last
}

func (w *world) set(change func()) {
	defer w.lock()()
	change()
}

func (w *world) events() []string {
	defer w.lock()()
	return slices.Clone(w.log)
}

func newWorld() *world {
	return &world{files: map[string]Files{}, outcome: agent.Settled, status: agent.Status{State: agent.State{Phase: agent.Idle, LastGoodLive: agent.Target{System: systemOf(1)}}}}
}

func (w *world) serve(rec *announce.Record, files Files) {
	defer w.lock()()
	w.texts = []string{rec.Text()}
	w.files[fmt.Sprint(rec.Digest)] = files
}

func TestFollowsOneReleaseAfterTheOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		view := run(t, w, f, func(*Follower) {
			w.serve(f.publish(1, live(1), nil)) // what runs already
			time.Sleep(2 * time.Minute)
			w.serve(f.publish(2, live(2), nil))
			time.Sleep(2 * time.Minute)
			w.set(func() { w.outcome = agent.Idle }) // the third one goes back
			w.serve(f.publish(3, live(3), nil))
			time.Sleep(30 * time.Minute)
		})
		want := []string{
			"fetch 1", "accept 1 halted=false", "try xnodeos-pocket-1", // it runs: only told
			"fetch 2", "accept 2 halted=false", "realise 2", "try xnodeos-pocket-2",
			"fetch 3", "accept 3 halted=false", "realise 3", "try xnodeos-pocket-3",
		}
		if diff := cmp.Diff(want, w.events()); diff != "" {
			t.Errorf("what was done (-want +got):\n%s", diff)
		}
		if view.Follow.Phase != agent.FollowIdle || view.Follow.Reason.Code != agent.CodeQuarantined {
			t.Errorf("at rest it shows %s, %s; want IDLE and that the system is in quarantine", view.Follow.Phase, view.Follow.Reason)
		}
		if view.Counts.Tries != 2 || view.Counts.Rollbacks != 1 {
			t.Errorf("counts are %+v; want 2 tries, 1 rollback", view.Counts)
		}
	})
}

// No fault of DNS ever makes the node do something.
func TestNoNewsIsNeverAWayBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		run(t, w, f, func(*Follower) {
			one, files := f.publish(5, live(2), nil)
			w.serve(one, files)
			time.Sleep(2 * time.Minute)
			old, _ := f.publish(4, live(1), func(r *announce.Record, _ *release.Release) { r.Published -= 3600 })
			other, _ := f.publish(5, live(3), nil)
			expired, _ := f.publish(9, live(3), func(r *announce.Record, _ *release.Release) {
				r.Published, r.Expires = r.Published-7200, r.Published-3600
			})
			forged := strings.Replace(one.Text(), "s=5", "s=6", 1)
			for _, texts := range [][]string{nil, {}, {old.Text()}, {other.Text()}, {one.Text(), other.Text()}, {forged}, {expired.Text()}, {"v=spf1 -all"}, {one.Text()}} {
				w.set(func() { w.texts = texts })
				time.Sleep(3 * time.Minute)
			}
		})
		want := []string{"fetch 5", "accept 5 halted=false", "realise 5", "try xnodeos-pocket-2"}
		if diff := cmp.Diff(want, w.events()); diff != "" {
			t.Errorf("what was done (-want +got):\n%s", diff)
		}
	})
}

func TestHoldsAndGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		view := run(t, w, f, func(*Follower) {
			halted, files := f.publish(2, live(2), func(r *announce.Record, _ *release.Release) { r.Halted = true })
			w.serve(halted, files)
			time.Sleep(5 * time.Minute)
			resumed, files := f.publish(2, live(2), nil)
			// the same release, announced later without the halt
			w.serve(resumed, files)
			time.Sleep(2 * time.Minute)
		})
		if got := w.events(); !slices.Contains(got, "accept 2 halted=true") || got[len(got)-1] != "try xnodeos-pocket-2" {
			t.Errorf("what was done: %q; want the halt accepted and the release tried after it", got)
		}
		if view.Follow.Phase != agent.FollowIdle {
			t.Errorf("phase is %s", view.Follow.Phase)
		}
	})
}

func TestRetriesWithBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		w.storeErr = errors.New("the cache is down")
		w.serve(f.publish(2, live(2), nil))
		var counts []int
		view := run(t, w, f, func(*Follower) {
			for _, wait := range []time.Duration{time.Second, 8 * time.Second, 40 * time.Second, 400 * time.Second} {
				time.Sleep(wait)
				counts = append(counts, len(w.events()))
			}
		})
		// The start may look twice; then 10, 20, 40 and more seconds apart.
		if counts[1] != counts[0] || counts[2] == counts[1] || counts[3]-counts[2] > 10 {
			t.Errorf("things done after 1, 9, 49 and 449 s: %v; want retries that become rarer", counts)
		}
		if view.Follow.Phase != agent.FollowIdle || !strings.Contains(view.Follow.Reason.Text, "the cache is down") {
			t.Errorf("it shows %s, %s; want the reason", view.Follow.Phase, view.Follow.Reason)
		}
	})
}

// A newer record ends the download of an older one.
func TestNewerRecordEndsADownload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		run(t, w, f, func(*Follower) {
			w.set(func() { w.slow = 24 * time.Hour })
			w.serve(f.publish(2, live(2), nil))
			time.Sleep(90 * time.Second)
			w.set(func() { w.slow = 0 })
			w.serve(f.publish(3, live(3), nil))
			time.Sleep(2 * time.Minute)
		})
		want := []string{"fetch 2", "accept 2 halted=false", "realise 2", "fetch 3", "accept 3 halted=false", "realise 3", "try xnodeos-pocket-3"}
		if diff := cmp.Diff(want, w.events()); diff != "" {
			t.Errorf("what was done (-want +got):\n%s", diff)
		}
	})
}

// A node whose clock is days behind does not wait for its clock, but for its
// turn.
func TestWavesWithAClockThatNobodySet(t *testing.T) {
	for _, tt := range []struct {
		ramp int64
		want []string
	}{
		{1, []string{"fetch 2", "accept 2 halted=false", "realise 2", "try xnodeos-pocket-2"}},
		{20 * 24 * 3600, []string{"fetch 2", "accept 2 halted=false"}},
	} {
		t.Run(fmt.Sprintf("ramp of %d s", tt.ramp), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, f := newWorld(), newFleet(t)
				w.behind = 10 * 24 * time.Hour
				w.serve(f.publish(2, live(2), func(_ *announce.Record, r *release.Release) {
					r.Policy = release.Policy{Waves: 1000, RampSeconds: tt.ramp}
				}))
				run(t, w, f, func(*Follower) { time.Sleep(2 * time.Minute) })
				if diff := cmp.Diff(tt.want, w.events()); diff != "" {
					t.Errorf("what was done (-want +got):\n%s", diff)
				}
			})
		})
	}
}

func TestReadsTheBranchWhereDNSIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		rec, files := f.publish(2, live(2), nil)
		w.serve(rec, files)
		w.texts = nil
		w.announced = []Announced{{From: "stale"}, {Record: rec.Text(), From: "git"}}
		view := run(t, w, f, func(*Follower) { time.Sleep(2 * time.Minute) })
		if got := w.events(); len(got) == 0 || got[len(got)-1] != "try xnodeos-pocket-2" {
			t.Errorf("what was done: %q", got)
		}
		if view.Source != "git" || view.PollErr == "" {
			t.Errorf("source %q, poll error %q; want git and DNS's fault", view.Source, view.PollErr)
		}
	})
}

// What the repository serves under the announced commit is worth nothing unless
// the record binds it.
func TestRefusesAReleaseThatTheRecordDoesNotBind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		rec, _ := f.publish(2, live(2), nil)
		_, forged := f.publish(2, live(3), nil)
		w.serve(rec, forged)
		view := run(t, w, f, func(*Follower) { time.Sleep(time.Minute) })
		for _, e := range w.events() {
			if !strings.HasPrefix(e, "fetch") {
				t.Errorf("it did %q", e)
			}
		}
		if !strings.Contains(view.Follow.Reason.Text, "release.json") {
			t.Errorf("the reason is %s", view.Follow.Reason)
		}
	})
}

func TestSaysWhyItAppliesNothing(t *testing.T) {
	installed := live(2)
	installed.Medium = release.Installed
	tests := []struct {
		name   string
		target release.Target
		change func(*world)
		want   string
	}{
		{"needs an installation", installed, func(*world) {}, "needs-install"},
		{"paused", live(2), func(w *world) { w.status.State.Paused = true }, "xnode resume"},
		{"refused for now", live(2), func(w *world) {
			w.refuse = &agent.Refusal{Reason: agent.Reason{Code: agent.HeldUptime, Text: "up for 3m"}}
		}, "up for 3m"},
		{"another class", release.Target{}, func(*world) {}, "class"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, f := newWorld(), newFleet(t)
				tt.change(w)
				w.serve(f.publish(2, live(2), func(_ *announce.Record, r *release.Release) {
					if tt.target == (release.Target{}) {
						r.Classes = map[string]map[string]release.Target{"validator": {"x86_64-linux": live(2)}}
						return
					}
					r.Classes["edge"]["x86_64-linux"] = tt.target
				}))
				view := run(t, w, f, func(*Follower) { time.Sleep(time.Minute) })
				if !strings.Contains(view.Follow.Reason.String(), tt.want) {
					t.Errorf("the reason is %q; want it to say %q", view.Follow.Reason, tt.want)
				}
				if view.Counts.Tries != 0 {
					t.Error("it tried the system")
				}
			})
		})
	}
}

func TestAppliesAgainWhatABootDidNotBring(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		rec, files := f.publish(2, live(2), nil)
		w.kept = Kept{Record: rec.Text(), Release: files.Release}
		w.status.State.Reapply = agent.Target{System: systemOf(2), Sequence: 2}
		run(t, w, f, func(*Follower) { time.Sleep(time.Minute) }) // no DNS at all
		want := []string{"realise 2", "try xnodeos-pocket-2"}
		if diff := cmp.Diff(want, w.events()); diff != "" {
			t.Errorf("what was done (-want +got):\n%s", diff)
		}
	})
}

// A power cut may have left nothing to read of what was proven: then what is
// announced counts, and the node does not wait for ever.
func TestAppliesWhatIsAnnouncedWhereNothingWasKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		w.serve(f.publish(2, live(2), nil))
		w.keptErr = errors.New("read kept release: no such file")
		w.status.State.Reapply = agent.Target{System: systemOf(2), Sequence: 2}
		run(t, w, f, func(*Follower) { time.Sleep(time.Minute) })
		want := []string{"fetch 2", "accept 2 halted=false", "realise 2", "try xnodeos-pocket-2"}
		if diff := cmp.Diff(want, w.events()); diff != "" {
			t.Errorf("what was done (-want +got):\n%s", diff)
		}
	})
}

func TestPollAndReread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, f := newWorld(), newFleet(t)
		view := run(t, w, f, func(node *Follower) {
			time.Sleep(time.Second)
			rec, files := f.publish(2, live(2), nil)
			w.serve(rec, files)
			got, err := node.Reread(t.Context())
			if err != nil || !slices.Equal(got.Texts, []string{rec.Text()}) || got.From != "192.0.2.1:53" {
				t.Errorf("Reread = %v, %v", got, err)
			}
			node.Poll()
			node.Poll()
			time.Sleep(time.Second)
		})
		if view.Record == nil || view.Record.Sequence != 2 {
			t.Errorf("after a poll the record is %v", view.Record)
		}
	})
}
