// Package releasing is the operator's side of a release: it makes a config
// repository, and it brings the systems of the fleet's classes into a binary
// cache, release.json into a signed commit under a tag, and the record that
// announces it into git and DNS.
//
// Every step looks first at what is there already, so that a release that was
// cut off goes on where it ended and one that is repeated changes nothing. The
// order is the promise: a record is never published before everything that it
// names can be fetched. The package asks for nothing and opens no key; cmd does.
package releasing

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/bootspec"
	"xnodeos.org/internal/dnsupdate"
	"xnodeos.org/internal/fleet"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/cache"
	"xnodeos.org/internal/release"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/trust"
)

// DefaultArch is the architecture of a system that is named without one.
const DefaultArch = "x86_64-linux"

// SignersFile is the list of who may sign what, in the repository.
const SignersFile = "trust/allowed_signers"

// Publisher puts a record into DNS. *dnsupdate.Update and *dnsupdate.API are
// ones.
type Publisher interface {
	Publish(ctx context.Context, r dnsupdate.Record) error
}

// Built is a system in a store.
type Built struct {
	Store nix.Store
	Path  nix.StorePath
}

// Options of a release.
type Options struct {
	Dir      string // the clone, or a folder in it
	Settings *Settings
	// Systems names systems by "class" or "class/arch": what Build takes. A
	// class that is not named is built from its flake attribute.
	Systems map[string]string
	// Build turns a word (a path, a flake reference) into a system.
	Build func(ctx context.Context, word string) (Built, error)
	// Announce and Git sign; Git may be nil for a fleet whose allowed_signers
	// names no key for git. CacheKey signs the cache's paths.
	Announce, Git *sshsign.Signer
	CacheKey      *nix.CacheKey
	DNS           Publisher // nil: branch announce only
	Now           func() time.Time
	// Tell gets each step when it is done.
	Tell func(Step)
	// DryRun only looks: nothing is built, written or sent.
	DryRun bool
}

// Step is one thing that a release does.
type Step struct {
	Name   string `json:"name"`
	State  string `json:"state"` // done, kept (it was so already), planned, failed (and gone on without)
	Detail string `json:"detail"`
}

// Result is what a release made or found made.
type Result struct {
	Sequence uint32 `json:"sequence"`
	Commit   string `json:"commit,omitempty"`
	Tag      string `json:"tag,omitempty"`
	Owner    string `json:"owner"`
	Record   string `json:"record,omitempty"`
	Halted   bool   `json:"halted"`
	Steps    []Step `json:"steps"`
}

// run is one release while it is made.
type run struct {
	Options
	clone
	branch  string // full name of the branch that is checked out
	head    string
	config  *fleet.Config
	owner   string
	signers *trust.Signers
	result  Result
	// brake: a halt must reach the nodes although a remote cannot be.
	brake bool
}

func (r *run) step(name, state, format string, args ...any) {
	if r.DryRun && state == "done" {
		state = "planned"
	}
	s := Step{name, state, fmt.Sprintf(format, args...)}
	r.result.Steps = append(r.result.Steps, s)
	if r.Tell != nil {
		r.Tell(s)
	}
}

// Release makes the next release, or brings the last one to its end. The
// result is not nil beside an error: it tells how far it came.
func Release(ctx context.Context, o Options) (*Result, error) {
	r, err := start(ctx, o)
	if err != nil {
		return &Result{}, err
	}
	return &r.result, r.release(ctx)
}

func start(ctx context.Context, o Options) (*run, error) {
	r := &run{Options: o}
	var err error
	if r.clone, r.branch, err = openClone(ctx, o.Dir); err != nil {
		return nil, err
	}
	if err := r.checkClean(ctx, []string{release.FileName, release.NodesName}, !o.DryRun); err != nil {
		return nil, err
	}
	if r.config, err = fleet.Load(os.DirFS(r.dir)); err != nil {
		return nil, err
	}
	if r.owner, err = announce.Owner(r.config.Fleet.Record); err != nil {
		return nil, err
	}
	if len(r.Settings.Remotes) == 0 {
		r.Settings.Remotes = r.config.Fleet.Remotes
	}
	if r.head, err = r.git(ctx, nil, "rev-parse", "-q", "--verify", "HEAD^{commit}"); err != nil {
		return nil, fmt.Errorf("the branch has no commit yet; commit first: %w", err)
	}
	r.result.Owner = r.owner
	return r, r.checkSigners()
}

// checkSigners refuses keys that nodes would refuse.
func (r *run) checkSigners() error {
	data, err := os.ReadFile(filepath.Join(r.dir, SignersFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: nodes must know who may announce; xnodeos init writes one", SignersFile)
	}
	if err == nil {
		r.signers, err = trust.Parse(data)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", SignersFile, err)
	}
	for role, signer := range map[string]*sshsign.Signer{trust.NamespaceAnnounce: r.Announce, trust.NamespaceGit: r.Git} {
		if signer == nil {
			continue
		}
		if _, err := r.signers.Authorize(role, signer.PublicKey()); err != nil {
			return fmt.Errorf("%s does not take %s for %s: %w", SignersFile, signer, role, err)
		}
	}
	return nil
}

func (r *run) release(ctx context.Context) error {
	if err := r.checkRemotes(ctx); err != nil {
		return err
	}
	have, err := r.records(ctx)
	if err != nil {
		return err
	}
	next, err := r.compose(ctx)
	if err != nil {
		return err
	}
	commit, data, err := r.commitRelease(ctx, next, have.newest)
	if err != nil || r.DryRun {
		if err == nil {
			r.step("record", "done", "sign for %s", r.owner)
			r.planPublish()
		}
		return err
	}
	if err := r.push(ctx, commit); err != nil {
		return err
	}
	record, err := r.sign(ctx, have.newest, announce.Record{Sequence: r.result.Sequence, Commit: commit, Digest: release.Digest(data)})
	if err != nil {
		return err
	}
	return r.publish(ctx, have, record)
}

func (r *run) planPublish() {
	for _, remote := range r.Settings.Remotes {
		r.step("announce", "done", "push branch announce to %s", shown(remote))
	}
	if r.DNS != nil {
		r.step("dns", "done", "publish at %s", r.owner)
	}
}

// checkRemotes refuses to build on a branch that a remote is ahead of: the
// push would fail after all the work.
func (r *run) checkRemotes(ctx context.Context) error {
	for _, remote := range r.Settings.Remotes {
		tip, err := r.remoteRef(ctx, remote, r.branch)
		if err != nil {
			return fmt.Errorf("look at remote %q: %w", shown(remote), err)
		}
		if tip == "" {
			continue
		}
		known, err := r.says(ctx, "merge-base", "--is-ancestor", tip, r.head)
		if err != nil || !known {
			return fmt.Errorf("remote %q has commits on %s that are not in HEAD; get them first with: git pull --rebase", shown(remote), strings.TrimPrefix(r.branch, "refs/heads/"))
		}
	}
	return nil
}

// compose builds the systems, fills the cache and returns the release without
// its sequence and time.
func (r *run) compose(ctx context.Context) (*release.Release, error) {
	words, err := r.words()
	if err != nil {
		return nil, err
	}
	next := &release.Release{
		V: release.Version, Caches: r.config.Fleet.Caches, Policy: r.config.ReleasePolicy(),
		Classes: map[string]map[string]release.Target{},
	}
	for _, name := range slices.Sorted(maps.Keys(words)) {
		class, arch, _ := strings.Cut(name, "/")
		if r.DryRun {
			r.step("system", "done", "%s: %s", name, words[name])
			continue
		}
		target, err := r.target(ctx, class, name, words[name])
		if err != nil {
			return nil, fmt.Errorf("class %s: %w", name, err)
		}
		if next.Classes[class] == nil {
			next.Classes[class] = map[string]release.Target{}
		}
		next.Classes[class][arch] = target
	}
	return next, nil
}

// words says what to build, by "class/arch".
func (r *run) words() (map[string]string, error) {
	out := map[string]string{}
	for class, c := range r.config.Classes {
		for arch, attribute := range c.Flake {
			out[class+"/"+arch] = flakeRef(r.dir, attribute)
		}
	}
	for name, word := range r.Systems {
		class, arch, ok := strings.Cut(name, "/")
		if !ok {
			arch = DefaultArch
		}
		if _, known := r.config.Classes[class]; !known {
			return nil, &UsageError{fmt.Errorf("%s has no class %q", fleet.FileName, class)}
		}
		if err := release.CheckArch(arch); err != nil {
			return nil, &UsageError{err}
		}
		out[class+"/"+arch] = word
	}
	for class := range r.config.Classes {
		if !slices.ContainsFunc(slices.Collect(maps.Keys(out)), func(name string) bool { return strings.HasPrefix(name, class+"/") }) {
			return nil, &UsageError{fmt.Errorf("class %q has no system; name one with --system %s=/nix/store/..., or a flake attribute in %s", class, class, fleet.FileName)}
		}
	}
	return out, nil
}

// flakeRef names a system of the repository's flake. A NixOS configuration by
// its own name means its toplevel, as it does to nixos-rebuild.
func flakeRef(dir, attribute string) string {
	if name, ok := strings.CutPrefix(attribute, "nixosConfigurations."); ok && !strings.Contains(name, ".") {
		attribute += ".config.system.build.toplevel"
	}
	return dir + "#" + attribute
}

// UsageError is a call that cannot be right, whatever the state.
type UsageError struct{ Err error }

func (e *UsageError) Error() string { return e.Err.Error() }
func (e *UsageError) Unwrap() error { return e.Err }

// target builds one system and brings its closure into the cache.
func (r *run) target(ctx context.Context, class, name, word string) (release.Target, error) {
	built, err := r.Build(ctx, word)
	if err != nil {
		return release.Target{}, err
	}
	system, err := bootspec.Read(built.Store, built.Path)
	if err != nil {
		return release.Target{}, err
	}
	want := r.config.Classes[class]
	if got := release.Medium(system.Medium); got != want.Medium {
		return release.Target{}, fmt.Errorf("%s is made for the medium %q, and %s says %q; build the other system or correct the class", built.Path, got, fleet.FileName, want.Medium)
	}
	closure, err := built.Store.Closure(ctx, nix.ClosureOptions{Database: nix.Database{Store: built.Store}.Closure}, string(built.Path))
	if err != nil {
		return release.Target{}, err
	}
	list, err := nix.NewClosureList(closure)
	if err != nil {
		return release.Target{}, err
	}
	pushed, err := cache.Push(ctx, r.Settings.Cache, list, built.Store, r.CacheKey, cache.PushOptions{})
	if err != nil {
		return release.Target{}, err
	}
	state := "kept"
	if pushed.Written > 0 {
		state = "done"
	}
	r.step("cache", state, "%s: %s, %d paths, %d new with %d bytes", name, built.Path, pushed.Paths, pushed.Written, pushed.FileBytes)
	return release.Target{System: string(built.Path), Closure: pushed.Digest, Medium: want.Medium, Barrier: want.Barrier}, nil
}

// shown keeps a password in a remote's URL out of what is printed.
func shown(remote string) string {
	scheme, rest, ok := strings.Cut(remote, "://")
	if !ok {
		return remote
	}
	host, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		if user, _, has := strings.Cut(host[:at], ":"); has {
			host = user + ":xxxxx" + host[at:]
		}
	}
	return scheme + "://" + host + "/" + path
}
