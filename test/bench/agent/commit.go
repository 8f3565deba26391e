package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/vm"
	"xnodeos.org/test/bench/rows"
	"xnodeos.org/test/site"
)

const (
	// bootLimit and releaseLimit bound what a loaded machine without KVM does.
	bootLimit    = 6 * time.Minute
	releaseLimit = 6 * time.Minute
	// settleFor is how long the probes must stay green here; it is not counted.
	settleFor = 5 * time.Second
)

// commitRound is one switch there and back, in seconds of the guest's clock.
type commitRound struct {
	whole  float64 // from `xnode poll` to COMMITTING
	probes float64 // PROBING, the settle time included
	bare   float64 // switch-to-configuration test of the same pair
	before float64 // until ARMED: record, git, paths, checks, baseline
	trying float64 // TRYING: the switch in its unit, and the start of the next applier
}

func (r commitRound) overhead() float64 { return r.whole - r.probes - r.bare }

// measureCommit has a booted node go to and fro between two systems by
// releases, and beside each does the same switch by hand, in the same guest.
func measureCommit(ctx context.Context, o options) (_ []rows.Row, err error) {
	g, err := bootGuest(ctx, o)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, g.close()) }()
	systems := []string{"pocket", "pocket:label=pocket-2,greeting=the other one"}
	// The first release is what runs, the second has to be downloaded: neither
	// counts. From the third on every path is there.
	for i := range 2 {
		if _, err := g.release(ctx, systems[i]); err != nil {
			return nil, err
		}
	}
	var whole, probes, bare, over []float64
	for i := range o.pairs {
		r, err := g.release(ctx, systems[i%2])
		if err != nil {
			return nil, err
		}
		if r.bare, err = g.bareSwitch(ctx); err != nil {
			return nil, err
		}
		fmt.Fprintf(o.stderr, "bench agent: poll to COMMITTING %.2f s: to ARMED %.2f s, TRYING %.2f s, PROBING %.2f s; bare switch %.2f s\n", r.whole, r.before, r.trying, r.probes, r.bare)
		whole, probes, bare, over = append(whole, r.whole), append(probes, r.probes), append(bare, r.bare), append(over, r.overhead())
	}
	return []rows.Row{
		rows.New("xnode poll to COMMITTING, in QEMU without KVM", rows.Median(whole), "s").Beside("switch-to-configuration test alone", rows.Median(bare)),
		rows.New("the same: probes, of which 5 s settle", rows.Median(probes), "s"),
		rows.New("the same: all but switch and probes", rows.Median(over), "s").AtMost(3),
	}, nil
}

// guest is a booted node of a fleet.
type guest struct {
	options

	work  string
	site  *site.Site
	vm    *vm.VM
	login site.Login
	last  int // release
}

func bootGuest(ctx context.Context, o options) (_ *guest, err error) {
	g := &guest{options: o}
	if g.work, err = os.MkdirTemp("", "bench-guest-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.close())
		}
	}()
	root, err := testkit.Root(".")
	if err != nil {
		return nil, err
	}
	xnodeos, err := testkit.BuildPrograms(ctx, root, filepath.Join(g.work, "programs"))
	if err != nil {
		return nil, err
	}
	if _, err := testkit.BuildAgent(ctx, root, filepath.Dir(xnodeos)); err != nil {
		return nil, err
	}
	dir := filepath.Join(g.work, "site")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	g.site, err = site.Start(ctx, site.Options{
		Dir: dir, Xnodeos: xnodeos, TTL: time.Hour, // it asks when it is told to, and not by itself
		Agent: fmt.Sprintf("\n[activate]\nswitch_timeout = \"4m\"\nprobe_timeout = \"3m\"\nsettle = %q\nstable_uptime = \"1s\"\n", settleFor),
		Log:   func(line string) { fmt.Fprintln(o.stderr, "    "+line) },
	})
	if err != nil {
		return nil, err
	}
	return g, g.boot(ctx, xnodeos)
}

// boot builds the ISO with the fleet's node config and starts it.
func (g *guest) boot(ctx context.Context, xnodeos string) error {
	key := filepath.Join(g.work, "key")
	if err := command.Run(ctx, command.Cmd{Name: "ssh-keygen", Args: []string{"-q", "-t", "ed25519", "-N", "", "-f", key}, Package: "openssh-client"}); err != nil {
		return err
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(g.site.Node, "authorized_keys"), public, 0o644); err != nil {
		return err
	}
	out := filepath.Join(g.work, "out")
	if err := command.Run(ctx, command.Cmd{Name: xnodeos, Args: []string{"image", "build", "--system", "pocket", "--format", "iso", "--node-config", g.site.Node, "--out", out}, Stderr: g.stderr}); err != nil {
		return err
	}
	isos, err := filepath.Glob(filepath.Join(out, "*.iso"))
	if err != nil || len(isos) != 1 {
		return fmt.Errorf("%d ISOs were built, want one: %w", len(isos), err)
	}
	port, err := vm.FreePort(ctx)
	if err != nil {
		return err
	}
	if g.login, err = site.LoadLogin(fmt.Sprintf("127.0.0.1:%d", port), key); err != nil {
		return err
	}
	g.vm, err = vm.Start(ctx, vm.Machine{
		Firmware: vm.BIOS, MemoryMiB: 768, Drives: []vm.Drive{{File: isos[0], As: vm.CD}},
		Nets: []vm.Net{{Kind: vm.UserNet, Forwards: []vm.Forward{{Host: port, Guest: 22}}}},
	}, vm.Options{Now: time.Now})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	_, err = g.vm.Expect(ctx, vm.Text("XNODE-READY "))
	return err
}

// release announces a system, polls, and waits until it is settled. What it
// tells is read from the journal, whose clock is the guest's.
func (g *guest) release(ctx context.Context, system string) (commitRound, error) {
	var r commitRound
	got, err := g.site.Release(ctx, system)
	if err != nil {
		return r, err
	}
	g.last = int(got.Sequence)
	ctx, cancel := context.WithTimeout(ctx, releaseLimit)
	defer cancel()
	// The first release is what runs already, it is never settled.
	done := fmt.Sprintf(" settled release=%d ", g.last)
	if g.last == 1 {
		done = fmt.Sprintf(" idle release=%d ", g.last)
	}
	begun, err := g.poll(ctx, done)
	if err != nil {
		return r, fmt.Errorf("release %d: %w", g.last, err)
	}
	if g.last == 1 {
		return r, nil
	}
	return r, g.read(ctx, begun, &r)
}

// poll has the node look now and watches it until it is done. It returns the
// guest's time of the poll. All of it is one session: another login would take
// the guest's time from what is measured.
func (g *guest) poll(ctx context.Context, done string) (begun float64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	ended := make(chan struct{})
	defer func() {
		cancel()
		_ = r.Close() // what it still has to say, nobody hears
		<-ended
	}()
	go func() {
		defer close(ended)
		err := g.login.Run(ctx, "cut -d' ' -f1 /proc/uptime; xnode poll; exec xnode watch", w)
		w.CloseWithError(errors.Join(err, io.EOF))
	}()
	lines := bufio.NewScanner(r)
	last := ""
	for lines.Scan() {
		if last = lines.Text(); begun == 0 {
			if begun, err = strconv.ParseFloat(last, 64); err != nil {
				return 0, err
			}
		}
		if strings.Contains(last, done) {
			return begun, nil
		}
	}
	return 0, fmt.Errorf("the node did not come to %q, last it said %q: %w", done, last, lines.Err())
}

// phaseLine is what the applier logs when it comes into a phase, with seconds
// since the boot, as in /proc/uptime.
var phaseLine = regexp.MustCompile(`(?m)^\[ *([0-9.]+)\] .* msg=phase .* is=([A-Z_]+) `)

func (g *guest) read(ctx context.Context, begun float64, r *commitRound) error {
	text, err := g.login.Output(ctx, "journalctl -q --no-pager -b -o short-monotonic -u xnode-apply")
	if err != nil {
		return err
	}
	at := map[string]float64{}
	for _, m := range phaseLine.FindAllStringSubmatch(text, -1) {
		when, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			return err
		}
		if when >= begun {
			at[m[2]] = when
		}
	}
	if at["PROBING"] == 0 || at["PASSED"] == 0 || at["COMMITTING"] == 0 {
		return fmt.Errorf("the journal of release %d lacks a phase:\n%s", g.last, text)
	}
	r.whole, r.probes = at["COMMITTING"]-begun, at["PASSED"]-at["PROBING"]
	r.before, r.trying = at["ARMED"]-begun, at["PROBING"]-at["TRYING"]
	return nil
}

// bareSwitch does what the release did, without the agent: back to the system
// before, and, measured, to this one again.
func (g *guest) bareSwitch(ctx context.Context) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, releaseLimit)
	defer cancel()
	text, err := g.login.Output(ctx, `set -e
new=$(readlink -f /run/current-system)
old=
for one in /nix/var/nix/gcroots/xnode/*; do
	at=$(readlink -f "$one"); if [ "$at" != "$new" ]; then old=$at; fi
done
"$old/bin/switch-to-configuration" test >/dev/null 2>&1
a=$(cut -d" " -f1 /proc/uptime)
"$new/bin/switch-to-configuration" test >/dev/null 2>&1
b=$(cut -d" " -f1 /proc/uptime)
echo "$a $b $old $new"`)
	if err != nil {
		return 0, fmt.Errorf("switch by hand: %w", err)
	}
	var a, b float64
	var from, to string
	if _, err := fmt.Sscan(text, &a, &b, &from, &to); err != nil || from == to {
		return 0, fmt.Errorf("switch by hand: it says %q", text)
	}
	return b - a, nil
}

func (g *guest) close() error {
	if g.vm != nil {
		g.vm.Stop()
	}
	var err error
	if g.site != nil {
		err = g.site.Close()
	}
	return errors.Join(err, os.RemoveAll(g.work))
}
