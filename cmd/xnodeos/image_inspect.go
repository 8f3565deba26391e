package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"xnodeos.org/imagebuild"
)

func newImageInspectCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Take an artifact apart and check every byte of it",
		Long: `Take an ISO, netboot folder, unified kernel image, disk image or takeover
program apart, show what is in it, and check it.

Kernel, initrd and payload are held against the manifest, and the manifest
against the digest in the boot configuration. From the parts the whole file is
derived again and compared byte by byte, so partition tables, boot records and
directories are checked too.

This finds damage, and changes made by someone who did not rebuild the whole
image. It does not say who built it.

Exit codes: 0 whole, 1 damaged or not readable, 2 wrong usage.`,
		Example: `  xnodeos image inspect out/xnodeos-pocket-1-x86_64.iso
  xnodeos image inspect out/netboot
  xnodeos image inspect --json out/xnodeos-pocket-1-x86_64.img`,
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			progress, wait := newProgress(cmd.ErrOrStderr(), asJSON)
			report, err := imagebuild.Inspect(cmd.Context(), args[0], progress)
			wait()
			if err != nil {
				return err
			}
			if err := printReport(cmd.OutOrStdout(), report, asJSON); err != nil {
				return err
			}
			if n := len(report.Problems); n > 0 {
				return fmt.Errorf("%s: refused, %d problem(s): %w", args[0], n, errors.New(report.Problems[0]))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the report as JSON")
	return cmd
}

func printReport(w io.Writer, report *imagebuild.Report, asJSON bool) error {
	if asJSON {
		return writeJSON(w, report)
	}
	_, err := io.WriteString(w, report.Text())
	return err
}
