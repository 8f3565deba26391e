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

// reportedError is a failure whose words the command has printed itself.
type reportedError struct{ err error }

func (e *reportedError) Error() string { return e.err.Error() }
func (e *reportedError) Unwrap() error { return e.err }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "xnodeos",
		Short: "Build, check and try what a machine boots",
		Long: `xnodeos takes a NixOS system and writes everything a machine can boot:
a hybrid ISO and a netboot tree, the same bytes every time, without root. It
makes a fleet's config repository and keys, and announces new systems to the
nodes that follow it.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 cancelled.`,
		Example: `  xnodeos image build --system pocket --out out
  xnodeos image inspect out/xnodeos-pocket-1-x86_64.iso
  xnodeos vm run out/xnodeos-pocket-1-x86_64.iso --firmware uefi
  xnodeos init fleet --record stable._xnode.fleet.example.org --remote https://git.example.org/fleet.git
  xnodeos release --repo fleet --system edge=./result`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("%s: %w", cmd.CommandPath(), err)
	})
	image := &cobra.Command{
		Use:   "image",
		Short: "Write and check images",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	image.AddCommand(newImageBuildCommand(), newImageInspectCommand())
	root.AddCommand(image, newInitCommand(), newKeyCommand(), newReleaseCommand(), newVMCommand())
	return root
}

// noArgs and exactArgs are cobra's checks with the usage exit code.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s: unknown command or argument %q", cmd.CommandPath(), args[0])
	}
	return nil
}

// oneOf completes a flag with fixed words.
func oneOf(words ...string) cobra.CompletionFunc {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

func exactArgs(what ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(what) {
			return usagef("%s: %s is missing", cmd.CommandPath(), what[len(args)])
		}
		if len(args) > len(what) {
			return usagef("%s: unexpected argument %q", cmd.CommandPath(), args[len(what)])
		}
		return nil
	}
}
