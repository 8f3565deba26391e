package apply

import (
	"context"
	"fmt"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/trust"
)

// world observes the machine.
func (a *Applier) world(ctx context.Context) (agent.World, error) {
	w, err := a.opt.Machine.World(ctx)
	if err != nil {
		return w, fmt.Errorf("look at the machine: %w", err)
	}
	if w.Profile, err = a.opt.Links.Profile(); err != nil {
		return w, err
	}
	if w.BootedQuarantined, err = a.quarantined(w.Booted); err != nil {
		// What runs is looked after and brought back all the same; facts, for
		// what is new, needs to know.
		a.opt.Log.Error("the quarantine cannot be read; nothing new is tried", "err", err)
	}
	if a.opt.Loader == nil || w.Medium != agent.MediumInstalled {
		return w, nil
	}
	entries, err := a.opt.Loader.Pending(ctx)
	if err != nil {
		a.opt.Log.Warn("boot entries cannot be read; live switches only", "err", err)
		return w, nil
	}
	w.Loader, w.Mark, w.OneShot, w.Default = true, entries.Mark, entries.OneShot, entries.Default
	return w, nil
}

func (a *Applier) quarantined(system string) (bool, error) {
	list, err := a.opt.Memory.Quarantine()
	if err != nil {
		return false, err
	}
	for _, v := range list {
		if v.System == system {
			return true, nil
		}
	}
	return false, nil
}

// facts observes what a decision about a candidate needs.
func (a *Applier) facts(ctx context.Context, candidate string) (agent.Facts, error) {
	var f agent.Facts
	var err error
	if f.World, err = a.world(ctx); err != nil {
		return f, err
	}
	f.Durable, f.Uptime = a.opt.Durable, int64(a.opt.Machine.Uptime()/time.Second)
	if candidate == "" {
		return f, nil
	}
	if f.Quarantined, err = a.quarantined(candidate); err != nil {
		return f, err
	}
	need, err := a.opt.Machine.Need(ctx, f.Booted, candidate)
	if err != nil {
		return f, fmt.Errorf("compare %s with the booted system: %w", candidate, err)
	}
	f.NeedsReboot = need == agent.Reboot
	return f, nil
}

// keys is the trust that counts: the embedded one and the stored chain, judged
// again. A stored document that does not verify is passed over.
func (a *Applier) keys() (*trust.State, error) {
	chain, err := a.opt.Memory.Trust()
	if err != nil {
		a.opt.Log.Error("stored trust cannot be read; the embedded one counts", "err", err)
		chain = nil
	}
	current, refused := trust.Current(a.opt.Embedded, chain...)
	for _, err := range refused {
		a.opt.Log.Warn("stored trust", "err", err)
	}
	if current == nil {
		return nil, fmt.Errorf("this node has no trust: give it trust/allowed_signers")
	}
	limited := *current
	limited.MinSequence = max(limited.MinSequence, a.opt.MinSequence)
	return &limited, nil
}

func (a *Applier) clock() announce.Clock {
	c := a.opt.Clock()
	floor, err := a.opt.Memory.TimeFloor()
	if err != nil {
		a.opt.Log.Error("the time floor cannot be read; the accepted record's time counts", "err", err)
		floor = a.accepted().Published
	}
	if stored := time.Unix(floor, 0); stored.After(c.Floor) {
		c.Floor = stored
	}
	return c
}

// accepted is the newest accepted record. Where the file is damaged, what the
// journal knows of sequences still holds: losing it reopens nothing.
func (a *Applier) accepted() agent.Accepted {
	have, err := a.opt.Memory.Accepted()
	if err == nil {
		return have
	}
	a.opt.Log.Error("the accepted record cannot be read; the journal's sequences count", "err", err)
	s := a.State()
	for _, t := range []agent.Target{s.LastGoodLive, s.LastGoodBoot, s.Candidate, s.Reapply} {
		if t.Sequence > have.Sequence {
			have = agent.Accepted{Sequence: t.Sequence, Published: t.Published}
		}
	}
	return have
}

// VerifyRecord checks a record that was read again after a switch: signed for
// the name that the system under exam follows, and no contradiction of the
// accepted one.
func (a *Applier) VerifyRecord(owner, text string) error {
	keys, err := a.keys()
	if err != nil {
		return err
	}
	node := a.opt.Node
	node.Owner = owner
	return agent.VerifyRecord(text, node, keys, a.accepted())
}

// Status is all that the applier knows.
func (a *Applier) Status() agent.Status {
	st := agent.Status{Accepted: a.accepted(), Durable: a.opt.Durable}
	var errs []error
	var err error
	if st.Quarantine, err = a.opt.Memory.Quarantine(); err != nil {
		errs = append(errs, err)
	}
	if st.TimeFloor, err = a.opt.Memory.TimeFloor(); err != nil {
		errs = append(errs, err)
	}
	if _, err := a.opt.Memory.Accepted(); err != nil {
		errs = append(errs, err)
	}
	if _, err := a.opt.Memory.Trust(); err != nil {
		errs = append(errs, err)
	}
	if keys, err := a.keys(); err != nil {
		errs = append(errs, err)
	} else {
		st.TrustVersion = uint64(keys.Version)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	st.State, st.Report, st.Problem = a.state, a.report, a.problem
	if !a.due.IsZero() && !a.state.Phase.AtRest() {
		st.Deadline = a.due.Unix()
	}
	for _, err := range errs {
		if st.Problem != "" {
			st.Problem += "; "
		}
		st.Problem += err.Error()
	}
	return st
}
