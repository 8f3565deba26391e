// Command xnodeos is the operator's program: it writes everything a machine
// can boot from a NixOS system, checks such files, and tries them in QEMU.
//
// It is wiring only: parsing, the signal context and the exit code live here,
// the work lives in package imagebuild and package internal/vm.
//
// Exit codes: 0 done, 1 failed, 2 usage, 130 cancelled.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is main without the process: the whole program with its own arguments
// and streams, so that a test drives it as a user does.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// After the first Ctrl-C the work winds down; a second one kills.
	context.AfterFunc(ctx, stop)

	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code, reported := exitCode(ctx, err)
	if !reported {
		fmt.Fprintf(stderr, "xnodeos: %v\n", err)
		if code == 2 {
			fmt.Fprintln(stderr, "Try: xnodeos --help")
		}
	}
	return code
}

// exitCode maps an error to the process's exit code and tells whether the
// user has been told already.
func exitCode(ctx context.Context, err error) (code int, reported bool) {
	var usage *usageError
	var done *reportedError
	reported = errors.As(err, &done)
	switch {
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return 130, reported
	case errors.As(err, &usage):
		return 2, reported
	default:
		return 1, reported
	}
}
