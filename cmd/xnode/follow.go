package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"xnodeos.org/agent"
	"xnodeos.org/agent/activate"
	"xnodeos.org/agent/apply/client"
	"xnodeos.org/agent/follow"
	"xnodeos.org/agent/follower"
	"xnodeos.org/agent/history"
	"xnodeos.org/agent/journal"
	"xnodeos.org/agent/repo"
	"xnodeos.org/agent/statusapi"
	"xnodeos.org/agent/units"
	"xnodeos.org/internal/agentconfig"
	"xnodeos.org/internal/nix/cache"
)

func newFollowCommand(at *layout) *cobra.Command {
	return &cobra.Command{
		Use:   "follow",
		Short: "Run the agent's unprivileged half (systemd does)",
		Long: `Asks for the announcement, fetches what it names, and asks the applier to try it.
Runs until it is ended; started by xnode-follow.service as user xnode.

Exit codes: 0 ended, 1 it cannot work (the message says why), 2 wrong usage.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{ReplaceAttr: withoutTime}))
			return runFollower(cmd.Context(), *at, log.With("component", "follower"))
		},
	}
}

// withoutTime leaves the time to the journal, which has a better one.
func withoutTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

const (
	// memoryLimit has Go collect more often rather than take more: a release is
	// fetched on nodes that have little to spare.
	memoryLimit = 40 << 20
	// gcPercent trades a little work for a heap that is half the default's:
	// what is idle for weeks should be small, and has the time.
	gcPercent = 50
)

// runFollower wires the follower and runs it with its listeners until ctx ends.
func runFollower(ctx context.Context, at layout, log *slog.Logger) error {
	debug.SetMemoryLimit(memoryLimit)
	debug.SetGCPercent(gcPercent)
	settings, err := at.settings()
	if err != nil {
		return fmt.Errorf("read settings: %w", err)
	}
	schedule := &follow.Schedule{
		Floor: time.Duration(settings.DNS.Floor), Ceiling: time.Duration(settings.DNS.Backoff), Random: rand.Float64,
	}
	node, options, err := assemble(at, settings, schedule, log)
	if err != nil {
		return err
	}
	api := &commands{}
	server := statusapi.New(statusapi.Options{Commands: api, Log: log, Program: node.Label})
	notify := units.Notifier{Socket: os.Getenv("NOTIFY_SOCKET")}
	options.Show = presenter(ctx, at, node, settings.Name, server, notify)
	f := follower.New(options)
	api.follower, schedule.Planned = f, f.Planned

	socket, err := listenSocket(ctx, at.run("agent/status.sock"))
	if err != nil {
		return err
	}
	run, ctx := errgroup.WithContext(ctx)
	run.Go(func() error { return server.ServeSocket(ctx, socket) })
	if settings.Status.Listen != "" {
		page, err := (&net.ListenConfig{}).Listen(ctx, "tcp", settings.Status.Listen)
		if err != nil {
			// The page is not worth a node that follows nothing.
			log.Error("the status page is not served; choose another [status] listen in agent.toml", "error", err)
		} else {
			run.Go(func() error { return server.ServePage(ctx, page) })
		}
	}
	run.Go(func() error { return f.Run(ctx) })
	run.Go(func() error { return feedWatchdog(ctx, notify, f.Alive, log) })
	if err := notify.Ready(ctx, "following "+settings.Name); err != nil {
		log.Warn("systemd is not told", "error", err)
	}
	if settings.Name == "" {
		log.Warn("agent.toml names no record (name = \"...\"); nothing is followed")
	}
	err = run.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// assemble makes the follower's options out of what lies on this node.
func assemble(at layout, settings agentconfig.Config, schedule follower.Schedule, log *slog.Logger) (statusapi.Node, follower.Options, error) {
	var node statusapi.Node
	var o follower.Options
	was, err := at.booted()
	if err != nil {
		return node, o, err
	}
	key, err := at.nodeKey()
	if err != nil {
		return node, o, err
	}
	system, err := activate.Booted(at.root)
	if err != nil {
		return node, o, err
	}
	if system == "" {
		return node, o, fmt.Errorf("%s is missing: no system was booted here, so there is none to replace", at.path("run/booted-system"))
	}
	medium, err := activate.Medium(at.root, system)
	if err != nil {
		return node, o, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		return node, o, fmt.Errorf("read hostname: %w", err)
	}
	node = statusapi.Node{Hostname: hostname, Key: key, Class: at.class(settings.Class), Medium: medium, Storage: "ram", Label: was.Label}
	if at.durable() {
		node.Storage = "disk"
	}
	git, err := repo.Open(repo.Options{
		Dir: at.state("follower/repo"), Remotes: settings.Git.Remotes, SSHKey: settings.Git.SSHKey, KnownHosts: settings.Git.KnownHosts,
		Limits: repo.Limits{Bytes: settings.Git.MaxBytes, Objects: settings.Git.MaxObjects, Time: time.Duration(settings.Git.Timeout)}, Log: log,
	})
	if err != nil {
		return node, o, err
	}
	o = follower.Options{
		Name: settings.Name, Class: node.Class, Arch: arch, Medium: agent.Medium(medium), NodeKey: key,
		Caches: settings.Cache.URLs,
		Asker:  asker{settings.DNS, at.path("etc/resolv.conf")}, Repository: repository{git},
		Store: &store{
			at: at, socket: at.path("nix/var/nix/daemon-socket/socket"), parallel: settings.Cache.Parallel,
			keep: medium == string(agent.MediumLive) && node.Storage == "disk", log: log, start: time.Now(),
			http: cache.NewClient(cache.ClientOptions{Now: func() time.Time { return at.clock().Time() }}),
		},
		Applier: client.New(at.run("apply.sock")),
		Changed: at.applierChanged, Kept: at.kept, Trust: at.trust, Clock: at.clock,
		Schedule: schedule, GitInterval: time.Duration(settings.Git.Interval), Log: log,
	}
	return node, o, nil
}

// arch is Nix's name for what this program was built for.
const arch = "x86_64-linux"

// commands are what the socket may ask of the follower.
type commands struct{ follower *follower.Follower }

func (c *commands) Poll(context.Context) error {
	c.follower.Poll()
	return nil
}

func (c *commands) Reread(ctx context.Context) (statusapi.Reread, error) {
	got, err := c.follower.Reread(ctx)
	return statusapi.Reread{Texts: got.Texts, Source: got.From}, err
}

// presenter returns what shows a view: to the server, to systemd, and on the
// line that greets who logs in.
func presenter(ctx context.Context, at layout, node statusapi.Node, name string, server *statusapi.Server, notify units.Notifier) func(follower.View) {
	var mu sync.Mutex
	last := ""
	worked := false
	past := chronicle{at: at}
	return func(v follower.View) {
		mu.Lock()
		defer mu.Unlock()
		// What a release took is given back when it is dealt with: the next one
		// may be weeks away.
		works := v.Follow.Phase != agent.FollowIdle && v.Follow.Phase != agent.FollowHeld
		if worked && !works {
			go debug.FreeOSMemory()
		}
		worked = works
		status := picture(v, node, name, time.Now(), past.newest())
		if current, err := activate.Current(at.root); err == nil {
			status.Systems.Current = current
		}
		server.Set(status)
		if line := status.Oneline(); line != last {
			last = line
			// Nobody listens outside systemd, and one that is frozen must not hold
			// up who follows.
			brief, cancel := context.WithTimeout(ctx, notifyLimit)
			_ = notify.Status(brief, line)
			cancel()
			_ = os.WriteFile(at.run("agent/motd"), []byte("xnode: "+line+"\n"), 0o644)
		}
	}
}

// listenSocket listens at a path that may be left from before. A socket that
// somebody answers on is another follower.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	dialer := net.Dialer{Timeout: time.Second}
	if conn, err := dialer.DialContext(ctx, "unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("%s is in use: another follower runs; see: systemctl status xnode-follow", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old socket: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		return nil, errors.Join(fmt.Errorf("listen: %w", err), l.Close())
	}
	return l, nil
}

// applierChanged tells the applier's files apart from what they were.
func (l layout) applierChanged() string {
	var b strings.Builder
	for _, name := range []string{"journal.a", "journal.b", "accepted.json", "quarantine.json", "trust.json"} {
		var info unix.Stat_t
		if unix.Stat(l.state("applier", name), &info) == nil {
			// Each is a new file: a clock's tick may see two of them.
			fmt.Fprintf(&b, "%s %d %d.%d %d;", name, info.Ino, info.Mtim.Sec, info.Mtim.Nsec, info.Size)
		}
	}
	return b.String()
}

// kept reads what the applier kept of a system for after a boot: what proved it
// before it was tried, or else what was last-good, which the power may have
// failed to make the same.
func (l layout) kept(system string) (follower.Kept, error) {
	releases := journal.OpenReleases(l.state("applier"))
	in, err := releases.Kept(system)
	if err != nil {
		in, _, err = releases.LastGood()
	}
	return follower.Kept{Record: in.Record, Release: in.Release, Nodes: in.Nodes}, err
}

// historyFile lies with the applier's state.
const historyFile = "applier/history.jsonl"

// history reads what the applier wrote, the newest first.
func (l layout) history() ([]statusapi.Event, error) {
	events, err := history.Read(l.state(historyFile))
	if err != nil {
		return nil, err
	}
	out := make([]statusapi.Event, 0, len(events))
	for _, e := range events {
		out = append(out, statusapi.Event{Time: time.Unix(e.Time, 0).UTC(), Sequence: e.Sequence, System: e.System, Event: e.Event, Detail: e.Detail})
	}
	return out, nil
}
