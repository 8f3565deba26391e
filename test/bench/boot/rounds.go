package main

import (
	"context"
	"errors"
	"fmt"
	"sort"

	"xnodeos.org/internal/vm"
	"xnodeos.org/test/bench/rows"
)

// ready is what every booted system of ours says.
const ready = "XNODE-READY "

// path is one way from power-on to a line on the console.
type path struct {
	name    string
	machine vm.Machine
	text    string
	peer    string // name of what it is compared with; empty: it is a peer itself
}

// rounds collects the seconds of each path.
type rounds struct {
	paths   []path
	seconds map[string][]float64
	stages  []stage // of isoBIOS
}

func newRounds(paths []path) *rounds {
	return &rounds{paths: paths, seconds: map[string][]float64{}}
}

// run boots each path once.
func (r *rounds) run(ctx context.Context, say func(format string, args ...any)) error {
	for _, p := range r.paths {
		p.machine.MemoryMiB = bootMemory
		got, err := boot(ctx, p.machine, p.text)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		if p.name == isoBIOS {
			if got.stage == nil {
				return errors.New("the first stage did not say how long it took")
			}
			r.stages = append(r.stages, got.stage)
		}
		r.seconds[p.name] = append(r.seconds[p.name], got.seconds)
		say("%s: %.1f s", p.name, got.seconds)
	}
	return nil
}

// rows are the medians: first the ISO beside a Debian, then each path beside
// its floor, then the parts of the first stage.
func (r *rounds) rows() []rows.Row {
	median := func(name string) float64 { return rows.Median(r.seconds[name]) }
	table := []rows.Row{
		rows.New("power-on to XNODE-READY: "+isoBIOS, median(isoBIOS), "s").Beside(debianOS, median(debianOS)).RatioAtMost(1),
	}
	for _, p := range r.paths {
		if p.peer != "" {
			table = append(table, rows.New("power-on to XNODE-READY: "+p.name, median(p.name), "s").Beside(p.peer, median(p.peer)))
		}
	}
	return append(table, stageRows(r.stages)...)
}

// memorySteps are the sizes that are tried, in MiB, from small to large. The
// last is what README promises to be enough.
func memorySteps() []int { return []int{160, 192, 224, 256, 320, 384} }

// memory looks for the smallest step with which a path comes up, by halving.
func (b *bench) memory(ctx context.Context, p path) (rows.Row, error) {
	steps := memorySteps()
	at := sort.Search(len(steps), func(i int) bool {
		if ctx.Err() != nil {
			return true
		}
		m := p.machine
		m.MemoryMiB = steps[i]
		got, err := boot(ctx, m, p.text)
		if err != nil {
			b.say("%s, %d MiB: %s", p.name, steps[i], firstLine(err))
			return false
		}
		b.say("%s, %d MiB: up after %.1f s", p.name, steps[i], got.seconds)
		return true
	})
	if ctx.Err() != nil {
		return rows.Row{}, ctx.Err()
	}
	if at == len(steps) {
		return rows.Row{}, fmt.Errorf("%s: does not come up with %d MiB", p.name, steps[at-1])
	}
	return rows.New("memory with which it comes up: "+p.name, float64(steps[at]), "MiB").AtMost(384), nil
}
