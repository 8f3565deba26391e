// Command agentunits runs on a booted system and puts the adapters agent/units,
// agent/activate and agent/probe to work against the real systemd. It prints
// one line of JSON per step, what came out; the test on the host judges it. The
// system carries it in the agent's place: as such it can also follow and apply,
// as far as units have to do with it.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"xnodeos.org/agent/units"
)

// stepLimit is for one call; a small machine that emulates is slow.
const stepLimit = 15 * time.Minute

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "agentunits:", err)
		os.Exit(1)
	}
}

// guest is what the steps work with.
type guest struct {
	units *units.Manager
	out   io.Writer
	self  string // this program
}

// line is one line of output.
type line struct {
	Step  string `json:"step"`
	Got   any    `json:"got,omitempty"`
	Error string `json:"error,omitempty"`
}

// say prints the outcome of a step.
func (g *guest) say(step string, got any, err error) {
	l := line{Step: step, Got: got}
	if err != nil {
		l.Error = err.Error()
	}
	data, err := json.Marshal(l)
	if err != nil {
		data, _ = json.Marshal(line{Step: step, Error: err.Error()})
	}
	fmt.Fprintf(g.out, "%s\n", data)
}

func run(ctx context.Context, args []string, out io.Writer) error {
	switch {
	case len(args) > 0 && args[0] == "follow":
		return follow(ctx)
	case len(args) > 0 && args[0] == "apply":
		return apply()
	case len(args) > 1 && args[0] == "sleep": // what units run in these steps
		return nap(ctx, args[1:])
	case len(args) < 3:
		return fmt.Errorf("usage: agentunits follow | apply | sleep TIME [FILE] | steps SOCKET|- STEP [SYSTEMS]")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	self, err = filepath.EvalSymlinks(self)
	if err != nil {
		return err
	}
	var m *units.Manager
	if args[1] == "-" {
		m, err = units.Open(ctx)
	} else {
		m, err = units.OpenAt(ctx, args[1])
	}
	if err != nil {
		return err
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(ctx, stepLimit)
	defer cancel()
	return (&guest{m, out, self}).step(ctx, args[2], args[3:])
}

// nap sleeps, and tells a file how far it came.
func nap(ctx context.Context, args []string) error {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
	if len(args) > 1 {
		return os.WriteFile(args[1], []byte("awake\n"), 0o644)
	}
	return nil
}

func (g *guest) step(ctx context.Context, step string, args []string) error {
	switch step {
	case "services":
		g.services(ctx)
	case "alarm":
		g.alarm(ctx)
	case "manager":
		g.manager(ctx)
	case "trials", "freeze":
		if len(args) == 0 {
			return fmt.Errorf("step %s: name the file with the systems", step)
		}
		t, err := g.newTrials(ctx, args[0])
		if err != nil {
			return err
		}
		if step == "freeze" {
			t.try(ctx, "freeze", "freeze", 2*time.Minute)
			return nil
		}
		t.compare()
		t.run(ctx)
	default:
		return fmt.Errorf("no step %q", step)
	}
	return nil
}
