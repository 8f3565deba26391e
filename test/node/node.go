// Package node is a node without its machine: a folder with all that a real
// `xnode --root FOLDER` reads, and the real applier over a machine that obeys.
//
// A switch here moves a link, probes are green, the dead man sleeps; what the
// applier decides, verifies and writes is the real thing. It is for measuring
// the follower and for testing the commands on the machine of whoever develops;
// what a machine does is tested in QEMU.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/agent/apply"
	"xnodeos.org/agent/history"
	"xnodeos.org/agent/journal"
	"xnodeos.org/agent/links"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/trust"
)

// Booted is the system that a node was booted with.
const Booted = testkit.ToySystem

// Options say what a node is like.
type Options struct {
	// Root is the folder for it; short, since sockets lie in it.
	Root string
	// Config is a node config, which is copied: trust, agent.toml, class.
	Config string
	// Owner is the name of the record that is followed, Class the node's.
	Owner, Class string
	// Fails says of a system why its switch fails; "" where it does not. May be
	// nil: then none fails.
	Fails func(system string) string
	// Log may be nil.
	Log *slog.Logger
}

// Node is a node whose applier answers.
type Node struct {
	opt   Options
	trust *trust.State
	end   context.CancelFunc
	done  chan error
}

// Start makes the folder and starts the applier. Both halves of the agent find
// everything below Root; the follower is the caller's to start.
func Start(ctx context.Context, opt Options) (*Node, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	n := &Node{opt: opt, done: make(chan error, 1)}
	if err := n.fill(); err != nil {
		return nil, fmt.Errorf("make a node: %w", err)
	}
	ctx, n.end = context.WithCancel(ctx)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: n.path("run/xnode/apply.sock"), Net: "unix"})
	if err != nil {
		n.end()
		return nil, fmt.Errorf("make a node: %w", err)
	}
	go func() { n.done <- errors.Join(n.serve(ctx, l), l.Close()) }()
	return n, nil
}

// Close ends the applier.
func (n *Node) Close() error {
	n.end()
	return <-n.done
}

func (n *Node) path(name string) string { return filepath.Join(n.opt.Root, name) }

// fill writes what the first stage and the system would.
func (n *Node) fill() error {
	if err := testkit.WriteToyStore(n.opt.Root); err != nil {
		return err
	}
	for _, dir := range []string{"run/xnode/agent", "run/xnode/node", "var/lib/xnode/applier", "var/lib/xnode/follower", "etc/xnode", "proc/sys/kernel/random"} {
		if err := os.MkdirAll(n.path(dir), 0o755); err != nil {
			return err
		}
	}
	if n.opt.Config != "" {
		if err := os.CopyFS(n.path("run/xnode/node"), os.DirFS(n.opt.Config)); err != nil {
			return err
		}
	}
	for _, name := range []string{"run/booted-system", "run/current-system"} {
		if err := os.Symlink(Booted, n.path(name)); err != nil {
			return err
		}
	}
	boot := []byte("00000000-0000-4000-8000-000000000001\n")
	if err := os.WriteFile(n.path("proc/sys/kernel/random/boot_id"), boot, 0o644); err != nil {
		return err
	}
	var err error
	n.trust, err = n.embedded()
	return err
}

// embedded is the node config's trust; nil without one.
func (n *Node) embedded() (*trust.State, error) {
	data, err := os.ReadFile(n.path("run/xnode/node/trust/allowed_signers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	signers, err := trust.Parse(data)
	if err != nil {
		return nil, err
	}
	keys, err := os.ReadFile(n.path("run/xnode/node/nix-keys"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return trust.Embedded(signers, strings.Fields(string(keys))), nil
}

// serve is systemd: the applier starts again whenever it has handed over.
func (n *Node) serve(ctx context.Context, l *net.UnixListener) error {
	l.SetUnlinkOnClose(true)
	for ctx.Err() == nil {
		one, handOver := context.WithCancel(ctx)
		applier, err := n.applier(handOver)
		if err == nil {
			err = applier.Start(one)
		}
		if err == nil {
			server := &apply.Server{Applier: applier, Follower: uint32(os.Getuid()), Idle: time.Hour, Patience: 10 * time.Second}
			err = server.Serve(one, l)
			applier.Wait()
		}
		handOver()
		if err == nil {
			err = l.SetDeadline(time.Time{})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (n *Node) applier(handOver func()) (*apply.Applier, error) {
	generations, err := links.Open(n.path(links.ProfileDir), n.path(links.RootsDir))
	if err != nil {
		return nil, err
	}
	state := n.path("var/lib/xnode/applier")
	rules := agent.Rules{Limits: agent.DefaultLimits(), Now: time.Now}
	rules.Limits.Stable = 0
	return apply.New(apply.Options{
		Journal: &history.Keeper{
			Journal: journal.Open(state), Path: filepath.Join(state, "history.jsonl"), Now: time.Now,
			Report: func(err error) { n.opt.Log.Warn("history", "error", err) },
		},
		Memory: journal.OpenMemory(state), Releases: journal.OpenReleases(state), Links: generations,
		Machine: machine{n}, Switcher: machine{n}, DeadMan: sleeper{}, Services: units{handOver}, Prober: green{},
		Store: full{}, Power: units{handOver},
		Rules: rules, Node: agent.Node{Owner: n.opt.Owner, Class: n.opt.Class, Arch: "x86_64-linux"}, Embedded: n.trust,
		Clock:   func() announce.Clock { return announce.Clock{Now: time.Now(), Synchronised: true} },
		Durable: true, SwitchTimeout: time.Minute, ProbeTimeout: time.Minute, Grace: time.Minute, Log: n.opt.Log,
	}), nil
}

// WriteSettings adds lines to the node's agent.toml.
func (n *Node) WriteSettings(lines string) error {
	f, err := os.OpenFile(n.path("etc/xnode/agent.toml"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = io.WriteString(f, lines)
	return errors.Join(err, f.Close())
}

// Root is the folder for --root.
func (n *Node) Root() string { return n.opt.Root }

// FollowerEnv is the environment that the follower's unit gives it.
func (n *Node) FollowerEnv() []string { return nil }
