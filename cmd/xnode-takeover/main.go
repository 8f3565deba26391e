// Command xnode-takeover replaces the running Linux by the system that lies
// behind the program in its own file; `xnodeos image build --format takeover`
// puts it there. What it does stands in package takeover.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"xnodeos.org/netboot/takeover"
)

// usageError is a mistake in the words of the command.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text + "; see --help" }

func main() {
	if len(os.Args) == 2 && os.Args[1] == takeover.JumpWord {
		if err := takeover.Jump(); err != nil {
			os.Exit(1)
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], host{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, program: "/proc/self/exe", sudoUser: cmp.Or(os.Getenv("SUDO_USER"), os.Getenv("DOAS_USER"))})
	cancelled := ctx.Err() != nil
	stop()
	os.Exit(exitCode(err, cancelled))
}

func exitCode(err error, cancelled bool) int {
	var usage *usageError
	switch {
	case err == nil:
		return 0
	case cancelled:
		fmt.Fprintln(os.Stderr, "xnodeos-takeover: cancelled; nothing was changed")
		return 130
	}
	fmt.Fprintf(os.Stderr, "xnodeos-takeover: %v\n", err)
	if errors.As(err, &usage) {
		return 2
	}
	return 1
}
