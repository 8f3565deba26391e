// Package localbuild plans how a node builds a release by itself when no cache
// has it: nix build in a transient unit with a limit of memory and time, from
// the announced commit, with nothing that the repository could turn on.
//
// It only plans and judges; starting the unit is agent/units'. Whether a commit
// may be built at all (its signature) is decided before, and what comes out
// counts only if it is exactly the system that the release names.
package localbuild

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/unit"
)

// UnitName is the unit that builds; there is never more than one.
const UnitName = "xnode-build.service"

// Request is what to build and how far it may go. All fields but Caches and
// Store are needed.
type Request struct {
	Nix       string        // the nix program, by absolute path
	Repo      string        // the fetched repository, a bare one, absolute
	Ref       string        // a ref of it that leads to the commit, as in "refs/tags/xnode/1042"
	Commit    string        // 40 hex digits
	Attribute string        // as in "nixosConfigurations.edge.config.system.build.toplevel"
	System    nix.StorePath // what the release says comes out
	Link      string        // becomes a symlink to the result and holds it against the garbage collector
	Memory    uint64        // bytes, of evaluation and builders together
	Limit     time.Duration // of the whole build
	Caches    []string      // substituters for inputs; none
	Store     string        // "local" if empty: see Plan
}

// Plan returns the unit. It runs as root on the store itself and not through
// nix-daemon: builders are then children of this unit and fall under its limits,
// as users of their own in Nix's sandbox.
//
// The repository decides about nothing but derivations: its nixConfig is not
// taken, its lock file is not changed, evaluation is pure, builds during
// evaluation and remote builders are off.
func Plan(r Request) (unit.Service, error) {
	if err := r.check(); err != nil {
		return unit.Service{}, fmt.Errorf("plan a local build: %w", err)
	}
	store := r.Store
	if store == "" {
		store = "local"
	}
	argv := []string{
		r.Nix, "--extra-experimental-features", "nix-command flakes", "build", "--store", store,
		"--option", "accept-flake-config", "false", "--option", "allow-import-from-derivation", "false", "--option", "pure-eval", "true",
		"--option", "builders", "", "--option", "fallback", "true", "--option", "max-jobs", "1", "--option", "connect-timeout", "10",
		"--option", "substituters", strings.Join(r.Caches, " "), "--option", "use-registries", "false",
		"--no-update-lock-file", "--no-write-lock-file", "--out-link", r.Link,
		"git+file://" + r.Repo + "?rev=" + r.Commit + "&ref=" + r.Ref + "&shallow=1#" + r.Attribute,
	}
	return unit.Service{
		Name: UnitName, Description: "Build the announced XnodeOS release", Argv: argv,
		// The repository belongs to the follower, and git refuses one of another user.
		Env:        []string{"HOME=/var/empty", "GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=" + r.Repo},
		RuntimeMax: r.Limit, MemoryMax: r.Memory, TasksMax: 512,
	}, nil
}

func (r Request) check() error {
	for what, path := range map[string]string{"nix program": r.Nix, "repository": r.Repo, "link": r.Link} {
		if !filepath.IsAbs(path) || path != filepath.Clean(path) || strings.ContainsAny(path, "?#%& \t\n") {
			return fmt.Errorf("the path %q of the %s; want an absolute one without ? # %% & and spaces", path, what)
		}
	}
	if _, err := nix.ParseStorePath(string(r.System)); err != nil {
		return fmt.Errorf("system: %w", err)
	}
	switch {
	case len(r.Commit) != 40 || strings.Trim(r.Commit, "0123456789abcdef") != "":
		return fmt.Errorf("commit %q; want 40 hex digits", r.Commit)
	case !ref(r.Ref):
		return fmt.Errorf("ref %q; want a whole one, as in refs/tags/xnode/1042", r.Ref)
	case !attribute(r.Attribute):
		return fmt.Errorf("attribute %q; want names with dots between them, as in nixosConfigurations.edge.config.system.build.toplevel", r.Attribute)
	case r.Memory < 64<<20:
		return fmt.Errorf("memory of %d bytes; nix build needs at least 64 MiB: raise memory in [build] of agent.toml", r.Memory)
	case r.Limit <= 0:
		return errors.New("no limit of time; want one greater than 0")
	}
	for _, c := range r.Caches {
		if c == "" || strings.ContainsAny(c, " \t\n") {
			return fmt.Errorf("cache %q; want a URL", c)
		}
	}
	return nil
}

// ref takes whole names of refs without anything that a URL or git gives a meaning.
func ref(text string) bool {
	rest, ok := strings.CutPrefix(text, "refs/")
	return ok && len(text) <= 200 && !strings.Contains(text, "..") && !strings.Contains(text, "//") && rest != "" &&
		strings.Trim(rest, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/._-") == ""
}

// attribute takes plain attribute paths only: no quotes, no ^ and no spaces,
// which nix build gives a meaning.
func attribute(text string) bool {
	if text == "" || len(text) > 500 {
		return false
	}
	for name := range strings.SplitSeq(text, ".") {
		if name == "" || name[0] == '-' || strings.Trim(name, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-'") != "" {
			return false
		}
	}
	return true
}

// OtherError is a build that came out as something else than the release says:
// the sources are not those of the release, or it was not built from them.
type OtherError struct {
	Got, Want string
}

func (e *OtherError) Error() string {
	return fmt.Sprintf("the local build came out as %s, but the release names %s: it is not applied; make the release anew from a clean tree", e.Got, e.Want)
}

// Judge says whether the build succeeded and is the release's system. Otherwise
// the link is removed.
func Judge(r Request, result unit.Result) error {
	if !result.Success() {
		return errors.Join(fmt.Errorf("local build: %s; see: journalctl -u %s", result, UnitName), remove(r.Link))
	}
	got, err := os.Readlink(r.Link)
	if err != nil {
		return fmt.Errorf("local build: read its result: %w", err)
	}
	if got != string(r.System) {
		return errors.Join(&OtherError{Got: got, Want: string(r.System)}, remove(r.Link))
	}
	return nil
}

func remove(link string) error {
	if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
