package main

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/spf13/cobra"

	"xnodeos.org/configs"
	"xnodeos.org/internal/releasing"
)

func newInitCommand() *cobra.Command {
	var o releasing.InitOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "init DIR --record NAME --remote URL",
		Short: "Make a config repository and its keys",
		Long: `Make a config repository in DIR, with a first signed commit, and beside it
DIR-keys with the keys, the settings of xnodeos release (publish.toml) and the
node config of the fleet (node/, for xnodeos image build --node-config).

Neither folder may be there yet; both come whole or not at all. The keys have no
passphrase; give one with ssh-keygen -p -f FILE. The private key named trust
replaces all other keys: put it offline.

Exit codes: 0 done, 1 failed, 2 wrong usage.`,
		Example: `  xnodeos init fleet --record stable._xnode.fleet.example.org \
    --remote ssh://git@git.example.org/fleet.git --cache https://cache.example.org`,
		Args: exactArgs("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Dir = args[0]
			if o.Record == "" || len(o.Remotes) == 0 {
				return usagef("init: --record NAME and --remote URL are needed: where nodes look for the record and fetch the repository")
			}
			var err error
			if o.Template, err = fs.Sub(configs.Files, "minimal"); err != nil {
				return err
			}
			o.Now = time.Now
			made, err := releasing.Init(cmd.Context(), o)
			if err != nil {
				return releaseUsage(err)
			}
			if asJSON {
				return writeJSON(cmd.OutOrStdout(), made)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), `repository   %s
keys         %s (back them up; put the one named trust offline)
settings     %s
node config  %s

Next: look at publish.toml and xnode.toml (commit in %s), then
xnodeos release --repo %s --system edge=PATH
`, made.Repository, made.Keys, made.Settings, made.NodeConfig, shellWord(args[0]), shellWord(args[0]))
			return err
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&o.Record, "record", "", "DNS name of the record, as in stable._xnode.fleet.example.org (required)")
	fl.StringArrayVar(&o.Remotes, "remote", nil, "git URL that nodes fetch; repeat for mirrors (required)")
	fl.StringArrayVar(&o.Caches, "cache", nil, "URL of a binary cache that nodes read; repeat for mirrors")
	fl.StringVar(&o.Name, "name", "", "name of the fleet (default: the folder's)")
	fl.StringVar(&o.Keys, "keys", "", "folder for keys and settings (default: DIR-keys)")
	fl.BoolVar(&asJSON, "json", false, "print the result as JSON")
	return cmd
}

// releaseUsage gives a wrong call its exit code.
func releaseUsage(err error) error {
	var usage *releasing.UsageError
	if errors.As(err, &usage) {
		return &usageError{err}
	}
	return err
}
