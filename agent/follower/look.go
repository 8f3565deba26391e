package follower

import (
	"context"
	"errors"
	"fmt"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/trust"
)

// sighting is a record that verified, wherever it came from.
type sighting struct {
	record *announce.Record
	signer string
	from   string
	ttl    time.Duration
	keys   *trust.State // that it was judged by
}

// look asks DNS, and branch "announce" when its time has come. What it finds
// goes to the worker; the error is why there was no news.
func (f *Follower) look(ctx context.Context) (time.Duration, error) {
	got, err := f.ask(ctx)
	now := f.opt.Clock().Now
	if err == nil {
		f.sight(got)
	}
	// The second carrier: in its own rhythm, and at once when the first one
	// knows of a key that is not trusted here.
	var unknown *announce.UnknownKeyError
	if now.Sub(f.read) >= f.opt.GitInterval || errors.As(err, &unknown) {
		f.read = now
		if other := f.lookInGit(ctx); other != nil {
			f.opt.Log.Warn("branch announce brought nothing", "error", other)
			if err != nil {
				err = fmt.Errorf("%w; branch announce: %w", err, other)
				f.read = time.Time{} // as at a start without network: again with the next question
			}
		} else if err != nil {
			f.opt.Log.Info("record read from branch announce, because DNS brought none", "error", err)
		}
	}
	f.set(func(v *View) {
		v.Counts.Polls++
		v.LastPoll, v.PollErr = now, ""
		if err != nil {
			v.Counts.PollFaults++
			v.PollErr = err.Error()
		}
	})
	if ctx.Err() == nil && err != nil {
		f.opt.Log.Warn("no news", "error", err)
	}
	f.answerPoll()
	return got.ttl, err
}

// answerPoll has the worker look again if somebody asked for it. It looks by
// itself at what is held or failed, ever more seldom: a person does not wait.
func (f *Follower) answerPoll() {
	f.mu.Lock()
	polled := f.polled
	f.polled = false
	if polled {
		f.vain = attempt{}
	}
	f.mu.Unlock()
	if polled {
		f.wake()
	}
}

// ask asks DNS for a record that verifies.
func (f *Follower) ask(ctx context.Context) (sighting, error) {
	keys, err := f.opt.Trust()
	if err != nil {
		return sighting{}, fmt.Errorf("read trust: %w", err)
	}
	var got sighting
	answer, err := f.opt.Asker.Lookup(ctx, f.opt.Name, func(a Answer) error {
		record, signer, err := announce.Choose(f.opt.Name, a.Texts, keys.Signers)
		if err != nil {
			return err
		}
		if err := record.Fresh(signer, f.opt.Clock()); err != nil {
			return err
		}
		got = sighting{record: record, signer: signer.String(), keys: keys}
		return nil
	})
	got.from, got.ttl = answer.From, answer.TTL
	return got, err
}

// lookInGit reads branch "announce" of every remote. The error is nil if one of
// them had a record that verified.
func (f *Follower) lookInGit(ctx context.Context) error {
	found, err := f.opt.Repository.Announced(ctx, f.opt.Name)
	wrong := []error{err}
	taken := false
	for _, one := range found { // all: which one is the newest shows only now
		if err := f.take(ctx, one); err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", one.From, err))
			continue
		}
		taken = true
	}
	if taken {
		return nil
	}
	return errors.Join(wrong...)
}

// take gives newer trust to the applier, then judges the record by what is
// trusted now.
func (f *Follower) take(ctx context.Context, one Announced) error {
	if one.Trust != nil {
		if _, err := f.opt.Applier.Do(ctx, agent.Request{Op: agent.OpTrust, Trust: one.Trust}); err != nil {
			f.opt.Log.Warn("trust.json of branch announce is not taken", "from", one.From, "error", err)
		}
	}
	if one.Record == "" {
		return errors.New("no record for this name")
	}
	keys, err := f.opt.Trust()
	if err != nil {
		return fmt.Errorf("read trust: %w", err)
	}
	record, signer, err := announce.Choose(f.opt.Name, []string{one.Record}, keys.Signers)
	if err != nil {
		return err
	}
	if err := record.Fresh(signer, f.opt.Clock()); err != nil {
		return err
	}
	f.sight(sighting{record: record, signer: signer.String(), from: one.From, keys: keys})
	return nil
}

// sight shows a verified record to the worker if it is newer than the last
// one. Replays are no news; two records for one place are an alarm. A last one
// whose key is trusted no more says nothing: whoever stole that key must not
// keep honest records away by having used a high sequence.
func (f *Follower) sight(got sighting) {
	have := f.now().Record
	if have != nil && !f.trusted(have, got.keys) {
		f.opt.Log.Warn("the last record's key is trusted no more", "sequence", have.Sequence)
		have = nil
	}
	switch order := announce.Compare(have, got.record); order {
	case announce.Newer:
		f.opt.Log.Info("a newer record", "sequence", got.record.Sequence, "commit", got.record.Commit, "from", got.from)
		now := f.opt.Clock().Now
		f.set(func(v *View) {
			v.Record, v.Signer, v.Source, v.Alarm, v.sighted = got.record, got.signer, got.from, "", now
		})
		f.replace()
		f.wake() // before anything slow is asked
	case announce.Same:
		f.set(func(v *View) { v.Source = got.from })
	case announce.Equivocation:
		f.opt.Log.Error("two signed records contradict each other; somebody has the key or its owner erred",
			"have", have.Text(), "got", got.record.Text(), "from", got.from)
		f.set(func(v *View) {
			v.Alarm = fmt.Sprintf("two signed records of release %d contradict each other (the second from %s): somebody has the key, or its owner erred; publish a higher sequence, and rotate the key if it was stolen",
				got.record.Sequence, got.from)
		})
	default:
		f.opt.Log.Warn("a record that is no news", "order", order.String(), "sequence", got.record.Sequence, "from", got.from)
	}
}

// trusted says whether a record that verified once still does.
func (f *Follower) trusted(record *announce.Record, keys *trust.State) bool {
	owner, err := announce.Owner(f.opt.Name)
	if err == nil {
		_, err = record.Verify(owner, keys.Signers)
	}
	return err == nil
}

// replace ends the round on an older record.
func (f *Follower) replace() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.replaced != nil {
		f.replaced(errors.New("a newer record came"))
	}
}
