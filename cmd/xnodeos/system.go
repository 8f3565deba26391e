package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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

// resolveSystem turns what --system says into a toplevel: pocket and flake
// references are built, anything else must be there.
func resolveSystem(ctx context.Context, word string, store nix.Store, cache string, stderr io.Writer, quiet bool) (builtSystem, error) {
	switch {
	case word == "pocket" || strings.HasPrefix(word, "pocket:"):
		if store.Dir != "" {
			return builtSystem{}, usagef("--store does not go with --system pocket, which chooses its store itself")
		}
		opt, err := pocketOptions(word, cache)
		if err != nil {
			return builtSystem{}, err
		}
		opt.Log = func(line string) {
			if !quiet {
				fmt.Fprintln(stderr, line)
			}
		}
		path, where, err := pocket.Build(ctx, opt)
		return builtSystem{where, path}, err
	case isFlakeRef(word):
		path, err := buildFlake(ctx, word, stderr)
		return builtSystem{store, path}, err
	default:
		path, err := store.Resolve(word)
		return builtSystem{store, path}, err
	}
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
func pocketOptions(word, cache string) (pocket.Options, error) {
	opt := pocket.Options{Cache: cache}
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
		default:
			return opt, usagef("--system %s: %q is not one of label, handover, broken", word, key)
		}
	}
	return opt, nil
}
