package follower

import (
	"context"
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
				if !asked || !reflect.DeepEqual(last.State, status.State) || !reflect.DeepEqual(last.Quarantine, status.Quarantine) {
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
		if status.State.Phase != agent.Settled {
			v.Counts.Rollbacks++
		}
		v.Follow = v.Follow.Rest(status.State.Reason, now)
	})
	f.wake()
}

// applierStatus asks the applier and shows its answer.
func (f *Follower) applierStatus(ctx context.Context) (agent.Status, error) {
	status, err := f.opt.Applier.Do(ctx, agent.Request{Op: agent.OpStatus})
	f.set(func(v *View) {
		if err != nil {
			if ctx.Err() == nil {
				v.Problem = "the applier does not answer: " + err.Error()
			}
			return
		}
		v.Problem = ""
		v.Applier = status
	})
	return status, err
}
