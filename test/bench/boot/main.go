// Command boot measures how long pocket takes from power-on to XNODE-READY on
// each path, beside two peers on the same kernel in the same run: an initramfs
// with one bare static program, which nothing can beat, under the same
// firmware, and a Debian with systemd and udev that boots by initramfs-tools
// from a disk. It also takes the first stage's own figures apart, compares the
// two ways to check a medium, and looks for the smallest memory with which the
// ISO and the payload over HTTP come up. "boot PART..." measures these parts
// only: paths, takeover, memory.
//
// The Debian is made by mmdebstrap once, in the cache folder. Targets are
// printed beside the figures; missing one is no error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"xnodeos.org/internal/testkit"
	"xnodeos.org/test/bench/rows"
)

func main() { os.Exit(rows.Run("boot", os.Args[1:], os.Stdout, os.Stderr, run)) }

type options struct {
	rounds int
	json   bool
	parts  []string
}

// The parts of the measurement.
const (
	partPaths    = "paths"
	partTakeover = "takeover"
	partMemory   = "memory"
)

func parts() []string { return []string{partPaths, partTakeover, partMemory} }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var opt options
	flags := flag.NewFlagSet("boot", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&opt.rounds, "rounds", 3, "rounds of one boot of each")
	flags.BoolVar(&opt.json, "json", false, "print JSON rows in place of a table")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if opt.rounds < 1 {
		return errors.New("-rounds: want 1 or more")
	}
	if opt.parts = flags.Args(); len(opt.parts) == 0 {
		opt.parts = parts()
	}
	for _, name := range opt.parts {
		if !slices.Contains(parts(), name) {
			return fmt.Errorf("there is no part %q; there are: %s", name, strings.Join(parts(), ", "))
		}
	}
	work, err := os.MkdirTemp("", "xnodeos-bench-boot-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	b, err := newBench(work, stderr)
	if err != nil {
		return err
	}
	table, err := b.measure(ctx, opt)
	if err != nil {
		return err
	}
	if opt.json {
		return rows.WriteJSON(stdout, table)
	}
	return rows.WriteTable(stdout, table)
}

type bench struct {
	root, work, cache string
	stderr            io.Writer
}

func newBench(work string, stderr io.Writer) (*bench, error) {
	root, err := testkit.Root(".")
	if err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	return &bench{root: root, work: work, cache: filepath.Join(cache, "xnodeos", "bench"), stderr: stderr}, nil
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.stderr, "bench boot: "+format+"\n", args...)
}

// measure takes the parts that are asked for.
func (b *bench) measure(ctx context.Context, opt options) ([]rows.Row, error) {
	asked := func(name string) bool { return slices.Contains(opt.parts, name) }
	var table []rows.Row
	var a *artifacts
	if asked(partPaths) || asked(partMemory) {
		var err error
		if a, err = b.artifacts(ctx); err != nil {
			return nil, err
		}
		defer a.stop()
	}
	if asked(partPaths) {
		timed, err := b.paths(ctx, a, opt.rounds)
		if err != nil {
			return nil, err
		}
		table = append(table, timed...)
	}
	if asked(partTakeover) {
		taken, err := b.takeover(ctx)
		if err != nil {
			return nil, err
		}
		table = append(table, taken...)
	}
	if !asked(partMemory) {
		return table, nil
	}
	for _, p := range a.smallest() {
		row, err := b.memory(ctx, p)
		if err != nil {
			return nil, err
		}
		table = append(table, row)
	}
	return table, nil
}

// paths boots everything once a round: each thing and what it is compared with
// see the same load.
func (b *bench) paths(ctx context.Context, a *artifacts, rounds int) ([]rows.Row, error) {
	debian, err := b.debian(ctx)
	if err != nil {
		return nil, err
	}
	bare, err := b.bare(ctx, debian.Kernel)
	if err != nil {
		return nil, err
	}
	r := newRounds(a.paths(bare, debian))
	for i := range rounds {
		b.say("round %d of %d", i+1, rounds)
		if err := r.run(ctx, b.say); err != nil {
			return nil, err
		}
	}
	return r.rows(), nil
}
