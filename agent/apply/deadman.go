package apply

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/agent"
)

// TakeLock waits for the lock that applier and dead man share, until ctx ends.
// The lock is given back when the file is closed or the process ends.
func TakeLock(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("take the applier's lock: %w", err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			f.Close()
			return nil, fmt.Errorf("take the applier's lock %q: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("take the applier's lock %q: another applier or dead man holds it: %w", path, ctx.Err())
		case <-tick.C:
		}
	}
}

// DeadMan is what the timer of the old generation runs when a trial was not
// proven in time: it stops applier and switch, takes the lock, and reverts. At
// PASSED or later, or when nothing is under way, it does nothing. lock takes
// the lock with a deadline of its own.
func (a *Applier) DeadMan(ctx context.Context, lock func(context.Context) (release func(), err error)) error {
	world, err := a.world(ctx)
	if err != nil {
		a.opt.Log.Warn("dead man: look at the machine", "err", err)
	}
	if state := a.trial(world); !concerned(state.Phase) {
		a.opt.Log.Info("dead man: nothing to do", "phase", state.Phase)
		return nil
	}
	if err := a.opt.Services.StopApplier(ctx); err != nil {
		a.opt.Log.Error("dead man: stop the applier", "err", err)
	}
	release, err := lock(ctx)
	if err != nil {
		return err
	}
	defer release()
	state := a.trial(world) // it may have passed in its last moment
	a.set(state)
	if !concerned(state.Phase) {
		a.opt.Log.Info("dead man: passed meanwhile; the applier goes on", "phase", state.Phase)
		return a.opt.Services.HandOver(ctx)
	}
	if err := a.opt.Switcher.Stop(ctx); err != nil {
		a.opt.Log.Error("dead man: stop the switch", "err", err)
	}
	// step, not begin: he goes back although the journal cannot be written.
	_, effects, err := a.step(ctx, agent.Event{Kind: agent.EventDeadMan})
	if err != nil {
		return err
	}
	a.work(ctx, effects)
	a.Wait()
	return nil
}

// concerned says in which phases the dead man acts.
func concerned(p agent.Phase) bool {
	switch p {
	case agent.Armed, agent.Trying, agent.Probing, agent.Reverting, agent.ProbingOld, agent.Quarantined:
		return true
	}
	return false
}

// trial reads what is on trial. Without a journal the root of last-good says
// what there was before.
func (a *Applier) trial(w agent.World) agent.State {
	state := a.load(w)
	if state.Phase == agent.Safe && state.Reason.Code == agent.RedJournal && state.LastGoodLive.System != w.Current && w.Current != "" {
		state.Phase, state.Arm = agent.Probing, agent.Live
		state.Candidate = agent.Target{System: w.Current, Medium: w.Medium}
	}
	return state
}
