package main

import (
	"encoding/json"
	"fmt"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
)

func newConfigCommand(at *layout) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the settings that count, defaults included",
		Long: `Reads agent.toml as the agent does (the system's, and the node config's over it)
and prints every setting. A wrong file is told with line and key, and exit code 1.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			settings, err := at.settings()
			if err != nil {
				return err
			}
			for _, list := range []*[]string{&settings.DNS.Resolvers, &settings.Git.Remotes, &settings.Cache.URLs} {
				*list = append([]string{}, *list...) // an empty list is shown, a missing one is not
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(settings)
			}
			enc := toml.NewEncoder(cmd.OutOrStdout())
			enc.Indent = ""
			if err := enc.Encode(settings); err != nil {
				return fmt.Errorf("show settings: %w", err)
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	return cmd
}
