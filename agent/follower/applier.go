package follower

import (
	"context"
	"errors"
	"reflect"
	"time"

	"xnodeos.org/agent"
)

// watchApplier keeps the picture of the applier fresh. At rest only its files
// are glanced at: asking would start it, and it is there only while it works.
func (f *Follower) watchApplier(ctx context.Context) {
	seen := "" // nothing yet, so that the first glance asks
	var last agent.Status
	asked := false
	for {
		wait := glance
		if asked && !last.State.Phase.AtRest() {
			wait = trialGlance
		}
		if now := f.opt.Changed(); now != seen || wait == trialGlance {
			if status, err := f.applierStatus(ctx); err == nil {
				// Accepting a record is no reason: the worker did that itself.
				changed := !reflect.DeepEqual(last.State, status.State) || !reflect.DeepEqual(last.Quarantine, status.Quarantine)
				if changed {
					f.changedByOthers()
				}
				if changed || !asked {
					f.finish(status)
				}
				seen, last, asked = now, status, true
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-f.tried:
			seen, asked = "", false
		}
	}
}

// finish ends APPLYING when the applier has come to rest, and has the worker
// look at what is due next.
func (f *Follower) finish(status agent.Status) {
	if !status.State.Phase.AtRest() {
		return
	}
	now := f.opt.Clock().Now.Unix()
	f.set(func(v *View) {
		if v.Follow.Phase != agent.FollowApplying {
			return
		}
		f.vain.why = status.State.Reason
		if p := status.State.Phase; p != agent.Settled && p != agent.Held {
			v.Counts.Rollbacks++
		}
		v.Follow = v.Follow.Rest(status.State.Reason, now)
	})
	f.wake()
}

// changedByOthers forgets what was asked in vain if the applier's state changed
// and it was not by a trial: an operator's word counts at once.
func (f *Follower) changedByOthers() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.trying && f.view.Follow.Phase != agent.FollowApplying {
		f.vain = attempt{}
	}
}

// knownStatus is what the applier said last, if it rests and its files are as
// they were then. Asking would start it, every round for as long as something
// is held.
func (f *Follower) knownStatus(ctx context.Context) (agent.Status, error) {
	now := f.opt.Changed()
	f.mu.Lock()
	v, seen := f.view, f.seen
	f.mu.Unlock()
	if now != "" && now == seen && v.Applier.State.Phase.AtRest() && v.Problem == "" && v.Applier.Problem == "" {
		return v.Applier, nil
	}
	return f.applierStatus(ctx)
}

// errOvertaken is an answer of before a trial that came after its begin.
var errOvertaken = errors.New("the answer was overtaken by a trial")

// applierStatus asks the applier and shows its answer.
func (f *Follower) applierStatus(ctx context.Context) (agent.Status, error) {
	f.mu.Lock()
	asks := f.asks
	f.mu.Unlock()
	before := f.opt.Changed() // what changes while it answers is asked for again
	status, err := f.opt.Applier.Do(ctx, agent.Request{Op: agent.OpStatus})
	f.set(func(v *View) {
		if asks != f.asks {
			err = errOvertaken
			return
		}
		if err != nil {
			if ctx.Err() == nil {
				v.Problem = "the applier does not answer: " + err.Error()
			}
			return
		}
		v.Problem = ""
		v.Applier, f.seen = status, before
	})
	return status, err
}

// attempt is what the applier was asked for and did not do, or did in vain: it
// held the release, or the trial ended without a verdict.
type attempt struct {
	system   string
	sequence uint32
	count    int
	last     time.Time
	why      agent.Reason
}

// wait is how long after the last one the next attempt is made: a hold may last
// for weeks, and asking starts the applier and looks at a whole closure.
func (a attempt) wait() time.Duration {
	if a.count == 0 {
		return 0
	}
	return min(retryFloor<<min(a.count-1, 10), retryCeiling)
}

// left is what is left of wait, however the clock jumped.
func (a attempt) left(now time.Time) time.Duration {
	return max(0, min(a.wait()-now.Sub(a.last), a.wait()))
}

// begun notes that the applier is being asked for a trial.
func (f *Follower) begun() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trying = true
	f.asks++
}

// asked notes that the applier was asked for a target. What is neither taken
// nor held is for others to judge.
func (f *Follower) asked(target agent.Target, err error) {
	now := f.opt.Clock().Now
	var refusal *agent.Refusal
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trying = err == nil
	f.asks++
	if err != nil && !(errors.As(err, &refusal) && refusal.Held()) {
		return
	}
	if f.vain.system != target.System || f.vain.sequence != target.Sequence {
		f.vain = attempt{system: target.System, sequence: target.Sequence}
	}
	f.vain.count++
	f.vain.last = now
	if refusal != nil {
		f.vain.why = refusal.Reason
	}
}

// applying shows that a trial is under way.
func (f *Follower) applying(status agent.Status, sequence uint32) {
	f.advance(agent.FollowApplying, sequence)
	f.set(func(v *View) {
		f.trying = false // from here on the phase says it
		v.Applier = status
		v.Counts.Tries++
	})
}

// tooSoon refuses to ask for the same target again before its time.
func (f *Follower) tooSoon(target agent.Target) error {
	now := f.opt.Clock().Now
	f.mu.Lock()
	vain := f.vain
	f.mu.Unlock()
	if vain.system != target.System || vain.sequence != target.Sequence || vain.left(now) == 0 {
		return nil
	}
	why := vain.why
	if !(&agent.Refusal{Reason: why}).Held() {
		why = agent.Reason{Code: agent.HeldExhausted, Text: "the last trial ended without a verdict; the next one is in " + vain.left(now).Round(time.Second).String()}
	}
	return &agent.Refusal{Reason: why}
}

// due is when what is held may be asked for again.
func (f *Follower) due() time.Duration {
	now := f.opt.Clock().Now
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.vain.left(now)
}
