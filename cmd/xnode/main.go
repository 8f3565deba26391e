// Command xnode is the node's program: the agent's two halves (follow, apply)
// and what a person on the node asks of them.
//
// It is wiring only: flags, files' places, the signal context and exit codes
// live here; decisions live in package agent, effects in its adapters.
//
// Exit codes: 0 done, 1 failed, 2 usage, 3 degraded (status), 130 cancelled.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
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
	// After the first signal the work winds down; a second one kills.
	context.AfterFunc(ctx, stop)

	root := newRootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	code := exitCode(ctx, err)
	var quiet *reportedError
	if err != nil && !errors.As(err, &quiet) && code != 130 {
		fmt.Fprintln(stderr, message(err))
		if code == 2 {
			fmt.Fprintln(stderr, "Try: xnode --help")
		}
	}
	return code
}

// message is an error as the user reads it: begun with the program's name, once.
func message(err error) string {
	text := err.Error()
	if strings.HasPrefix(text, "xnode:") || strings.HasPrefix(text, "xnode ") {
		return text
	}
	return "xnode: " + text
}

func exitCode(ctx context.Context, err error) int {
	var usage *usageError
	var reported *reportedError
	switch {
	case err == nil:
		return 0
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return 130
	case errors.As(err, &usage):
		return 2
	case errors.As(err, &reported):
		return reported.code
	default:
		return 1
	}
}
