package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/nix"
	"xnodeos.org/nixos/pocket"
)

// builtSystem is a toplevel in a store.
type builtSystem struct {
	store nix.Store
	path  nix.StorePath
}

// systemSource says where a system comes from.
type systemSource struct {
	word  string    // what --system says
	store nix.Store // where it is, unless it is built
	cache string
	xnode string // the agent's program for pocket; empty: beside xnodeos
	log   io.Writer
	quiet bool
}

// resolveSystem turns what --system says into a toplevel: pocket and flake
// references are built, anything else must be there.
func resolveSystem(ctx context.Context, from systemSource) (builtSystem, error) {
	switch word := from.word; {
	case word == "pocket" || strings.HasPrefix(word, "pocket:"):
		if from.store.Dir != "" {
			return builtSystem{}, usagef("--store does not go with --system pocket, which chooses its store itself")
		}
		opt, err := pocketOptions(word, from.cache)
		if err != nil {
			return builtSystem{}, err
		}
		if err := opt.findAgent(from.xnode); err != nil {
			return builtSystem{}, err
		}
		opt.Log = func(line string) {
			if !from.quiet {
				fmt.Fprintln(from.log, line)
			}
		}
		path, where, err := pocket.Build(ctx, opt.Options)
		return builtSystem{where, path}, err
	case isFlakeRef(word):
		path, err := buildFlake(ctx, word, from.log)
		return builtSystem{from.store, path}, err
	default:
		path, err := from.store.Resolve(word)
		return builtSystem{from.store, path}, err
	}
}

// pocketSettings are what stands behind "pocket:".
type pocketSettings struct {
	pocket.Options
	noAgent bool
}

// findAgent takes the agent's program from the flag's file or beside xnodeos.
// An xnodeos that came without it makes systems without the agent.
func (s *pocketSettings) findAgent(flag string) error {
	if s.noAgent {
		return nil
	}
	if flag != "" {
		s.Xnode = flag
		return nil
	}
	dirs, err := besideExecutable()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		path := filepath.Join(dir, "xnode")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			s.Xnode = path
			return nil
		}
	}
	return nil
}

// isFlakeRef tells "github:a/b#c" and ".#c" from a path.
func isFlakeRef(word string) bool {
	return strings.Contains(word, "#") || strings.HasPrefix(word, "github:") ||
		strings.HasPrefix(word, "path:") || strings.HasPrefix(word, "git+")
}

// buildFlake lets nix build the reference and returns its output. --json,
// because nix 2.8 has no --print-out-paths.
func buildFlake(ctx context.Context, ref string, stderr io.Writer) (nix.StorePath, error) {
	out, err := command.Output(ctx, command.Cmd{
		Name:   "nix",
		Args:   []string{"--extra-experimental-features", "nix-command flakes", "build", "--no-link", "--json", ref},
		Stderr: stderr, Package: "nix-bin",
	})
	if err != nil {
		return "", fmt.Errorf("build %q: %w", ref, err)
	}
	var built []struct {
		Outputs map[string]string `json:"outputs"`
	}
	if err := json.Unmarshal(out, &built); err != nil {
		return "", fmt.Errorf("build %q: read what nix built: %w", ref, err)
	}
	if len(built) != 1 || built[0].Outputs["out"] == "" {
		return "", usagef("%q is not one system; name its config.system.build.toplevel", ref)
	}
	return nix.ParseStorePath(built[0].Outputs["out"])
}

// pocketOptions reads "pocket:key=value,key=value".
func pocketOptions(word, cache string) (pocketSettings, error) {
	opt := pocketSettings{Options: pocket.Options{Cache: cache}}
	_, settings, found := strings.Cut(word, ":")
	if !found {
		return opt, nil
	}
	for setting := range strings.SplitSeq(settings, ",") {
		key, value, ok := strings.Cut(setting, "=")
		if !ok || value == "" {
			return opt, usagef("--system %s: %q is not key=value", word, setting)
		}
		switch key {
		case "label":
			opt.Label = value
		case "handover":
			opt.Handover = value
		case "broken":
			opt.Broken = value
		case "greeting":
			opt.Greeting = value
		case "switch-ends":
			opt.SwitchEnds = value
		case "agent":
			if value != "none" {
				return opt, usagef("--system %s: agent=%s: it can be none; --xnode names another program", word, value)
			}
			opt.noAgent = true
		default:
			return opt, usagef("--system %s: %q is not one of label, handover, greeting, broken, switch-ends, agent", word, key)
		}
	}
	return opt, nil
}
