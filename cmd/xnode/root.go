package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// usageError says that the call itself is wrong: exit code 2.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error {
	return &usageError{fmt.Errorf(format, args...)}
}

// reportedError ends the program with a code of its own; what there is to say
// was said.
type reportedError struct{ code int }

func (e *reportedError) Error() string { return fmt.Sprintf("ended with code %d", e.code) }

func newRootCommand() *cobra.Command {
	var at layout
	root := &cobra.Command{
		Use:   "xnode",
		Short: "The agent of an Xnode, and what it is doing",
		Long: `xnode follows the release that a signed DNS record announces, tries it on this
node, probes it, and commits it or goes back.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 degraded (status), 130 cancelled.`,
		Example: `  xnode status
  xnode watch
  xnode history
  xnode poll`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%s: %w", cmd.CommandPath(), err)
	})
	root.PersistentFlags().StringVar(&at.root, "root", "/", "folder that all files of the node lie below")
	root.AddCommand(
		newFollowCommand(&at), newApplyCommand(&at), newStatusCommand(&at), newWatchCommand(&at), newHistoryCommand(&at), newPollCommand(&at),
		newPauseCommand(&at), newResumeCommand(&at), newRollbackCommand(&at), newQuarantineCommand(&at), newLogsCommand(),
		newConfigCommand(&at),
	)
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s: unknown command or argument %q", cmd.CommandPath(), args[0])
	}
	return nil
}
