// Package repo brings the config repository of the fleet onto the node: the
// one commit that a verified record announces, without its history, and the
// files of the branch "announce".
//
// It trusts no remote. A commit counts because a record names it (and its
// release.json because the record binds its SHA-256); a remote can be slow,
// endless, wrong or dead, and then the next one is asked and nothing on the
// node has changed. Nothing is checked out and no program is started. The
// protocol is git's version 0 with go-git for its packets, packs and objects;
// connections, limits and the delta resolution are ours, because go-git reads
// error pages, advertisements and bases of deltas without a bound.
package repo

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"xnodeos.org/internal/gitcommit"
)

// keep is how many fetched commits stay on disk: the newest, and the one that
// a reader may still hold open.
const keep = 2

// Options say where the repository comes from and where it is kept. Dir and
// Remotes are needed.
type Options struct {
	// Dir is a folder of this package's own; it is made if it is missing.
	// Each fetched commit is one bare repository in it.
	Dir string
	// Remotes are asked in this order: https://, http://, ssh:// or
	// user@host:path, file:// or an absolute path.
	Remotes []string
	// SSHKey is the private key file (a deploy key without passphrase) for
	// ssh remotes, KnownHosts the file with their ed25519 host keys in
	// OpenSSH's format. Both are read at each fetch.
	SSHKey, KnownHosts string
	// RootCAs replace the system's certificate authorities if not nil.
	RootCAs *x509.CertPool
	// Proxy chooses a proxy for http and https, nil for none.
	Proxy func(*http.Request) (*url.URL, error)
	// Limits bound one attempt at one remote; zero fields mean DefaultLimits.
	Limits Limits
	// Log gets what was tried; nil discards.
	Log *slog.Logger
}

// Repo is the node's view of the config repository. Its methods can be called
// at the same time; one Fetch waits for the other.
type Repo struct {
	opt     Options
	remotes []*remote
	lock    sync.Mutex // held by Fetch, which removes old commits
}

// RemoteError is what one remote did wrong.
type RemoteError struct {
	Remote string // without password
	Err    error
}

func (e *RemoteError) Error() string { return fmt.Sprintf("remote %q: %v", e.Remote, e.Err) }
func (e *RemoteError) Unwrap() error { return e.Err }

// RefError is a remote that has no such ref or names another commit by it, as
// after a forced push.
type RefError struct {
	Ref  string
	Want string // the announced commit, "" if any will do
	Got  string // "" if the remote has no such ref
}

func (e *RefError) Error() string {
	if e.Got == "" {
		return fmt.Sprintf("it has no %s yet; push it with: xnodeos release", e.Ref)
	}
	return fmt.Sprintf("its %s names %s, announced is %s; the tag was moved or the remote is not the announced one", e.Ref, e.Got, e.Want)
}

// Open checks the options and makes the folder. What a killed fetch left
// behind is removed.
func Open(opt Options) (*Repo, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	opt.Limits = opt.Limits.orDefault()
	r := &Repo{opt: opt}
	for _, text := range opt.Remotes {
		rem, err := parseRemote(text)
		if err != nil {
			return nil, err
		}
		if rem.kind == kindSSH {
			if err := checkSSH(opt, rem); err != nil {
				return nil, err
			}
		}
		r.remotes = append(r.remotes, rem)
	}
	if !filepath.IsAbs(opt.Dir) {
		return nil, fmt.Errorf("folder %q of the repository is not absolute", opt.Dir)
	}
	if err := os.MkdirAll(opt.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make folder of the repository: %w", err)
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	return r, r.removeLeftovers()
}

// Fetch returns the announced commit of a release: from disk if it was fetched
// before, else from the first remote whose lightweight tag xnode/<seq> names
// it. The commit is the announced one and all of its objects hash to their
// names; who signed it is not judged here (see Snapshot.CommitObject). On any
// error, errors.Join of one *RemoteError for each remote, nothing has changed.
func (r *Repo) Fetch(ctx context.Context, seq uint32, commit string) (*Snapshot, error) {
	if seq == 0 || !gitcommit.IsID(commit) {
		return nil, fmt.Errorf("fetch release %d: %q is no commit id of 40 lower-case hex digits", seq, commit)
	}
	r.lock.Lock()
	defer r.lock.Unlock()
	if s, err := r.open(seq, commit); err == nil {
		return s, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		// A damaged copy is no reason to fail: it is only a copy.
		r.opt.Log.Warn("fetched commit is damaged; fetching it again", "commit", commit, "err", err)
		if err := os.RemoveAll(r.path(seq, commit)); err != nil {
			return nil, fmt.Errorf("fetch release %d: remove the damaged copy: %w", seq, err)
		}
	}
	var errs []error
	for _, rem := range r.remotes {
		err := r.fetchFrom(ctx, rem, seq, commit)
		if err == nil {
			s, err := r.open(seq, commit)
			if err == nil {
				s.Remote = rem.name
				if err := r.prune(); err != nil {
					r.opt.Log.Warn("old commits stay on disk", "err", err)
				}
				return s, nil
			}
			errs = append(errs, err)
			continue
		}
		if ctx.Err() != nil {
			return nil, fmt.Errorf("fetch release %d: %w", seq, context.Cause(ctx))
		}
		r.opt.Log.Warn("remote gave no release", "remote", rem.name, "seq", seq, "err", err)
		errs = append(errs, &RemoteError{rem.name, err})
	}
	if len(r.remotes) == 0 {
		errs = []error{errors.New("no remote is configured; set [git] remotes in agent.toml")}
	}
	return nil, fmt.Errorf("fetch release %d: %w", seq, errors.Join(errs...))
}

// path is the bare repository of one fetched commit.
func (r *Repo) path(seq uint32, commit string) string {
	return filepath.Join(r.opt.Dir, fmt.Sprintf("%d-%s.git", seq, commit))
}

// removeLeftovers deletes what is no finished fetch.
func (r *Repo) removeLeftovers() error {
	entries, err := os.ReadDir(r.opt.Dir)
	if err != nil {
		return fmt.Errorf("look into the folder of the repository: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), tempSuffix) {
			errs = append(errs, os.RemoveAll(filepath.Join(r.opt.Dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// prune deletes all but the newest fetched commits, so that the folder stays
// as small after a thousand releases as after two.
func (r *Repo) prune() error {
	entries, err := os.ReadDir(r.opt.Dir)
	if err != nil {
		return fmt.Errorf("look for old commits: %w", err)
	}
	type old struct {
		name string
		time int64
	}
	var all []old
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !strings.HasSuffix(e.Name(), ".git") {
			continue
		}
		all = append(all, old{e.Name(), info.ModTime().UnixNano()})
	}
	slices.SortFunc(all, func(a, b old) int {
		if a.time != b.time {
			return cmp.Compare(b.time, a.time)
		}
		return strings.Compare(a.name, b.name)
	})
	var errs []error
	for _, o := range all[min(keep, len(all)):] {
		errs = append(errs, os.RemoveAll(filepath.Join(r.opt.Dir, o.name)))
	}
	return errors.Join(errs...)
}
