package follower

import (
	"context"
	"errors"
	"fmt"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/release"
)

// errRuns says that what is announced is what runs here.
var errRuns = errors.New("the announced system runs here")

// Retries of a fetch or download that failed, doubled each time.
const (
	retryFloor   = 10 * time.Second
	retryCeiling = 10 * time.Minute
	// glance is how often the applier's files are looked at, trialGlance how
	// often the applier is asked during a trial.
	glance      = 5 * time.Second
	trialGlance = time.Second
)

// work handles the newest record, again whenever something changed.
func (f *Follower) work(ctx context.Context) {
	var wait time.Duration
	for ctx.Err() == nil {
		again := make(<-chan time.Time)
		if wait > 0 {
			again = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return
		case <-f.news:
		case <-again:
		}
		wait = f.handle(ctx)
	}
}

// handle does one round and returns when to look again by itself, 0 for never.
func (f *Follower) handle(ctx context.Context) time.Duration {
	one, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	record := f.begin(cancel)

	status, err := f.knownStatus(one)
	if err != nil {
		return retryFloor
	}
	if !status.State.Phase.AtRest() {
		return trialGlance
	}
	if again := status.State.Reapply; !again.IsZero() {
		err = f.applyKept(one, again)
		var refusal *agent.Refusal
		if err != nil && record != nil && one.Err() == nil && !(errors.As(err, &refusal) && refusal.Held()) {
			f.opt.Log.Warn("what was proven before the boot cannot be applied again; what is announced is next", "error", err)
			err = f.apply(one, status, record)
		}
	} else if record != nil {
		err = f.apply(one, status, record)
	}
	return f.settle(one, err)
}

// settle shows how a round ended and says when to come back.
func (f *Follower) settle(ctx context.Context, err error) time.Duration {
	var refusal *agent.Refusal
	now := f.opt.Clock().Now.Unix()
	if ctx.Err() != nil {
		return 0
	}
	if err == nil || errors.As(err, &refusal) {
		f.failures = 0
	}
	switch {
	case err == nil:
		return 0 // what was begun ends with a word of the applier
	case errors.Is(err, errRuns):
		f.rest(agent.Reason{}, now)
		return retryCeiling
	case errors.As(err, &refusal) && refusal.Held():
		f.set(func(v *View) {
			if v.Follow.Phase != agent.FollowHeld || v.Follow.Reason != refusal.Reason {
				v.Follow = v.Follow.Hold(refusal.Reason, now)
			}
		})
		return max(retryFloor, f.due())
	case errors.As(err, &refusal):
		f.rest(refusal.Reason, now)
		return retryCeiling // the node's own state may change
	}
	f.opt.Log.Warn("the release cannot be applied yet", "error", err)
	f.failures++
	f.set(func(v *View) {
		v.Follow = v.Follow.Fail(agent.Reason{Code: agent.CodeInternal, Text: err.Error()}, now)
		v.Counts.FetchFaults++
		v.Transfer = nil
	})
	return min(retryFloor<<min(f.failures-1, 10), retryCeiling)
}

// rest shows that there is nothing to do, since when, and why.
func (f *Follower) rest(why agent.Reason, now int64) {
	f.set(func(v *View) {
		if v.Follow.Phase != agent.FollowIdle || v.Follow.Reason != why {
			v.Follow = v.Follow.Rest(why, now)
		}
	})
}

// apply brings a record to the applier: fetch, verify, realise, try.
func (f *Follower) apply(ctx context.Context, status agent.Status, record *announce.Record) error {
	files, rel, err := f.fetch(ctx, record)
	if err != nil {
		return err
	}
	if status.Accepted.Record != record.Text() {
		if _, err := f.opt.Applier.Do(ctx, agent.Request{Op: agent.OpAccept, Record: record.Text(), Release: files.Release, Nodes: files.Nodes}); err != nil {
			return fmt.Errorf("accept the record: %w", err)
		}
	}
	nodes, err := rel.OpenNodes(files.Nodes)
	if err != nil {
		return err
	}
	target, err := f.target(rel, nodes, record.Published)
	if err != nil {
		return refuse(agent.CodeNothing, "%v", err)
	}
	f.set(func(v *View) { v.Follow.Target = target })
	request := agent.Request{Op: agent.OpTry, Record: record.Text(), Release: files.Release, Nodes: files.Nodes, System: target.System}
	if good := status.State.LastGoodLive; target.System == good.System {
		return f.confirm(ctx, target.Sequence != good.Sequence && !record.Halted, request)
	}
	if err := f.judge(status, record, rel, target); err != nil {
		return err
	}
	return f.realiseAndTry(ctx, target, append(append([]string{}, f.opt.Caches...), rel.Caches...), request)
}

// applyKept applies again what was proven here and did not survive a boot.
func (f *Follower) applyKept(ctx context.Context, target agent.Target) error {
	kept, err := f.opt.Kept(target.System)
	if err != nil {
		return fmt.Errorf("read the kept release: %w", err)
	}
	rel, err := release.Parse(kept.Release)
	if err != nil {
		return fmt.Errorf("read the kept release: %w", err)
	}
	f.opt.Log.Info("applying again what was proven before the boot", "system", target.System, "sequence", target.Sequence)
	request := agent.Request{Op: agent.OpTry, Record: kept.Record, Release: kept.Release, Nodes: kept.Nodes, System: target.System}
	return f.realiseAndTry(ctx, target, append(append([]string{}, f.opt.Caches...), rel.Caches...), request)
}

// confirm tells the applier of a release that names what runs here, so that it
// knows the newest one that does. Nothing is activated; if it does not want to
// hear of it now, the next round tells it again.
func (f *Follower) confirm(ctx context.Context, newer bool, request agent.Request) error {
	if newer {
		_, err := f.opt.Applier.Do(ctx, request)
		var refusal *agent.Refusal
		if err != nil && !errors.As(err, &refusal) {
			return err
		}
	}
	return errRuns
}

// fetch returns the release that the record binds.
func (f *Follower) fetch(ctx context.Context, record *announce.Record) (Files, *release.Release, error) {
	files, ok := f.remembered(record)
	if !ok {
		f.advance(agent.FollowSeen, record.Sequence)
		f.set(func(v *View) { v.Counts.Fetches++ })
		var err error
		if files, err = f.opt.Repository.Fetch(ctx, record); err != nil {
			return files, nil, fmt.Errorf("fetch release %d: %w", record.Sequence, err)
		}
		f.advance(agent.FollowFetched, record.Sequence)
	}
	rel, err := release.Open(files.Release, record.Digest, record.Sequence)
	if err != nil {
		return files, nil, fmt.Errorf("release %d from %s: %w", record.Sequence, files.From, err)
	}
	if !ok {
		f.advance(agent.FollowVerified, record.Sequence)
		f.remember(record, files)
	}
	return files, rel, nil
}

// judge says what the applier would refuse anyway, before anything is
// downloaded for it.
func (f *Follower) judge(status agent.Status, record *announce.Record, rel *release.Release, target agent.Target) error {
	state := status.State
	for _, q := range status.Quarantine {
		if q.System == target.System {
			return refuse(agent.CodeQuarantined, "release %d names a system that went back here: %s", target.Sequence, q.Reason)
		}
	}
	switch {
	case target.Medium == agent.MediumInstalled && f.opt.Medium == agent.MediumLive:
		// Not held: waiting changes nothing, somebody has to install it.
		return refuse(agent.CodeMedium, "%s: the class is for installed nodes, and this one runs from memory", agent.HeldNeedsInstall)
	case target.Medium != f.opt.Medium:
		return refuse(agent.CodeMedium, "release %d is for %s nodes, and this one is %s", target.Sequence, target.Medium, f.opt.Medium)
	case record.Halted:
		return refuse(agent.HeldHalted, "release %d is halted by its publisher", target.Sequence)
	case state.Paused:
		return refuse(agent.HeldPaused, "the operator paused this node; `xnode resume` goes on")
	case state.Phase == agent.Safe:
		return refuse(agent.HeldRejected, "the node is in SAFE: %s", state.Reason)
	}
	start := rel.Policy.Start(record.Published, record.Sequence, f.opt.NodeKey)
	if f.time(record).Before(start) {
		return refuse(agent.HeldWave, "this node's turn is at %s", start.UTC().Format(time.RFC3339))
	}
	return nil
}

// time is what a wave is counted by. A clock that nobody has set may be years
// behind; then the time since the record came counts from its publication, or
// the node would wait for its clock.
func (f *Follower) time(record *announce.Record) time.Time {
	clock := f.opt.Clock()
	now := clock.Time()
	if clock.Synchronised {
		return now
	}
	if by := time.Unix(record.Published, 0).Add(clock.Now.Sub(f.now().sighted)); by.After(now) {
		return by
	}
	return now
}

func (f *Follower) realiseAndTry(ctx context.Context, target agent.Target, caches []string, request agent.Request) error {
	if err := f.tooSoon(target); err != nil {
		return err
	}
	defer f.opt.Store.Release()
	f.set(func(v *View) {
		v.Follow = agent.FollowState{Phase: agent.FollowVerified, Sequence: target.Sequence, Target: target, Since: f.opt.Clock().Now.Unix()}
	})
	err := f.opt.Store.Realise(ctx, target, caches, func(t Transfer) {
		f.set(func(v *View) { v.Transfer = &t })
	})
	f.set(func(v *View) {
		if t := v.Transfer; t != nil {
			v.Counts.BytesFetched += uint64(max(t.BytesDone, 0))
		}
		v.Transfer = nil
	})
	if err != nil {
		return fmt.Errorf("realise %s: %w", target.System, err)
	}
	f.advance(agent.FollowRealised, target.Sequence)
	f.advance(agent.FollowChecked, target.Sequence)
	f.begun()
	status, err := f.opt.Applier.Do(ctx, request)
	f.asked(target, err)
	if err != nil {
		return err
	}
	f.applying(status, target.Sequence)
	select {
	case f.tried <- struct{}{}:
	default:
	}
	return nil
}

// advance moves the phase that is shown. A step that the domain refuses is our
// own bug, and not worth stopping a node for.
func (f *Follower) advance(to agent.FollowPhase, sequence uint32) {
	f.set(func(v *View) {
		next, err := v.Follow.Advance(to, sequence, f.opt.Clock().Now.Unix())
		if err == nil {
			v.Follow = next
		}
	})
}

// begin starts a round on the newest record. A newer one cancels it.
func (f *Follower) begin(cancel context.CancelCauseFunc) *announce.Record {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.replaced = cancel
	return f.view.Record
}

func refuse(code agent.Code, format string, args ...any) error {
	return &agent.Refusal{Reason: agent.Reason{Code: code, Text: fmt.Sprintf(format, args...)}}
}
