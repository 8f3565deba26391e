package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"xnodeos.org/imagebuild"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nodeconfig"
	"xnodeos.org/internal/sshsign"
)

// buildFlags are the words of `image build` as the user gave them.
type buildFlags struct {
	system     string
	out        string
	formats    []string
	nodeConfig string
	embed      bool
	urls       []string
	sign       string
	sequence   uint32
	time       string
	store      string
	init       string
	xnode      string
	takeover   string
	bootDir    string
	cache      string
	plan       bool
	json       bool
}

func newImageBuildCommand() *cobra.Command {
	var f buildFlags
	cmd := &cobra.Command{
		Use:   "build --system SYSTEM --out DIR",
		Short: "Write a bootable ISO and a netboot tree from a NixOS system",
		Long: `Write everything a machine can boot from a NixOS system.

SYSTEM is the store path or out-link of a system (NixOS: the option
config.system.build.toplevel), a flake reference to one (then nix build runs),
or "pocket", the small system for trying and testing, which is built from
Debian packages on the spot. pocket takes settings behind a colon:
pocket:label=pocket-2,greeting=Hello; README of nixos/pocket has them all.

The node config is a folder with any of authorized_keys, hostname, class,
network, agent.toml, nix-keys, ssh_host_*_key and trust/. It is put beside the
system, not into it: a build with another one reuses everything else.

The same input gives the same bytes. Nothing gets its final name before all of
it is whole.`,
		Example: `  xnodeos image build --system pocket --out out
  xnodeos image build --system ./result --out out --node-config node
  xnodeos image build --system .#nixosConfigurations.edge.config.system.build.toplevel --out out
  xnodeos image build --system pocket --out out --format netboot --embed-payload
  xnodeos image build --system pocket --out out --format uki --payload-url http://boot.example.org/edge
  xnodeos image build --system pocket --plan`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runImageBuild(cmd, f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.system, "system", "", "system to build from: store path, out-link, flake reference or pocket (required)")
	fl.StringVar(&f.out, "out", "", "folder for the results, made if needed")
	fl.StringSliceVar(&f.formats, "format", []string{"iso", "netboot"}, "what to write: "+strings.Join(imagebuild.FormatNames(), ", "))
	fl.StringVar(&f.nodeConfig, "node-config", "", "folder with the node config")
	fl.BoolVar(&f.embed, "embed-payload", false, "netboot: also write payload.cpio, a second initrd with the payload")
	fl.StringArrayVar(&f.urls, "payload-url", nil, "uki, takeover: folder to fetch the payload from; repeat for mirrors")
	fl.StringVar(&f.sign, "sign", "", "sign manifest and sums with this ssh-ed25519 key file, or the agent's half of a public one")
	fl.Uint32Var(&f.sequence, "sequence", 0, "release sequence number in the manifest")
	fl.StringVar(&f.time, "time", "", "Unix time of the build (default: SOURCE_DATE_EPOCH, else 1)")
	fl.StringVar(&f.store, "store", "", "read /nix/store/... below this folder")
	fl.StringVar(&f.init, "init", "", "first stage program (default: xnode-init beside xnodeos or in its libexec folder)")
	fl.StringVar(&f.xnode, "xnode", "", "agent's program for pocket (default: xnode, found likewise; without it pocket has no agent)")
	fl.StringVar(&f.takeover, "takeover", "", "program that takes a machine over (default: xnode-takeover, found likewise)")
	fl.StringVar(&f.bootDir, "boot-dir", "", "folder with the boot loaders (default: boot beside xnodeos or in its libexec folder)")
	fl.StringVar(&f.cache, "cache", "", "folder for pieces that later builds take again (default: the user's cache folder)")
	fl.BoolVar(&f.plan, "plan", false, "print what would be written, and write nothing")
	fl.BoolVar(&f.json, "json", false, "print the result (or the plan) as JSON")
	completeBuildFlags(cmd)
	return cmd
}

func completeBuildFlags(cmd *cobra.Command) {
	dirs := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("format", oneOf(imagebuild.FormatNames()...)))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("system", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"pocket"}, cobra.ShellCompDirectiveDefault
	}))
	for _, name := range []string{"out", "node-config", "store", "boot-dir", "cache"} {
		cobra.CheckErr(cmd.RegisterFlagCompletionFunc(name, dirs))
	}
}

func runImageBuild(cmd *cobra.Command, f buildFlags) error {
	ctx, began := cmd.Context(), time.Now()
	if f.sign != "" && !(cmd.Flags().Changed("sequence") && cmd.Flags().Changed("time")) {
		return usagef("--sign needs --sequence and --time: a signature binds them")
	}
	opt, err := f.options()
	if err != nil {
		return err
	}
	var signer *sshsign.Signer
	if f.sign != "" && !f.plan {
		if signer, err = openSigner(ctx, f.sign); err != nil {
			return err
		}
	}
	progress, wait := newProgress(cmd.ErrOrStderr(), f.json)
	defer wait()
	cache, err := cacheFolder(f.cache)
	if err != nil {
		return err
	}
	in, err := loadInputs(ctx, f, cache, cmd.ErrOrStderr(), progress, opt)
	if err != nil {
		return err
	}
	plan, err := imagebuild.NewPlan(in, opt)
	if err != nil {
		return err
	}
	if f.plan {
		return printPlan(cmd.OutOrStdout(), plan, f.json)
	}
	result, err := plan.Write(ctx, f.out, cache, signer, progress)
	if err != nil {
		return err
	}
	wait()
	return printResult(cmd.OutOrStdout(), plan, result, time.Since(began), f.json)
}

// options checks the flags before anything is read or written.
func (f buildFlags) options() (imagebuild.Options, error) {
	var opt imagebuild.Options
	if f.system == "" {
		return opt, usagef("--system is missing; name a store path, an out-link, a flake reference or pocket")
	}
	if f.out == "" && !f.plan {
		return opt, usagef("--out is missing; name the folder for the results")
	}
	formats, err := imagebuild.ParseFormats(f.formats)
	if err != nil {
		return opt, usagef("--format: %w", err)
	}
	when, err := buildTime(f.time, os.Getenv("SOURCE_DATE_EPOCH"))
	if err != nil {
		return opt, err
	}
	opt = imagebuild.Options{Formats: formats, EmbedPayload: f.embed, PayloadURLs: f.urls, Sequence: f.sequence, Time: when}
	if err := opt.Validate(); err != nil {
		return opt, &usageError{err}
	}
	return opt, nil
}

// buildTime is --time, else SOURCE_DATE_EPOCH (reproducible-builds.org), else
// the constant 1 as in the Nix store: never the clock, or no two builds would
// be the same.
func buildTime(flag, epoch string) (int64, error) {
	name, text := "--time", flag
	if text == "" {
		name, text = "SOURCE_DATE_EPOCH", epoch
	}
	if text == "" {
		return 1, nil
	}
	t, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, usagef("%s: %q is not a number of seconds since 1970", name, text)
	}
	return t, nil
}

func loadInputs(ctx context.Context, f buildFlags, cache string, stderr io.Writer, progress imagebuild.Progress, opt imagebuild.Options) (imagebuild.Inputs, error) {
	var in imagebuild.Inputs
	var config *nodeconfig.Config
	if f.nodeConfig != "" {
		var err error
		if config, err = nodeconfig.ReadDir(f.nodeConfig); err != nil {
			return in, err
		}
	}
	init, err := findProgram("xnode-init", "--init", f.init)
	if err != nil {
		return in, err
	}
	var takeover imagebuild.Blob
	if slices.Contains(opt.Formats, imagebuild.Takeover) {
		if takeover, err = findProgram("xnode-takeover", "--takeover", f.takeover); err != nil {
			return in, err
		}
	}
	loaders, err := findLoaders(f.bootDir, opt.Formats)
	if err != nil {
		return in, err
	}
	system, err := resolveSystem(ctx, systemSource{word: f.system, store: nix.Store{Dir: f.store}, cache: cache, xnode: f.xnode, log: stderr, quiet: f.json})
	if err != nil {
		return in, err
	}
	in, err = imagebuild.Load(ctx, system.store, system.path, filepath.Join(cache, "closure"), progress)
	if err != nil {
		return in, err
	}
	in.Init, in.Takeover, in.Loaders, in.NodeConfig = init, takeover, loaders, config
	return in, nil
}

func printPlan(w io.Writer, plan *imagebuild.Plan, asJSON bool) error {
	if asJSON {
		return writeJSON(w, plan)
	}
	_, err := io.WriteString(w, plan.Text())
	return err
}

func printResult(w io.Writer, plan *imagebuild.Plan, result *imagebuild.Result, took time.Duration, asJSON bool) error {
	if asJSON {
		return writeJSON(w, struct {
			*imagebuild.Result
			Label   string  `json:"label"`
			System  string  `json:"system"`
			Seconds float64 `json:"seconds"`
		}{result, plan.Label, plan.System, took.Seconds()})
	}
	for _, file := range result.Files {
		fmt.Fprintf(w, "%9s  %s\n", formatSize(file.Size), filepath.Join(result.Dir, file.Name))
	}
	_, err := fmt.Fprintf(w, "%s (%s) in %.1f s, manifest %s\n", plan.Label, plan.System, took.Seconds(), result.Manifest)
	return err
}

func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}
