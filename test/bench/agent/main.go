// Command agent measures the agent and what a fleet of agents costs: each part
// beside its peer where there is one, in one run. Targets are printed beside the
// figures; missing one is no error.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"xnodeos.org/test/bench/rows"
)

func main() { os.Exit(rows.Run("agent", os.Args[1:], os.Stdout, os.Stderr, run)) }

type options struct {
	json      bool
	pairs     int
	followers int
	releases  int
	idle      time.Duration
	comin     string // a program
	child     string // the part that this process is a client of

	stderr io.Writer // what is done, for whoever waits
	self   string    // our own program, which measurements run as a client
}

// part is one measurement. Where it needs a process of its own for what is
// measured, it runs us again with -child and the part's name, which calls child
// with the arguments behind that.
type part struct {
	name    string
	measure func(ctx context.Context, opt options) ([]rows.Row, error)
	child   func(ctx context.Context, args []string, stdout io.Writer) error
}

func parts() []part {
	return []part{
		{"followers", measureFollowers, nil},
		{"substitute", measureSubstitute, substituteChild},
		{"git", measureGit, gitChild},
		{"idle", measureIdle, nil},
		{"commit", measureCommit, nil},
	}
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	opt := options{stderr: stderr}
	flags := flag.NewFlagSet("agent", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.BoolVar(&opt.json, "json", false, "print JSON rows in place of a table")
	flags.IntVar(&opt.pairs, "pairs", 5, "pairs of runs, ours and the peer's, where there is one")
	flags.IntVar(&opt.followers, "followers", 10_000, "followers: how many nodes follow one name server")
	flags.IntVar(&opt.releases, "releases", 3, "followers: how many releases they see")
	flags.DurationVar(&opt.idle, "idle", 10*time.Minute, "idle: how long the follower is watched")
	flags.StringVar(&opt.comin, "comin", "", "idle: comin's program; without it "+cominVersion+" is installed from the Go module proxy")
	flags.StringVar(&opt.child, "child", "", "only be the client of this part; measurements run themselves like this")
	flags.Usage = func() {
		fmt.Fprintf(stderr, "Usage: agent [flags] [PART...]\nParts (all of them if none is named): %s\n", strings.Join(names(), ", "))
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); err != nil {
		return err
	}
	if opt.child != "" {
		return child(ctx, opt.child, flags.Args(), stdout)
	}
	for _, name := range flags.Args() {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("there is no part %q; there are: %s", name, strings.Join(names(), ", "))
		}
	}
	if opt.followers < 1 || opt.releases < 1 || opt.pairs < 1 || opt.idle < time.Second {
		return errors.New("-followers, -releases and -pairs: want 1 or more; -idle: a second or more")
	}
	var err error
	if opt.self, err = os.Executable(); err != nil {
		return err
	}
	table, err := measure(ctx, opt, flags.Args())
	if err != nil {
		return err
	}
	if opt.json {
		return rows.WriteJSON(stdout, table)
	}
	return rows.WriteTable(stdout, table)
}

func names() []string {
	var out []string
	for _, p := range parts() {
		out = append(out, p.name)
	}
	return out
}

// measure runs the named parts, all if there is none.
func measure(ctx context.Context, opt options, chosen []string) ([]rows.Row, error) {
	var table []rows.Row
	for _, p := range parts() {
		if len(chosen) > 0 && !slices.Contains(chosen, p.name) {
			continue
		}
		got, err := p.measure(ctx, opt)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		table = append(table, got...)
	}
	return table, nil
}

func child(ctx context.Context, name string, args []string, stdout io.Writer) error {
	for _, p := range parts() {
		if p.name == name && p.child != nil {
			return p.child(ctx, args, stdout)
		}
	}
	return fmt.Errorf("-child: no part %q has a client", name)
}
