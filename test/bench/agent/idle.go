package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"xnodeos.org/agent/statusapi"
	"xnodeos.org/internal/command"
	"xnodeos.org/internal/nix/nar"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/test/bench/rows"
	"xnodeos.org/test/node"
	"xnodeos.org/test/site"
)

// pollEvery is how often both agents ask while they are measured.
const pollEvery = 30 * time.Second

// quiet gives a process time to come to rest before it counts as idle.
const quiet = 20 * time.Second

// measureIdle has the real follower apply a large release, which is where its
// peak is, and then lets it poll a real name server with nothing to do, beside
// comin polling a git server, for as long: what a node's follower is for weeks.
func measureIdle(ctx context.Context, o options) ([]rows.Row, error) {
	f, err := startFleet(ctx, o, "")
	if err != nil {
		return nil, err
	}
	defer f.close()
	if _, err := f.site.ReleaseFrom(ctx, f.node.Root(), node.Booted); err != nil {
		return nil, err
	}
	follower, err := f.follow(ctx)
	if err != nil {
		return nil, err
	}
	if err := f.await(ctx, func(s *statusapi.Status) bool { return s.Record != nil && s.Phase == "IDLE" }); err != nil {
		return nil, err
	}
	_, took, err := f.applyBig(ctx)
	if err != nil {
		return nil, err
	}
	peak, err := processUsage(follower.PID())
	if err != nil {
		return nil, err
	}
	processes := []*command.Process{follower}
	peer, err := startComin(ctx, o, f)
	if err != nil {
		fmt.Fprintf(o.stderr, "bench agent: comin is not measured in this run: %v\n", err)
	} else {
		processes = append(processes, peer)
	}
	fmt.Fprintf(o.stderr, "bench agent: idle for %s, a poll every 30 s\n", o.idle)
	got, err := watchIdle(ctx, processes, o.idle)
	if err != nil {
		return nil, err
	}
	return append(peakRow(peak, took), idleRows(o, got)...), nil
}

// cominBefore is comin's resident set as it was measured once, for runs in
// which comin cannot be had.
const cominBefore = 24.8e6

func idleRows(o options, got []usage) []rows.Row {
	ours := got[0]
	what := fmt.Sprintf("idle follower, %s of polls each 30 s", o.idle)
	rss := rows.New(what+": RSS", mib(ours.rss), "MiB").AtMost(20)
	cpu := rows.New(what+": CPU of a core", 100*ours.cpu.Seconds()/o.idle.Seconds(), "%").AtMost(0.1)
	anon, pss := rows.New("the same: anonymous", mib(ours.anon), "MiB"), rows.New("the same: PSS", mib(ours.pss), "MiB")
	if len(got) == 1 {
		return []rows.Row{rss.Beside("comin, another run on 20 Nov 2026", mib(cominBefore)), anon, pss, cpu}
	}
	const comin = "comin, git poll each 30 s"
	peer := got[1]
	return []rows.Row{
		rss.Beside(comin, mib(peer.rss)), anon.Beside(comin, mib(peer.anon)), pss.Beside(comin, mib(peer.pss)),
		cpu.Beside(comin, 100*peer.cpu.Seconds()/o.idle.Seconds()),
	}
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// usage is what a process took while it was watched; memory is the median of
// looks that are a second apart, and peak the kernel's high-water mark.
type usage struct {
	rss, anon, pss, peak int64 // bytes
	cpu                  time.Duration
}

func watchIdle(ctx context.Context, processes []*command.Process, length time.Duration) ([]usage, error) {
	if err := sleep(ctx, quiet); err != nil {
		return nil, err
	}
	begun := make([]time.Duration, len(processes))
	looks := make([][4][]float64, len(processes))
	for i, p := range processes {
		u, err := processUsage(p.PID())
		if err != nil {
			return nil, err
		}
		begun[i] = u.cpu
	}
	out := make([]usage, len(processes))
	for end := time.Now().Add(length); time.Now().Before(end); {
		if err := sleep(ctx, min(time.Second, length)); err != nil {
			return nil, err
		}
		for i, p := range processes {
			u, err := processUsage(p.PID())
			if err != nil {
				return nil, err
			}
			for k, v := range []int64{u.rss, u.anon, u.pss} {
				looks[i][k] = append(looks[i][k], float64(v))
			}
			out[i].cpu, out[i].peak = u.cpu-begun[i], u.peak
		}
	}
	for i := range out {
		out[i].rss, out[i].anon, out[i].pss = int64(rows.Median(looks[i][0])), int64(rows.Median(looks[i][1])), int64(rows.Median(looks[i][2]))
	}
	return out, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// processUsage reads /proc (proc_pid_status(5), proc_pid_smaps(5)).
func processUsage(pid int) (usage, error) {
	var u usage
	for file, fields := range map[string]map[string]*int64{
		"status":       {"VmRSS:": &u.rss, "RssAnon:": &u.anon, "VmHWM:": &u.peak},
		"smaps_rollup": {"Pss:": &u.pss},
	} {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
		if err != nil {
			return u, err
		}
		for line := range strings.Lines(string(data)) {
			words := strings.Fields(line)
			if len(words) != 3 || fields[words[0]] == nil {
				continue
			}
			if _, err := fmt.Sscan(words[1], fields[words[0]]); err != nil {
				return u, fmt.Errorf("read %s: %w", file, err)
			}
			*fields[words[0]] <<= 10
		}
	}
	// Nanoseconds that ran, of all threads: /proc/PID/stat counts in ticks of
	// 10 ms, of which an idle process may be charged none.
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return u, err
	}
	for _, task := range tasks {
		data, err := os.ReadFile(task)
		if err != nil {
			return u, err
		}
		var ran int64
		if _, err := fmt.Sscan(string(data), &ran); err != nil {
			return u, fmt.Errorf("read %s: %w", task, err)
		}
		u.cpu += time.Duration(ran)
	}
	if u.rss == 0 || len(tasks) == 0 {
		return u, errors.New("the kernel does not say what the process takes")
	}
	return u, nil
}

// fleet is a site and one node that follows it on this machine.
type fleet struct {
	options

	work, bin string
	site      *site.Site
	node      *node.Node
	closers   []func() error
}

// startFleet starts everything but the follower. lines are added to the node's
// agent.toml.
func startFleet(ctx context.Context, o options, lines string) (_ *fleet, err error) {
	f := &fleet{options: o}
	if f.work, err = os.MkdirTemp("", "bench-agent-"); err != nil {
		return nil, err
	}
	f.closers = append(f.closers, func() error { return nar.RemoveTree(f.work) })
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	root, err := testkit.Root(".")
	if err != nil {
		return nil, err
	}
	xnodeos, err := testkit.BuildPrograms(ctx, root, filepath.Join(f.work, "programs"))
	if err != nil {
		return nil, err
	}
	if f.bin, err = testkit.BuildAgent(ctx, root, filepath.Join(f.work, "agent")); err != nil {
		return nil, err
	}
	dir := filepath.Join(f.work, "site")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	f.site, err = site.Start(ctx, site.Options{
		Dir: dir, Xnodeos: xnodeos, Host: "127.0.0.1", TTL: pollEvery, Agent: lines,
		Log: func(line string) { fmt.Fprintln(o.stderr, "    "+line) },
	})
	if err != nil {
		return nil, err
	}
	f.closers = append(f.closers, f.site.Close)
	f.node, err = node.Start(ctx, node.Options{Root: filepath.Join(f.work, "node"), Config: f.site.Node, Owner: site.Owner, Class: "edge"})
	if err != nil {
		return nil, err
	}
	f.closers = append(f.closers, f.node.Close)
	return f, f.serveStore(ctx)
}

func (f *fleet) client() *statusapi.Client {
	return statusapi.NewClient(filepath.Join(f.node.Root(), "run/xnode/agent/status.sock"))
}

func (f *fleet) close() {
	for i := len(f.closers) - 1; i >= 0; i-- {
		if err := f.closers[i](); err != nil {
			fmt.Fprintf(f.stderr, "bench agent: %v\n", err)
		}
	}
}

// follow starts the follower, as a process of its own.
func (f *fleet) follow(ctx context.Context) (*command.Process, error) {
	return f.start(ctx, command.Cmd{Name: f.bin, Args: []string{"follow", "--root", f.node.Root()}, AddEnv: f.node.FollowerEnv()})
}

// start starts a process that close ends.
func (f *fleet) start(ctx context.Context, cmd command.Cmd) (*command.Process, error) {
	ctx, end := context.WithCancel(ctx)
	log, err := os.Create(filepath.Join(f.work, filepath.Base(cmd.Name)+".log"))
	if err != nil {
		end()
		return nil, err
	}
	cmd.Stdout, cmd.Stderr = io.Discard, log
	p, err := command.Start(ctx, cmd)
	if err != nil {
		end()
		return nil, errors.Join(err, log.Close())
	}
	f.closers = append(f.closers, func() error {
		end()
		_ = p.Wait() // it ends by our signal
		return log.Close()
	})
	return p, nil
}

// await waits until the follower's status is as wanted.
func (f *fleet) await(ctx context.Context, good func(*statusapi.Status) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	client := f.client()
	var last *statusapi.Status
	for {
		if status, err := client.Status(ctx); err == nil {
			if last = status; good(status) {
				return nil
			}
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			log, _ := os.ReadFile(filepath.Join(f.work, "xnode.log"))
			return fmt.Errorf("the follower did not come there; its status: %+v\n%s", last, log)
		}
	}
}
