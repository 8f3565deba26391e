// Package apply is the applier: the root half of the agent. It is the only one
// that changes the machine, and changes it only as package agent decides.
//
// It serves one request per connection on a unix socket, whose peer the kernel
// names, and checks everything again that the follower claims. Each decision is
// journalled before it is carried out; the process may end at any moment and
// the next one goes on from the journal. Applier and dead man hold one lock:
// there is never more than one that acts.
//
// What it does to the machine goes through the interfaces below, which adapters
// implement; no adapter is known here.
package apply

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/trust"
)

// Journal keeps the State. Load returns the zero State if none was ever
// written; any error means that what was going on is not known. Store is
// durable when it returns.
type Journal interface {
	Load() (agent.State, error)
	Store(agent.State) error
}

// Memory keeps what outlives transactions. What is raised is never lowered,
// whoever asks.
type Memory interface {
	Accepted() (agent.Accepted, error)
	RaiseAccepted(agent.Accepted) error
	Quarantine() ([]agent.Verdict, error)
	AddVerdict(agent.Verdict) error
	ClearVerdict(system string) (bool, error)
	TimeFloor() (int64, error)
	RaiseTimeFloor(int64) error
	Trust() ([]trust.Bundle, error)
	SetTrust([]trust.Bundle) error
}

// Releases keeps what proves a target, for a boot after which it is applied
// again. SetLastGood of a system that nothing was kept of does nothing.
type Releases interface {
	Keep(system string, in agent.Announcement, closure string) error
	Kept(system string) (agent.Announcement, error)
	SetLastGood(system string) error
	Prune(systems ...string) error
}

// Links are the system profile and the roots that guard against GC.
type Links interface {
	Profile() (string, error)
	SetProfile(system string) error
	Root(agent.Root) (string, error)
	SetRoot(name agent.Root, system string) error // "" removes it
}

// Machine says what runs. World leaves out mark, entries, loader and
// quarantine.
type Machine interface {
	World(context.Context) (agent.World, error)
	// Need says which arm brings the candidate to the machine as booted.
	Need(ctx context.Context, booted, candidate string) (agent.Arm, error)
	Uptime() time.Duration
}

// Switcher runs switch-to-configuration outside of this process. Switch starts
// it or joins one that runs or ended for the same system. After Done its
// outcome is forgotten; Stop kills one that hangs.
type Switcher interface {
	Switch(ctx context.Context, system string, limit time.Duration) (agent.SwitchResult, string, error)
	Done(context.Context) error
	Stop(context.Context) error
}

// DeadMan reverts by the program of the old generation, unless disarmed in time.
type DeadMan interface {
	Arm(ctx context.Context, old string, after time.Duration) error
	Disarm(context.Context) error
}

// Services are the agent's own units. HandOver asks for a start of the
// applier's unit, as it is now, and does not wait.
type Services interface {
	HandOver(context.Context) error
	StopApplier(context.Context) error
}

// Exam is what a system must pass. With Old, its probes count as well.
type Exam struct {
	System, Old string
	Baseline    agent.Baseline
	Settle      time.Duration
	Timeout     time.Duration
	Seen        func(agent.Report)
}

// Prober judges a system that runs.
type Prober interface {
	Baseline(ctx context.Context, old, candidate string) (agent.Baseline, error)
	Probe(context.Context, Exam) (agent.Report, error)
}

// Store is the Nix store. Check fails unless every path of the closure with
// this digest is valid; an empty digest asks for validity alone. Room fails if
// there is too little space for a switch.
type Store interface {
	Check(ctx context.Context, system, closure string) error
	Room(context.Context) error
	Sync(context.Context) error
}

// Loader writes boot entries that are tried once. Stage removes an old mark,
// then writes the one-shot entry, then the mark, so that a cut between them is
// never read as a failed try. Bless moves the default in one step.
type Loader interface {
	Usable(context.Context) error
	Pending(context.Context) (Entries, error)
	Stage(ctx context.Context, system string) error
	Unstage(context.Context) error
	Bless(ctx context.Context, system string) error
}

// Entries name systems; "" where there is none.
type Entries struct{ Mark, OneShot, Default string }

// Power restarts the machine.
type Power interface {
	Reboot(ctx context.Context, why string) error
}

// Options are everything that an applier works with. Loader may be nil: then no
// entry can be tried once.
type Options struct {
	Journal  Journal
	Memory   Memory
	Releases Releases
	Links    Links
	Machine  Machine
	Switcher Switcher
	DeadMan  DeadMan
	Services Services
	Prober   Prober
	Store    Store
	Loader   Loader
	Power    Power

	Rules agent.Rules
	Node  agent.Node
	// Embedded is the trust that the node was started with.
	Embedded *trust.State
	// MinSequence is the payload manifest's, the floor of a node without state.
	MinSequence uint32
	// Clock is the machine's; the persisted floor is added.
	Clock func() announce.Clock
	// Durable says that the journal outlives a reboot.
	Durable bool

	SwitchTimeout time.Duration
	ProbeTimeout  time.Duration
	Settle        time.Duration
	// Grace is how long systemd may take to end this process after a hand-over
	// or a reboot was asked for, and what the dead man waits beyond the trial.
	Grace time.Duration

	Log *slog.Logger
}

// Applier is one run of the applier. Its methods may be called at once from
// several goroutines.
type Applier struct {
	opt Options

	asking   sync.Mutex // one request that may change something at a time
	deciding sync.Mutex // from reading the state to having journalled the next
	busy     sync.WaitGroup

	mu      sync.Mutex // guards what follows
	state   agent.State
	working bool
	report  *agent.Report
	problem string
	due     time.Time // of the dead man
	quiet   chan struct{}
}

// New returns an applier that knows nothing yet: Start reads the journal.
func New(opt Options) *Applier { return &Applier{opt: opt, quiet: make(chan struct{}, 1)} }

// Start recovers from the journal and begins what is to be done next. The
// caller holds the lock.
func (a *Applier) Start(ctx context.Context) error {
	world, err := a.world(ctx)
	if err != nil {
		return err
	}
	state := a.load(world)
	next, effects, row := a.opt.Rules.RecoverRow(state, world)
	a.opt.Log.Info("recovered", "row", row, "was", state.Phase, "is", next.Phase)
	a.set(state)
	if err := a.store(next); err != nil && !wayBack(next.Phase) {
		return err
	}
	a.work(ctx, effects)
	return nil
}

// load reads the journal. Where it is damaged, or is gone while the roots show
// that there was one, the answer is SAFE.
func (a *Applier) load(world agent.World) agent.State {
	state, err := a.opt.Journal.Load()
	if err == nil && state.Phase != "" {
		return state
	}
	roots := map[agent.Root]string{}
	for _, name := range []agent.Root{agent.RootLastGoodLive, agent.RootLastGoodBoot} {
		if system, rootErr := a.opt.Links.Root(name); rootErr == nil {
			roots[name] = system
		}
	}
	old := roots[agent.RootLastGoodLive]
	if err == nil && (old == "" || old == world.Current) {
		return state
	}
	if err == nil {
		err = errors.New("there is no journal, but a root of last-good")
	}
	a.opt.Log.Error("the journal is lost; nothing is activated", "err", err)
	accepted, _ := a.opt.Memory.Accepted() // without it any release may leave SAFE
	return a.opt.Rules.Lost(world, roots, accepted.Sequence, err)
}

// Wait waits until nothing is under way.
func (a *Applier) Wait() { a.busy.Wait() }

// State is what is journalled now.
func (a *Applier) State() agent.State {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.state
}

func (a *Applier) set(s agent.State) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state = s
}
