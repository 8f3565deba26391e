package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"xnodeos.org/internal/dnsupdate"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/releasing"
)

// releaseFlags are the words of `release` as the user gave them.
type releaseFlags struct {
	repo     string
	settings string
	systems  []string
	store    string
	cache    string
	xnode    string
	refresh  bool
	halt     bool
	resume   bool
	dryRun   bool
	json     bool
}

func newReleaseCommand() *cobra.Command {
	var f releaseFlags
	cmd := &cobra.Command{
		Use:   "release",
		Short: "Announce new systems to the fleet",
		Long: `Make a release of what the config repository says, and announce it:

  1. take or build the system of each class
  2. bring its closure and closure list into the binary cache, signed
  3. write release.json and nodes.json into a signed commit with the tag xnode/N
  4. push branch and tag to every remote
  5. sign the record, push it to branch announce, publish it in DNS
  6. wait until the name servers show it

Each step looks first at what is there: after a failure run the same command
again, and it goes on; a release that says what the last one says is the last
one. --refresh, --halt and --resume change the record only.

The clone must be clean. Keys, the cache's folder and the way into DNS are in
publish.toml, which xnodeos init writes.

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 cancelled.`,
		Example: `  xnodeos release --repo fleet --system edge=/nix/store/...-system
  xnodeos release --repo fleet --dry-run
  xnodeos release --repo fleet --halt`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runRelease(cmd, f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.repo, "repo", ".", "clone of the config repository")
	fl.StringVar(&f.settings, "settings", "", "settings (default: publish.toml in the folder REPO-keys)")
	fl.StringArrayVar(&f.systems, "system", nil, "CLASS[/ARCH]=SYSTEM: a toplevel, out-link, flake reference or pocket; repeat for classes")
	fl.StringVar(&f.store, "store", "", "read /nix/store/... below this folder")
	fl.StringVar(&f.cache, "work-cache", "", "folder for what is kept between builds of pocket (default: the user's cache folder)")
	fl.StringVar(&f.xnode, "xnode", "", "the agent's program for pocket (default: beside xnodeos)")
	fl.BoolVar(&f.refresh, "refresh", false, "only give the record a later end")
	fl.BoolVar(&f.halt, "halt", false, "only stop the release: nodes that have not begun do not begin")
	fl.BoolVar(&f.resume, "resume", false, "only let it go on")
	fl.BoolVar(&f.dryRun, "dry-run", false, "say what would be done, and do nothing")
	fl.BoolVar(&f.json, "json", false, "print the result as JSON")
	return cmd
}

func (f releaseFlags) change() (change releasing.Change, err error) {
	for _, c := range []struct {
		set    bool
		change releasing.Change
	}{{f.refresh, releasing.Refresh}, {f.halt, releasing.Halt}, {f.resume, releasing.Resume}} {
		if !c.set {
			continue
		}
		if change != "" {
			return "", usagef("release: --%s and --%s do not go together", change, c.change)
		}
		change = c.change
	}
	if change != "" && len(f.systems) > 0 {
		return "", usagef("release: --system does not go with --%s, which changes the record only", change)
	}
	return change, nil
}

func runRelease(cmd *cobra.Command, f releaseFlags) error {
	ctx := cmd.Context()
	change, err := f.change()
	if err != nil {
		return err
	}
	o, err := f.options(ctx, cmd.ErrOrStderr(), change)
	if err != nil {
		return err
	}
	if !f.json {
		o.Tell = func(s releasing.Step) {
			fmt.Fprintf(cmd.OutOrStdout(), "%-8s %-9s %s\n", s.State, s.Name, s.Detail)
		}
	}
	var result *releasing.Result
	if change == "" {
		result, err = releasing.Release(ctx, *o)
	} else {
		result, err = releasing.ChangeRecord(ctx, *o, change)
	}
	if f.json && (err == nil || len(result.Steps) > 0) {
		if bad := writeJSON(cmd.OutOrStdout(), result); bad != nil && err == nil {
			return bad
		}
	}
	return releaseUsage(err)
}

// options opens everything that the release needs, before long work: a
// passphrase is asked for while the user still looks.
func (f releaseFlags) options(ctx context.Context, stderr io.Writer, change releasing.Change) (*releasing.Options, error) {
	systems := map[string]string{}
	for _, word := range f.systems {
		class, system, ok := strings.Cut(word, "=")
		if !ok || class == "" || system == "" || systems[class] != "" {
			return nil, usagef("release: --system %q: want CLASS=SYSTEM, each class once", word)
		}
		systems[class] = system
	}
	path := f.settings
	if path == "" {
		root, err := filepath.Abs(f.repo)
		if err != nil {
			return nil, err
		}
		path = filepath.Join(root+"-keys", releasing.SettingsName)
	}
	settings, err := releasing.LoadSettings(path)
	if err != nil {
		return nil, err
	}
	o := &releasing.Options{
		Dir: f.repo, Settings: settings, Systems: systems, Now: time.Now, DryRun: f.dryRun,
		Build: func(ctx context.Context, word string) (releasing.Built, error) {
			work, err := cacheFolder(f.cache)
			if err != nil {
				return releasing.Built{}, err
			}
			built, err := resolveSystem(ctx, systemSource{word: word, store: nix.Store{Dir: f.store}, cache: work, xnode: f.xnode, log: stderr, quiet: f.json})
			return releasing.Built{Store: built.store, Path: built.path}, err
		},
	}
	if f.dryRun {
		o.DNS, err = publisher(settings)
		return o, err
	}
	if settings.Keys.Announce == "" || change == "" && (settings.Keys.Cache == "" || settings.Cache == "") {
		return nil, fmt.Errorf("%s: keys.announce, keys.cache and cache are needed", path)
	}
	if o.Announce, err = openSigner(ctx, settings.Keys.Announce); err != nil {
		return nil, err
	}
	if change == "" {
		if settings.Keys.Git != "" {
			if o.Git, err = openSigner(ctx, settings.Keys.Git); err != nil {
				return nil, err
			}
		}
		key, err := os.ReadFile(settings.Keys.Cache)
		if err != nil {
			return nil, fmt.Errorf("read the cache key: %w", err)
		}
		if o.CacheKey, err = nix.ParseCacheKey(key); err != nil {
			return nil, fmt.Errorf("read the cache key %q: %w", settings.Keys.Cache, err)
		}
	}
	o.DNS, err = publisher(settings)
	return o, err
}

// publisher is the way into DNS that the settings name, nil for none.
func publisher(s *releasing.Settings) (releasing.Publisher, error) {
	switch {
	case s.DNS.Server != "":
		text, err := os.ReadFile(s.DNS.TSIG)
		if err != nil {
			return nil, fmt.Errorf("read the TSIG key: %w", err)
		}
		words := strings.Fields(string(text))
		if len(words) != 2 {
			return nil, fmt.Errorf("TSIG key %q: want one line KEY-NAME BASE64", s.DNS.TSIG)
		}
		return &dnsupdate.Update{Server: s.DNS.Server, Zone: s.DNS.Zone, KeyName: words[0], Key: dnsupdate.Secret(words[1]), Now: time.Now}, nil
	case s.DNS.API != "":
		key, err := os.ReadFile(s.DNS.APIKey)
		if err != nil {
			return nil, fmt.Errorf("read the PowerDNS API key: %w", err)
		}
		return &dnsupdate.API{URL: s.DNS.API, Key: dnsupdate.Secret(strings.TrimSpace(string(key))), Zone: s.DNS.Zone}, nil
	}
	return nil, nil
}
