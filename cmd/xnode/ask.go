package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"xnodeos.org/agent/statusapi"
)

// exitDegraded is the code of `xnode status` for a node that works but that
// somebody should look at.
const exitDegraded = 3

func (l layout) follower() *statusapi.Client { return statusapi.NewClient(l.run("agent/status.sock")) }

func newStatusCommand(at *layout) *cobra.Command {
	var asJSON, oneline bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show what this node runs and what the agent does",
		Long: `Shows the agent's status. Exit code 0 if the node is well, 3 if somebody should
look (degraded), 1 if the agent does not answer.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON && oneline {
				return usagef("%s: --json and --oneline do not go together", cmd.CommandPath())
			}
			status, err := at.follower().Status(cmd.Context())
			if err != nil {
				return err
			}
			if err := show(cmd, status, asJSON, oneline); err != nil {
				return err
			}
			if status.Health != statusapi.Healthy {
				return &reportedError{exitDegraded}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().BoolVar(&oneline, "oneline", false, "as one line")
	return cmd
}

func show(cmd *cobra.Command, status *statusapi.Status, asJSON, oneline bool) error {
	switch {
	case asJSON:
		enc := json.NewEncoder(cmd.OutOrStdout())
		enc.SetIndent("", "  ")
		return enc.Encode(status)
	case oneline:
		_, err := fmt.Fprintln(cmd.OutOrStdout(), status.Oneline())
		return err
	}
	width, _ := terminal(cmd.OutOrStdout())
	status.Time = time.Now() // what is told relative to it is read now
	return status.WriteText(cmd.OutOrStdout(), width)
}

// terminal is how many columns and rows out has; 0 if it is no terminal.
func terminal(out any) (columns, rows int) {
	file, ok := out.(interface{ Fd() uintptr })
	if !ok {
		return 0, 0
	}
	columns, rows, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0, 0
	}
	return columns, rows
}

func newWatchCommand(at *layout) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Show the status again whenever it changes",
		Long: `On a terminal the status stays in one place. Elsewhere each change is one line,
with --json one JSON object. Ends with Ctrl-C or when the agent goes away.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			show := lines(out)
			if columns, _ := terminal(out); asJSON {
				show = func(s *statusapi.Status) error { return json.NewEncoder(out).Encode(s) }
			} else if columns > 0 {
				s := &screen{out: out}
				show = s.show
				defer s.tick(cmd.Context())()
			}
			return at.follower().Watch(cmd.Context(), show)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON, an object a line")
	return cmd
}

// lines shows each change as one line.
func lines(out io.Writer) func(*statusapi.Status) error {
	last := ""
	return func(s *statusapi.Status) error {
		line := s.Oneline()
		if line == last {
			return nil
		}
		last = line
		_, err := fmt.Fprintln(out, s.Time.UTC().Format(time.TimeOnly), line)
		return err
	}
}

func newPollCommand(at *layout) *cobra.Command {
	return &cobra.Command{
		Use:   "poll",
		Short: "Have the agent ask for the announcement now",
		Long: `Returns at once. What the answer brings shows in xnode watch; why there was none
in xnode status, behind "asked".`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return at.follower().Poll(cmd.Context())
		},
	}
}

func newHistoryCommand(at *layout) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "history",
		Short: "Show what was tried here and how it ended",
		Long: `One line for each event, the newest last: time (UTC), release, event, system, and
why. It is read from the applier's file, so the agent need not run.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			events, err := at.history()
			if err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(events)
			}
			if len(events) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "nothing has been tried yet")
				return err
			}
			return statusapi.WriteHistory(cmd.OutOrStdout(), events)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON, the newest event first")
	return cmd
}
