package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"xnodeos.org/agent"
	"xnodeos.org/agent/apply/client"
	"xnodeos.org/internal/command"
)

// ask has the applier do one thing, which only root may ask for.
func (l layout) ask(cmd *cobra.Command, request agent.Request) (agent.Status, error) {
	return client.New(l.run("apply.sock")).Do(cmd.Context(), request)
}

func newPauseCommand(at *layout) *cobra.Command {
	return &cobra.Command{
		Use:   "pause",
		Short: "Apply nothing new until `xnode resume` (root)",
		Long: `The node goes on following and shows what is announced, but tries nothing. A trial
that is under way is brought to its end.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := at.ask(cmd, agent.Request{Op: agent.OpPause})
			return err
		},
	}
}

func newResumeCommand(at *layout) *cobra.Command {
	return &cobra.Command{
		Use:   "resume",
		Short: "End a pause, or leave SAFE (root)",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := at.ask(cmd, agent.Request{Op: agent.OpResume})
			return err
		},
	}
}

func newRollbackCommand(at *layout) *cobra.Command {
	return &cobra.Command{
		Use:   "rollback",
		Short: "Go back to the system before this one (root)",
		Long: `Switches to the last good system before the one that runs, probes it, and puts
the one that is left into quarantine: it is not tried again on this node until a
newer release names another system, or xnode quarantine clear says so.
Returns when the way back has begun; follow it with xnode watch.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := at.ask(cmd, agent.Request{Op: agent.OpRollback})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "going back to %s\n", status.State.Previous.System)
			return err
		},
	}
}

func newQuarantineCommand(at *layout) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "quarantine",
		Short: "Systems that proved bad on this node",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newQuarantineListCommand(at), newQuarantineClearCommand(at))
	return cmd
}

func newQuarantineListCommand(at *layout) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Show them, and why each went back",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := at.ask(cmd, agent.Request{Op: agent.OpStatus})
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(append([]agent.Verdict{}, status.Quarantine...))
			}
			if len(status.Quarantine) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "nothing is in quarantine")
				return err
			}
			out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			for _, q := range status.Quarantine {
				fmt.Fprintf(out, "%s\t%d\t%s\t%s\n", time.Unix(q.At, 0).UTC().Format(time.DateTime), q.Sequence, q.System, q.Reason)
			}
			return out.Flush()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}

func newQuarantineClearCommand(at *layout) *cobra.Command {
	return &cobra.Command{
		Use:   "clear SYSTEM",
		Short: "Let a system be tried again (root)",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || !strings.HasPrefix(args[0], "/nix/store/") {
				return usagef("%s: name one system by its store path; see: xnode quarantine list", cmd.CommandPath())
			}
			return nil
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			var systems []string
			if status, err := at.ask(cmd, agent.Request{Op: agent.OpStatus}); err == nil && len(args) == 0 {
				for _, q := range status.Quarantine {
					systems = append(systems, q.System)
				}
			}
			return systems, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := at.ask(cmd, agent.Request{Op: agent.OpClear, System: args[0]})
			return err
		},
	}
}

func newLogsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show what the agent's units wrote to the journal",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			args := []string{"--no-pager", "--lines=200"}
			for _, unit := range []string{"xnode-follow", "xnode-apply", "xnode-switch", "xnode-deadman"} {
				args = append(args, "--unit="+unit)
			}
			if follow {
				args = append(args, "--follow")
			}
			err := command.Run(cmd.Context(), command.Cmd{
				Name: "journalctl", Args: args, Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr(), Foreground: true, Package: "systemd",
			})
			if errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("%w; this is no machine with systemd", err)
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on showing what comes")
	return cmd
}
