package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"xnodeos.org/internal/vm"
	"xnodeos.org/test/bench/rows"
)

// bootLimit is for one boot; bootMemory, in MiB, is what each machine has.
const (
	bootLimit  = 180 * time.Second
	bootMemory = 1024
)

// result is one boot.
type result struct {
	seconds float64 // from QEMU's start to the awaited line
	stage   stage   // nil where no first stage of ours ran
}

// stage is what the first stage says of itself: its parts, in its order and
// words, in seconds. The first is "" for all of it.
type stage []part

type part struct {
	name    string
	seconds float64
}

// boot starts a machine and waits for text on its console. It tries once more
// if QEMU itself died.
func boot(ctx context.Context, m vm.Machine, text string) (result, error) {
	r, err := bootOnce(ctx, m, text)
	var fail *vm.ExpectError
	if errors.As(err, &fail) && fail.DiedBySignal() {
		r, err = bootOnce(ctx, m, text)
	}
	return r, err
}

func bootOnce(ctx context.Context, m vm.Machine, text string) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	machine, err := vm.Start(ctx, m, vm.Options{Now: time.Now})
	if err != nil {
		return result{}, err
	}
	defer machine.Stop()
	which, line, err := machine.ExpectFrom(ctx, 0, vm.Text(text), vm.Text("xnode-init: error: "), vm.Text("Kernel panic"))
	if err != nil {
		return result{}, fmt.Errorf("%w\n%s", err, strings.Join(machine.Tail(20), "\n"))
	}
	if which != 0 {
		return result{}, &refusedError{line.Text}
	}
	r := result{seconds: line.At.Seconds()}
	for _, l := range machine.Lines(0) {
		if s, ok := parseStage(l.Text); ok {
			r.stage = s
		}
	}
	return r, nil
}

// refusedError is a machine that says that it cannot come up.
type refusedError struct{ line string }

func (e *refusedError) Error() string { return "the console says " + strconv.Quote(e.line) }

// parseStage reads the first stage's closing line. It takes whatever parts the
// line names: there will be more of them.
func parseStage(line string) (stage, bool) {
	m := regexp.MustCompile(`xnode-init: first stage ([0-9.]+) s \(([^)]*)\)`).FindStringSubmatch(line)
	if m == nil {
		return nil, false
	}
	var s stage
	for _, text := range append([]string{" " + m[1]}, strings.Split(m[2], ", ")...) {
		at := strings.LastIndexByte(text, ' ')
		seconds, err := strconv.ParseFloat(text[at+1:], 64)
		if at < 0 || err != nil {
			return nil, false
		}
		s = append(s, part{text[:at], seconds})
	}
	return s, true
}

// restName is the part that nothing outside of the first stage explains.
const restName = "rest"

func stageRows(stages []stage) []rows.Row {
	var table []rows.Row
	for i, p := range stages[0] {
		var values []float64
		for _, s := range stages {
			values = append(values, s[i].seconds)
		}
		name := "first stage, all of it"
		if p.name != "" {
			name = "first stage: " + p.name
		}
		row := rows.New(name, rows.Median(values), "s")
		if p.name == restName {
			row = row.AtMost(1)
		}
		table = append(table, row)
	}
	return table
}

// firstLine is an error without the console's end.
func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line
}
