package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/agent"
	"xnodeos.org/agent/follower"
	"xnodeos.org/agent/journal"
	"xnodeos.org/internal/mirror"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/cache"
	"xnodeos.org/internal/nix/daemon"
	"xnodeos.org/internal/nix/substitute"
)

// store brings closures into the Nix store through the daemon.
type store struct {
	at       layout
	socket   string
	parallel int
	// keep has what was fetched kept for the next boot: on a live node whose
	// state outlives it.
	keep  bool
	http  *http.Client
	log   *slog.Logger
	start time.Time

	// held keeps the paths of the last run from the garbage collector until
	// the applier has made roots of its own. It is a connection, and so a
	// process of the daemon.
	held *substitute.Result
}

// Realise implements follower.Store.
func (s *store) Realise(ctx context.Context, target agent.Target, urls []string, progress func(follower.Transfer)) error {
	options, err := s.options(target, urls)
	if err != nil {
		return err
	}
	options.Progress = func(p substitute.Progress) {
		progress(follower.Transfer{Paths: p.TotalPaths, PathsDone: p.Paths, Bytes: p.TotalBytes, BytesDone: p.Bytes})
	}
	result, err := substitute.Run(ctx, options)
	if err != nil {
		return err
	}
	s.Release()
	s.held = result
	for _, r := range result.Reports {
		if len(r.Faults) > 0 {
			s.log.Warn("a cache was at fault", "report", r.String())
		}
	}
	if result.KeepErr != nil {
		s.log.Warn("the release is not kept for the next boot", "error", result.KeepErr)
	}
	if s.keep {
		err = errors.Join(err, s.prune(result.List))
	}
	if err != nil {
		s.log.Warn("clean up after a download", "error", err)
	}
	return nil
}

// Release implements follower.Store.
func (s *store) Release() {
	if s.held != nil {
		s.held.Close()
		s.held = nil
	}
}

func (s *store) options(target agent.Target, urls []string) (substitute.Options, error) {
	o := substitute.Options{
		Connect: func(ctx context.Context) (*daemon.Conn, error) {
			return daemon.Dial(ctx, daemon.Options{Socket: s.socket})
		},
		Parallel: s.parallel,
		Root:     s.at.state("follower/gcroot"),
		Free:     s.at.roomInStore,
		Read: cache.Options{
			Clock: func() time.Duration { return time.Since(s.start) },
			OnFault: func(name string, f mirror.Fault) {
				s.log.Info("a fault of a cache", "cache", name, "fault", f.Error())
			},
		},
	}
	var err error
	if o.Digest, err = nix.ParseHash(target.Closure); err != nil {
		return o, fmt.Errorf("closure of the release: %w", err)
	}
	if o.System, err = nix.ParseStorePath(target.System); err != nil {
		return o, fmt.Errorf("system of the release: %w", err)
	}
	if s.keep {
		o.Keep = s.at.state("cache")
	}
	seen := map[string]bool{}
	for _, u := range urls {
		if seen[u] {
			continue
		}
		seen[u] = true
		c, err := cache.Open(u, s.http)
		if err != nil {
			return o, err
		}
		o.Caches = append(o.Caches, c)
	}
	if len(o.Caches) == 0 && !s.keep {
		return o, errors.New("no cache is named, neither in agent.toml ([cache] urls) nor by the release")
	}
	return o, nil
}

// prune leaves the kept cache with what is about to be tried and what it would
// go back to.
func (s *store) prune(candidate *nix.ClosureList) error {
	keep := []*nix.ClosureList{candidate}
	_, closure, err := journal.OpenReleases(s.at.state("applier")).LastGood()
	switch {
	case err == nil:
		digest, err := nix.ParseHash(closure)
		if err != nil {
			return fmt.Errorf("last-good's closure: %w", err)
		}
		data, err := os.ReadFile(s.at.state("cache", cache.ListName(digest)))
		if err == nil {
			var list *nix.ClosureList
			list, err = nix.ParseClosureList(data)
			keep = append(keep, list)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("last-good's closure list: %w", err)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	_, err = cache.Prune(s.at.state("cache"), keep...)
	return err
}

// roomInStore is how many bytes the store's file system has left for everybody.
func (l layout) roomInStore() (int64, error) {
	var at unix.Statfs_t
	if err := unix.Statfs(l.path("nix/store"), &at); err != nil {
		return 0, fmt.Errorf("look for room in the store: %w", err)
	}
	return int64(at.Bavail) * at.Bsize, nil
}

// durable says whether the agent's state outlives a reboot.
func (l layout) durable() bool {
	var at unix.Statfs_t
	if unix.Statfs(l.state(), &at) != nil {
		return false
	}
	return at.Type != unix.TMPFS_MAGIC && at.Type != unix.RAMFS_MAGIC && at.Type != unix.OVERLAYFS_SUPER_MAGIC
}
