package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"xnodeos.org/agent"
	"xnodeos.org/agent/activate"
	"xnodeos.org/agent/apply"
	"xnodeos.org/agent/history"
	"xnodeos.org/agent/journal"
	"xnodeos.org/agent/links"
	"xnodeos.org/agent/units"
	"xnodeos.org/internal/agentconfig"
)

const (
	// idle is how long the applier stays when nobody asks for anything.
	idle = 10 * time.Second
	// grace is how long systemd may take to end the applier, and what the dead
	// man waits beyond a trial.
	grace = 30 * time.Second
	// patience bounds how long a peer of the socket may take.
	patience = 10 * time.Second
	// followerUser is the user of the unprivileged half.
	followerUser = "xnode"
)

func newApplyCommand(at *layout) *cobra.Command {
	var dead bool
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Run the agent's root half (systemd does)",
		Long: `Goes on with what the journal says, answers the follower on the socket that
systemd hands over, and ends when nothing is left to do. Started at boot and by
xnode-apply.socket.

With --dead-man it is the last resort of a trial: unless the trial was proven it
stops applier and switch and goes back to the generation that it belongs to.

Exit codes: 0 nothing is left to do, 1 it cannot work (the message says why),
2 wrong usage.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{ReplaceAttr: withoutTime}))
			return runApplier(cmd.Context(), *at, log.With("component", "applier"), dead)
		},
	}
	cmd.Flags().BoolVar(&dead, "dead-man", false, "go back unless the trial was proven")
	return cmd
}

func runApplier(ctx context.Context, at layout, log *slog.Logger, dead bool) error {
	unix.Umask(0o022) // the follower reads what is written, also where root started this by hand
	settings, err := at.settings()
	if err != nil {
		if !dead {
			return fmt.Errorf("read settings: %w", err)
		}
		// The way back must not depend on the candidate's settings.
		log.Error("settings cannot be read; the defaults count", "error", err)
		settings = agentconfig.Default()
	}
	manager, err := at.systemd(ctx)
	if err != nil {
		return err
	}
	defer manager.Close()
	who, err := at.identity()
	if err != nil {
		if !dead {
			return err
		}
		log.Error("this node does not know itself; the way back needs no name", "error", err)
	}
	applier, err := newApplier(at, settings, who, manager, log)
	if err != nil {
		return err
	}
	lock := func(ctx context.Context, limit time.Duration) (*os.File, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return apply.TakeLock(ctx, at.run("apply.lock"))
	}
	if dead {
		return applier.DeadMan(ctx, func(ctx context.Context) (func(), error) {
			file, err := insist(ctx, services{manager}.StopApplier, func(ctx context.Context) (*os.File, error) { return lock(ctx, grace/3) })
			return func() { _ = file.Close() }, err
		})
	}
	held, err := lock(ctx, 2*grace)
	if err != nil {
		return err
	}
	defer func() { _ = held.Close() }() // gives the lock back
	if err := applier.Start(ctx); err != nil {
		return err
	}
	return serveApplier(ctx, applier, log)
}

// systemd connects to that of the node. Below another root that is never the one
// of the machine on which somebody looks at a node's files.
func (l layout) systemd(ctx context.Context) (*units.Manager, error) {
	if filepath.Clean(l.root) == "/" {
		return units.Open(ctx)
	}
	return units.OpenAt(ctx, l.path(units.PrivateSocket), l.path(units.SystemBus))
}

// insistences is how often the dead man stops an applier that is in his way.
const insistences = 12

// insist takes the lock from appliers that hold it: one that hangs was stopped,
// but its socket starts another as soon as the follower asks, and that one may
// hang as well.
func insist(ctx context.Context, stop func(context.Context) error, take func(context.Context) (*os.File, error)) (*os.File, error) {
	for i := 1; ; i++ {
		file, err := take(ctx)
		if err == nil || ctx.Err() != nil || i == insistences {
			return file, err
		}
		if err := stop(ctx); err != nil {
			return nil, fmt.Errorf("stop who holds the lock: %w", err)
		}
	}
}

// serveApplier answers on systemd's socket until nothing is left to do. Started
// by hand there is no socket, and the work of the journal is all.
func serveApplier(ctx context.Context, applier *apply.Applier, log *slog.Logger) error {
	listeners, err := activation.Listeners()
	if err != nil {
		return fmt.Errorf("take systemd's socket: %w", err)
	}
	if len(listeners) == 0 || listeners[0] == nil {
		log.Info("no socket; only what the journal says is done")
		applier.Wait()
		return nil
	}
	socket, ok := listeners[0].(*net.UnixListener)
	if !ok {
		return errors.New("take systemd's socket: it is no unix socket; see xnode-apply.socket")
	}
	socket.SetUnlinkOnClose(false) // it is systemd's
	uid, err := followerID()
	if err != nil {
		return err
	}
	server := &apply.Server{Applier: applier, Follower: uid, Idle: idle, Patience: patience}
	err = server.Serve(ctx, socket)
	applier.Wait()
	return err
}

// followerID is the user id of the unprivileged half.
func followerID() (uint32, error) {
	who, err := user.Lookup(followerUser)
	if err != nil {
		return 0, fmt.Errorf("who is the follower: %w; the system must have this user", err)
	}
	id, err := strconv.ParseUint(who.Uid, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("who is the follower: %w", err)
	}
	return uint32(id), nil
}

// newApplier puts the applier together for this machine.
func newApplier(at layout, settings agentconfig.Config, who identity, manager *units.Manager, log *slog.Logger) (*apply.Applier, error) {
	for _, folder := range []string{at.state("applier"), at.run()} {
		if err := os.MkdirAll(folder, 0o755); err != nil {
			return nil, fmt.Errorf("prepare the applier's folder: %w", err)
		}
	}
	embedded, err := at.embedded()
	if err != nil {
		log.Warn("nothing can be verified; only what runs is looked after", "error", err)
	}
	generations, err := links.Open(at.path(links.ProfileDir), at.path(links.RootsDir))
	if err != nil {
		return nil, err
	}
	rules := agent.Rules{Limits: agent.DefaultLimits(), Now: time.Now}
	rules.Limits.Stable = time.Duration(settings.Activate.StableUptime)
	database := closures{at: at, socket: at.path("nix/var/nix/daemon-socket/socket")}
	prober := &examiner{at: at, units: manager, log: log}
	var applier *apply.Applier
	baseline := func() []string { return applier.State().Baseline.FailedUnits }
	applier = apply.New(apply.Options{
		Journal: &history.Keeper{
			Journal: journal.Open(at.state("applier")), Path: at.state("applier/history.jsonl"), Now: time.Now,
			Report: func(err error) { log.Warn("history", "error", err) },
		},
		Memory:   journal.OpenMemory(at.state("applier")),
		Releases: journal.OpenReleases(at.state("applier")),
		Links:    generations,
		Machine:  machine{at: at, units: manager},
		Switcher: switcher{activate.Activator{Units: manager, Root: at.root}, baseline},
		DeadMan:  deadMan{manager}, Services: services{manager}, Prober: prober, Store: database, Power: power{},
		Rules: rules, Embedded: embedded, MinSequence: who.booted.Sequence, Clock: at.clock, Durable: at.durable(),
		Node:          agent.Node{Owner: settings.Name, Class: at.class(settings.Class), Arch: arch, Fingerprint: who.key},
		SwitchTimeout: time.Duration(settings.Activate.SwitchTimeout), ProbeTimeout: time.Duration(settings.Activate.ProbeTimeout),
		Settle: time.Duration(settings.Activate.Settle), Grace: grace, Log: log,
	})
	prober.verify = applier.VerifyRecord
	return applier, nil
}

// Check implements apply.Store: every path is valid, and together they are what
// the digest names.
func (c closures) Check(ctx context.Context, system, closure string) error {
	list, err := c.read(ctx, system)
	if err != nil {
		return fmt.Errorf("closure of %s: %w", system, err)
	}
	if have := list.Digest(); closure != "" && have != closure {
		return fmt.Errorf("closure of %s: the store has %s, the release names %s", system, have, closure)
	}
	return nil
}

// roomForSwitch is what a switch may write to the store's file system.
const roomForSwitch = 32 << 20

// Room implements apply.Store.
func (c closures) Room(context.Context) error {
	free, err := c.at.roomInStore()
	if err != nil {
		return err
	}
	if free < roomForSwitch {
		return fmt.Errorf("the store's file system has %d MB left; a switch needs %d MB", free>>20, roomForSwitch>>20)
	}
	return nil
}
