// Package follower is the unprivileged half of the agent: it asks for the
// announcement, fetches what it names, brings the system's paths into the store
// and asks the applier to try it.
//
// It meets DNS, git, caches and the applier through the interfaces below, and
// may be wrong about anything: the applier checks the record, the release and
// the paths again with its own eyes. What the follower finds is never believed
// before it is verified, and a fault of any carrier is no news, never a way
// back. It keeps nothing on disk; after a restart it finds everything again.
package follower

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/release"
	"xnodeos.org/internal/trust"
)

// Answer is what one carrier brought.
type Answer struct {
	Texts []string // candidates for the record
	TTL   time.Duration
	From  string
}

// Asker asks DNS for the texts at a name. An answer that good refuses is passed
// over for the next server's. The error says what each server did.
type Asker interface {
	Lookup(ctx context.Context, name string, good func(Answer) error) (Answer, error)
}

// Files are what one commit of the config repository holds for nodes.
type Files struct {
	Release []byte
	Nodes   []byte // nil if there is none
	From    string // remote
}

// Announced is what branch "announce" of one remote holds.
type Announced struct {
	Record string // text of the owner's record, "" if there is none
	Trust  *agent.TrustFile
	From   string
}

// Repository fetches from the config repository. Fetch returns only what the
// announced commit holds. Announced asks every remote: a stale one must not hide
// what another has, so there may be results beside an error.
type Repository interface {
	Fetch(ctx context.Context, record *announce.Record) (Files, error)
	Announced(ctx context.Context, owner string) ([]Announced, error)
}

// Transfer is how far a download is.
type Transfer struct {
	Paths, PathsDone int
	Bytes, BytesDone int64
}

// Store brings every path of a closure into the Nix store, or fails. What it
// brought is held against the garbage collector until Release: by then the
// applier has roots of its own, or does not want it.
type Store interface {
	Realise(ctx context.Context, target agent.Target, caches []string, progress func(Transfer)) error
	Release()
}

// Applier is the root half. The error is an *agent.Refusal where it says no.
type Applier interface {
	Do(ctx context.Context, request agent.Request) (agent.Status, error)
}

// Kept is what the applier kept of a release that is to be applied again after
// a boot.
type Kept struct {
	Record         string
	Release, Nodes []byte
}

// Options are what a Follower works with. All of it is needed.
type Options struct {
	Name    string // owner name of the record
	Class   string // of this node, unless the release lists its key
	Arch    string // Nix's word, "x86_64-linux"
	Medium  agent.Medium
	NodeKey string   // fingerprint, "SHA256:..."
	Caches  []string // tried before those of the release

	Asker      Asker
	Repository Repository
	Store      Store
	Applier    Applier
	// Changed returns a text that differs when the applier's files did.
	Changed func() string
	// Kept reads what the applier kept of a system.
	Kept func(system string) (Kept, error)
	// Trust reads the trust that counts now.
	Trust func() (*trust.State, error)
	Clock func() announce.Clock

	Schedule Schedule
	// GitInterval is how often branch "announce" is read.
	GitInterval time.Duration
	// Show gets every change, one after the other. It must not call back.
	Show func(View)
	Log  *slog.Logger
}

// Schedule calls look at once and then by its own rules, until ctx ends; a
// value on poll makes it look at once.
type Schedule interface {
	Run(ctx context.Context, poll <-chan struct{}, look func(context.Context) (time.Duration, error)) error
}

// View is the follower's picture of itself and of the applier.
type View struct {
	Follow   agent.FollowState
	Applier  agent.Status
	Record   *announce.Record // newest that verified; nil before the first
	Signer   string
	Source   string
	Transfer *Transfer
	LastPoll time.Time
	NextPoll time.Time
	PollErr  string
	Counts   Counts
	// Problem is why the applier or the trust cannot be asked.
	Problem string
	// Alarm tells of two signed records that contradict each other, until a
	// newer one comes.
	Alarm string

	sighted time.Time // when Record came, by this machine's clock
}

// Counts are totals since the start.
type Counts struct {
	Polls, PollFaults, Fetches, FetchFaults, Tries, Rollbacks, BytesFetched uint64
}

// Follower is one running follower.
type Follower struct {
	opt  Options
	poll chan struct{}
	news chan struct{} // a newer record, or something to look at again
	// tried has the applier looked at more often.
	tried chan struct{}

	mu    sync.Mutex
	view  View
	files map[[32]byte]Files // of the last release, by digest
	// replaced ends the worker's round when a newer record comes.
	replaced context.CancelCauseFunc
	// vain is what was asked of the applier and did not succeed.
	vain   attempt
	trying bool // the applier was asked for a trial and APPLYING does not show yet
	asks   int  // begins and ends of asking for a trial
	// seen is what Changed said before view.Applier was asked for.
	seen   string
	polled bool // somebody asked for a poll that look has not answered

	read     time.Time // when branch "announce" was read; of look alone
	failures int       // in a row, of the worker alone
}

// New returns a follower that has not started.
func New(opt Options) *Follower {
	return &Follower{
		opt:  opt,
		poll: make(chan struct{}, 1), news: make(chan struct{}, 1), tried: make(chan struct{}, 1),
		view:  View{Follow: agent.FollowState{Phase: agent.FollowIdle}},
		files: map[[32]byte]Files{},
	}
}

// Poll has the record asked for now, and what failed or is held tried again at
// once. It does not wait.
func (f *Follower) Poll() {
	f.mu.Lock()
	f.polled = true
	f.mu.Unlock()
	select {
	case f.poll <- struct{}{}:
	default: // somebody has asked already
	}
}

// Alive returns unless the follower hangs: for a watchdog.
func (f *Follower) Alive() { _ = f.now() }

// Planned shows when the record is asked for again.
func (f *Follower) Planned(wait time.Duration) {
	f.set(func(v *View) { v.NextPoll = f.opt.Clock().Now.Add(wait) })
}

// Run follows until ctx ends, and returns ctx's cause.
func (f *Follower) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { f.watchApplier(ctx) })
	wg.Go(func() { f.work(ctx) })
	if f.opt.Name != "" {
		wg.Go(func() { _ = f.opt.Schedule.Run(ctx, f.poll, f.look) }) // it ends with ctx alone
	}
	wg.Wait()
	return context.Cause(ctx)
}

// Reread asks DNS now and returns the first server's answer, unjudged. It
// changes nothing.
func (f *Follower) Reread(ctx context.Context) (Answer, error) {
	return f.opt.Asker.Lookup(ctx, f.opt.Name, func(Answer) error { return nil })
}

// set changes the view and shows it, under one lock so that nobody sees an
// older view after a newer one.
func (f *Follower) set(change func(*View)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.view)
	f.opt.Show(f.view)
}

func (f *Follower) now() View {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.view
}

// wake has the worker look again.
func (f *Follower) wake() {
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// remember keeps the files of one release only.
func (f *Follower) remember(record *announce.Record, files Files) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.files = map[[32]byte]Files{record.Digest: files}
}

func (f *Follower) remembered(record *announce.Record) (Files, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	files, ok := f.files[record.Digest]
	return files, ok
}

// target is what a release names for this node.
func (f *Follower) target(rel *release.Release, nodes *release.Nodes, published int64) (agent.Target, error) {
	class := nodes.ClassOf(f.opt.NodeKey, f.opt.Class)
	t, err := rel.For(class, f.opt.Arch)
	if err != nil {
		return agent.Target{}, err
	}
	return agent.Target{
		Sequence: rel.Seq, Published: published, System: t.System, Closure: t.Closure,
		Medium: agent.Medium(t.Medium), Barrier: string(t.Barrier),
	}, nil
}
