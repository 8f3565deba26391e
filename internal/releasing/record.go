package releasing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/dnsupdate"
	"xnodeos.org/internal/trust"
)

// Change is what happens to the current record.
type Change string

// The changes that touch the record only.
const (
	Refresh Change = "refresh" // a later end
	Halt    Change = "halt"    // nodes that have not begun do not begin
	Resume  Change = "resume"  // they may again
)

// ChangeRecord refreshes, halts or resumes the announced release: sequence,
// commit and digest stay. Keys for git and cache are not needed.
func ChangeRecord(ctx context.Context, o Options, change Change) (*Result, error) {
	r, err := start(ctx, o)
	if err != nil {
		return &Result{}, err
	}
	r.brake = change == Halt
	have, err := r.records(ctx)
	if err != nil {
		return &r.result, err
	}
	old := have.newest
	if old == nil {
		return &r.result, fmt.Errorf("nothing is announced at %s that branch announce holds; make a release first with: xnodeos release", r.owner)
	}
	r.take(old.Sequence, old.Commit)
	next := announce.Record{Sequence: old.Sequence, Commit: old.Commit, Digest: old.Digest, Halted: old.Halted}
	switch change {
	case Halt:
		next.Halted = true
	case Resume:
		next.Halted = false
	}
	if o.DryRun {
		r.result.Halted = next.Halted
		r.step("record", "done", "%s release %d: sign for %s", change, old.Sequence, r.owner)
		r.planPublish()
		return &r.result, nil
	}
	var record *announce.Record
	if change != Refresh && old.Halted == next.Halted && !r.stale(old) {
		record = old
		r.result.Halted = old.Halted
		r.step("record", "kept", "%s", old.Text())
	} else if record, err = r.newRecord(ctx, old, next); err != nil {
		return &r.result, err
	}
	return &r.result, r.publish(ctx, have, record)
}

// announced is what branch announce holds, here and on all remotes.
type announced struct {
	newest *announce.Record // of the owner, with a good signature; nil if there is none
	tips   []string         // commits that no other one contains, the local one first
	remote map[string]string
	lost   map[string]error // remotes that a halt does without
}

// records collects the branch announce of the clone and of every remote.
func (r *run) records(ctx context.Context) (*announced, error) {
	local, err := r.resolve(ctx, announceBranch)
	if err != nil {
		return nil, err
	}
	a := &announced{remote: map[string]string{}, lost: map[string]error{}}
	if local != "" {
		a.tips = append(a.tips, local)
	}
	for _, remote := range r.Settings.Remotes {
		tip, err := r.fetchAnnounce(ctx, remote, a.tips)
		if err != nil && r.brake && ctx.Err() == nil {
			r.lose(a, remote, err)
			continue
		}
		if err != nil {
			return nil, err
		}
		if a.remote[remote] = tip; tip != "" && !slices.Contains(a.tips, tip) {
			a.tips = append(a.tips, tip)
		}
	}
	if len(a.tips) > 1 {
		out, err := r.git(ctx, nil, append([]string{"merge-base", "--independent"}, a.tips...)...)
		if err != nil {
			return nil, err
		}
		a.tips = strings.Fields(out)
	}
	for _, tip := range a.tips {
		if err := r.newer(ctx, a, tip); err != nil {
			return nil, err
		}
	}
	return a, nil
}

// fetchAnnounce brings a remote's branch announce and returns its tip, "" if it
// has none.
func (r *run) fetchAnnounce(ctx context.Context, remote string, have []string) (string, error) {
	tip, err := r.remoteRef(ctx, remote, announceBranch)
	if err != nil {
		return "", fmt.Errorf("look at remote %q: %w", shown(remote), err)
	}
	if tip == "" || slices.Contains(have, tip) {
		return tip, nil
	}
	if _, err := r.git(ctx, nil, "fetch", "-q", "--no-tags", "--no-write-fetch-head", "--", remote, announceBranch); err != nil {
		return "", fmt.Errorf("fetch branch announce of %q: %w", shown(remote), err)
	}
	return tip, nil
}

// lose goes on without a remote.
func (r *run) lose(a *announced, remote string, err error) {
	a.lost[remote] = err
	r.step("announce", "failed", "%v", err)
}

// newer takes the record of one tip if it is good and newer. One that is
// damaged or of a key that was removed is as none.
func (r *run) newer(ctx context.Context, a *announced, tip string) error {
	text, err := r.file(ctx, tip, r.owner+".txt")
	if err != nil || text == nil {
		return err
	}
	record, err := announce.Parse(strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		r.step("record", "kept", "the one on branch announce is no record: %v", err)
		return nil
	}
	if _, err := record.Verify(r.owner, r.signers); err != nil {
		r.step("record", "kept", "the one on branch announce does not count: %v", err)
		return nil
	}
	if a.newest == nil || announce.Compare(a.newest, record) == announce.Newer || announce.Compare(a.newest, record) == announce.Jump {
		a.newest = record
	}
	return nil
}

// stale says that less than half of a record's time is left.
func (r *run) stale(record *announce.Record) bool {
	return r.Now().Unix() > record.Published+(record.Expires-record.Published)/2
}

// sign returns the current record if it says the same and is young, or a new
// one.
func (r *run) sign(ctx context.Context, old *announce.Record, next announce.Record) (*announce.Record, error) {
	if old != nil && old.Sequence == next.Sequence && old.Commit == next.Commit && old.Digest == next.Digest {
		next.Halted = old.Halted // only --resume ends a halt
		if !r.stale(old) {
			r.result.Halted = old.Halted
			r.step("record", "kept", "%s", old.Text())
			return old, nil
		}
	}
	return r.newRecord(ctx, old, next)
}

func (r *run) newRecord(ctx context.Context, old *announce.Record, next announce.Record) (*announce.Record, error) {
	validity, err := r.Settings.validity()
	if err != nil {
		return nil, err
	}
	next.Published = r.Now().Unix()
	if old != nil && next.Published <= old.Published {
		next.Published = old.Published + 1
	}
	next.Expires = next.Published + int64(validity/time.Second)
	record, err := announce.Sign(ctx, r.owner, next, r.Announce)
	if err != nil {
		return nil, err
	}
	if old != nil {
		if _, err := announce.Admit(old, 0, record); err != nil {
			return nil, fmt.Errorf("nodes that know the announced record would refuse this one: %w", err)
		}
	}
	r.result.Halted = record.Halted
	r.step("record", "done", "%s", record.Text())
	return record, nil
}

// publish brings the record to branch announce of every remote and into DNS,
// and waits until DNS shows it.
func (r *run) publish(ctx context.Context, have *announced, record *announce.Record) error {
	r.result.Record = record.Text()
	tip, err := r.announceTip(ctx, have, record)
	if err != nil {
		return fmt.Errorf("write branch announce: %w", err)
	}
	for _, remote := range r.Settings.Remotes {
		switch {
		case have.lost[remote] != nil:
			continue
		case have.remote[remote] == tip:
			r.step("announce", "kept", "branch announce on %s", shown(remote))
			continue
		}
		_, err := r.git(ctx, nil, "push", "-q", "--", remote, tip+":"+announceBranch)
		switch {
		case err == nil:
			r.step("announce", "done", "branch announce on %s", shown(remote))
		case r.brake && ctx.Err() == nil:
			r.lose(have, remote, fmt.Errorf("push branch announce to %q: %w", shown(remote), err))
		default:
			return fmt.Errorf("push branch announce to %q: %w; run the same command again when it can be reached", shown(remote), err)
		}
	}
	if err := r.intoDNS(ctx, record); err != nil || len(have.lost) == 0 {
		return err
	}
	where := "on the other remotes"
	if r.DNS != nil {
		where = "in DNS and " + where
	}
	return fmt.Errorf("the halt is published %s; run the same command again when these can be reached: %w",
		where, errors.Join(slices.Collect(maps.Values(have.lost))...))
}

// intoDNS publishes the record and waits until it is seen.
func (r *run) intoDNS(ctx context.Context, record *announce.Record) error {
	if r.DNS == nil {
		return nil
	}
	ttl, err := r.Settings.DNS.ttl()
	if err != nil {
		return err
	}
	entry := dnsupdate.Record{Name: r.owner, TTL: ttl, Text: record.Text()}
	if err := r.DNS.Publish(ctx, entry); err != nil {
		return err
	}
	r.step("dns", "done", "published at %s, TTL %s", r.owner, ttl)
	return r.watch(ctx, entry)
}

// watch waits until every named server shows the record.
func (r *run) watch(ctx context.Context, entry dnsupdate.Record) error {
	servers := r.Settings.DNS.Watch
	if len(servers) == 0 && r.Settings.DNS.Server != "" {
		servers = []string{r.Settings.DNS.Server}
	}
	if len(servers) == 0 {
		return nil
	}
	wait, err := r.Settings.DNS.timeout()
	if err != nil {
		return err
	}
	limited, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	err = dnsupdate.Watch(limited, servers, entry, time.Second, func(server string, err error) {
		if err == nil {
			r.step("seen", "done", "%s shows the record", server)
		}
	})
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// announceTip returns the commit of branch announce that holds the record and
// the trust files, made if there is none yet. Other records on the branch stay.
func (r *run) announceTip(ctx context.Context, have *announced, record *announce.Record) (string, error) {
	files, err := r.others(ctx, have)
	if err != nil {
		return "", err
	}
	trusted, err := r.trustFiles()
	if err != nil {
		return "", err
	}
	maps.Copy(files, trusted)
	files[r.owner+".txt"] = []byte(record.Text() + "\n")
	spec := commitSpec{parents: have.tips, files: files, when: r.Now(), message: fmt.Sprintf("announce %s\n", record.Tag())}
	if len(have.tips) > 0 {
		spec.base = have.tips[0]
	}
	if len(have.tips) == 1 {
		tree, err := r.makeTree(ctx, spec)
		if err != nil {
			return "", err
		}
		if now, err := r.git(ctx, nil, "rev-parse", have.tips[0]+"^{tree}"); err == nil && now == tree {
			return have.tips[0], r.moveAnnounce(ctx, have.tips[0])
		}
	}
	tip, err := r.makeCommit(ctx, spec, nil) // what lies on it is signed itself
	if err != nil {
		return "", err
	}
	return tip, r.moveAnnounce(ctx, tip)
}

// others returns what further tips have and the first one lacks, or has an
// older record of: two operators may have announced at the same time.
func (r *run) others(ctx context.Context, have *announced) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, tip := range have.tips[min(1, len(have.tips)):] {
		names, err := r.git(ctx, nil, "ls-tree", "--name-only", "-z", tip)
		if err != nil {
			return nil, err
		}
		for name := range strings.SplitSeq(strings.TrimSuffix(names, "\x00"), "\x00") {
			theirs, err := r.file(ctx, tip, name)
			if err != nil {
				return nil, err
			}
			ours := out[name]
			if ours == nil {
				if ours, err = r.file(ctx, have.tips[0], name); err != nil {
					return nil, err
				}
			}
			if ours == nil || newerRecord(ours, theirs) {
				out[name] = theirs
			}
		}
	}
	return out, nil
}

// newerRecord compares two files; what is no record is never newer.
func newerRecord(old, next []byte) bool {
	a, err1 := announce.Parse(strings.TrimSuffix(string(old), "\n"))
	b, err2 := announce.Parse(strings.TrimSuffix(string(next), "\n"))
	if err1 != nil || err2 != nil {
		return false
	}
	order := announce.Compare(a, b)
	return order == announce.Newer || order == announce.Jump
}

func (r *run) moveAnnounce(ctx context.Context, tip string) error {
	_, err := r.git(ctx, nil, "update-ref", announceBranch, tip)
	return err
}

// trustFiles are trust.json and its signatures, if the repository has them:
// nodes read them from branch announce.
func (r *run) trustFiles() (map[string][]byte, error) {
	out := map[string][]byte{}
	found, err := filepath.Glob(filepath.Join(r.dir, path.Dir(SignersFile), trust.DocumentName+"*"))
	if err != nil {
		return nil, err
	}
	for _, name := range found {
		base := filepath.Base(name)
		if base != trust.DocumentName && !strings.HasPrefix(base, trust.DocumentName+".sig.") {
			continue
		}
		if out[base], err = os.ReadFile(name); err != nil {
			return nil, err
		}
	}
	if len(out) > 0 && out[trust.DocumentName] == nil {
		return nil, errors.New("trust/ has signatures and no trust.json; remove them or bring it back")
	}
	return out, nil
}
