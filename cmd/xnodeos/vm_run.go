package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"xnodeos.org/internal/vm"
)

// vmResult is what `vm run --json` prints.
type vmResult struct {
	Artifact string  `json:"artifact"`
	Firmware string  `json:"firmware"`
	Accel    string  `json:"accel"`
	Seen     bool    `json:"seen"`    // a line with the text of --expect
	Line     string  `json:"line"`    // that line
	Seconds  float64 `json:"seconds"` // from the start of QEMU to that line, else to the end
	End      string  `json:"end"`     // vm.Cause
}

func runVM(cmd *cobra.Command, path string, f vmFlags) error {
	if _, err := f.check(); err != nil {
		return err
	}
	a, err := openArtifact(path, f.as)
	if err != nil {
		return err
	}
	m, reason, err := machineFor(cmd.Context(), f, a)
	if err != nil {
		return err
	}
	if f.dryRun {
		return printDryRun(cmd.OutOrStdout(), m, a)
	}
	m, remove, err := a.prepare(m)
	if err != nil {
		return err
	}
	defer remove()
	note := func(format string, args ...any) { fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...) }
	note("xnodeos: %s, %s firmware, %d MiB, %s (%s)", path, f.firmware, m.MemoryMiB, m.Accel, firstLine(reason))
	if f.expect == "" {
		note("xnodeos: once it is up: ssh -p %d root@127.0.0.1", m.Nets[0].Forwards[0].Host)
		note("xnodeos: Ctrl-C ends the machine")
	}
	result := vmResult{Artifact: path, Firmware: f.firmware, Accel: string(m.Accel)}
	if err := f.boot(cmd, a, m, &result); err != nil {
		return f.fail(cmd, result, err)
	}
	if f.json {
		return writeJSON(cmd.OutOrStdout(), result)
	}
	if result.Seen {
		note("xnodeos: seen after %.1f s: %s", result.Seconds, result.Line)
	}
	return nil
}

// fail prints the result of a machine that did not do what was expected: with
// --json its reader gets one in any case.
func (f vmFlags) fail(cmd *cobra.Command, result vmResult, err error) error {
	if f.json {
		if jsonErr := writeJSON(cmd.OutOrStdout(), result); jsonErr != nil {
			return errors.Join(err, jsonErr)
		}
	}
	return err
}

func printDryRun(w io.Writer, m vm.Machine, a artifact) error {
	line := vm.ShellLine(append([]string{m.QEMU}, m.Args()...))
	if before := a.shellPrepare(); before != "" {
		line = before + " && " + line
	}
	_, err := fmt.Fprintln(w, line)
	return err
}

// boot runs the machine to its end and fills in result.
func (f vmFlags) boot(cmd *cobra.Command, a artifact, m vm.Machine, result *vmResult) (err error) {
	console := cmd.OutOrStdout()
	if f.json {
		console = cmd.ErrOrStderr()
	}
	opt := vm.Options{Now: time.Now, OnLine: func(l vm.Line) { fmt.Fprintln(console, l.Text) }}
	if f.serialLog != "" {
		log, err := os.Create(f.serialLog)
		if err != nil {
			return fmt.Errorf("vm run: serial log: %w", err)
		}
		defer func() { err = errors.Join(err, log.Close()) }()
		opt.SerialLog = log
	}
	ctx := cmd.Context()
	machine, err := vm.Start(ctx, m, opt)
	if err != nil {
		return fmt.Errorf("vm run: %w", err)
	}
	from := 0
	if d, ok := a.(driver); ok {
		if from, err = d.drive(ctx, machine, cmd.ErrOrStderr()); err != nil {
			exit := machine.Stop()
			result.End, result.Seconds = string(exit.Cause), exit.At.Seconds()
			return fmt.Errorf("vm run: %w", err)
		}
	}
	if f.expect == "" {
		err = f.untilEnd(ctx, machine, result)
	} else {
		err = f.untilSeen(ctx, machine, from, result)
	}
	if logErr := machine.LogError(); logErr != nil {
		err = errors.Join(err, fmt.Errorf("vm run: serial log: %w", logErr))
	}
	return err
}

func (f vmFlags) untilEnd(ctx context.Context, machine *vm.VM, result *vmResult) error {
	exit := machine.Wait()
	result.End, result.Seconds = string(exit.Cause), exit.At.Seconds()
	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("vm run: %w", ctx.Err())
	case exit.Cause == vm.PoweredOff:
		return nil
	case exit.Cause == vm.Refused && strings.Contains(exit.Stderr, "host forwarding"):
		return fmt.Errorf("vm run: %s; is the port taken? choose another with --ssh-port", exit)
	default:
		return fmt.Errorf("vm run: %s", exit)
	}
}

func (f vmFlags) untilSeen(ctx context.Context, machine *vm.VM, from int, result *vmResult) error {
	limited, cancel := context.WithTimeout(ctx, f.timeout)
	defer cancel()
	_, line, err := machine.ExpectFrom(limited, from, vm.Text(f.expect))
	exit := machine.Stop()
	result.End = string(exit.Cause)
	if err == nil {
		result.Seen, result.Line, result.Seconds = true, line.Text, line.At.Seconds()
		return nil
	}
	result.Seconds = exit.At.Seconds()
	if ctx.Err() != nil {
		return fmt.Errorf("vm run: %w", ctx.Err())
	}
	var fail *vm.ExpectError
	tail := ""
	if errors.As(err, &fail) {
		tail = "\nthe last lines of the console:\n  " + strings.Join(fail.Tail, "\n  ")
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("vm run: %w (limit %v; give it more with --timeout)%s", err, f.timeout, tail)
	}
	return fmt.Errorf("vm run: %w%s", err, tail)
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
