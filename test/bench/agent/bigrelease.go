package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"xnodeos.org/agent/statusapi"
	"xnodeos.org/internal/testkit/gitserver"
	"xnodeos.org/internal/testkit/nixstore"
	"xnodeos.org/test/bench/rows"
	"xnodeos.org/test/node"
)

// applyBig has the running follower apply a release as large as one has to be
// expected: 10 MB of config repository and about 300 MB of closure, through the
// machine's real nix-daemon.
func (f *fleet) applyBig(ctx context.Context) (system string, took time.Duration, err error) {
	system, store, err := f.bigSystem(ctx)
	if err != nil {
		return "", 0, err
	}
	if err := f.bigRepository(ctx); err != nil {
		return "", 0, err
	}
	got, err := f.site.ReleaseFrom(ctx, store, system)
	if err != nil {
		return "", 0, err
	}
	begun := time.Now()
	client := f.client()
	if err := client.Poll(ctx); err != nil {
		return "", 0, err
	}
	err = f.await(ctx, func(s *statusapi.Status) bool {
		return s.Record != nil && s.Record.Sequence == got.Sequence && s.Phase == "SETTLED" && s.Systems.LastGoodLive == system
	})
	return system, time.Since(begun), err
}

// bigSystem makes the closure in a store of its own, which stands in the way of
// nobody.
func (f *fleet) bigSystem(ctx context.Context) (system, store string, err error) {
	origin, err := nixstore.Make(filepath.Join(f.work, "origin"), "")
	if err != nil {
		return "", "", err
	}
	paths := benchClosure()
	return node.SystemOf("big"), origin.Store.Dir, node.AddSystem(ctx, origin, "big", paths[:len(paths)-1]...)
}

// bigRepository adds 10 MB to the config repository.
func (f *fleet) bigRepository(ctx context.Context) error {
	for name, text := range gitCases()[0].files {
		file := filepath.Join(f.site.Repo, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, args := range [][]string{{"add", "--all"}, {"commit", "--quiet", "--no-gpg-sign", "--message=many packages"}} {
		if _, err := gitserver.Git(ctx, f.site.Repo, args...); err != nil {
			return err
		}
	}
	return nil
}

// serveStore starts the nix-daemon of the node where the follower looks for it.
func (f *fleet) serveStore(ctx context.Context) error {
	key, err := os.ReadFile(filepath.Join(f.site.Node, "nix-keys"))
	if err != nil {
		return err
	}
	store, err := nixstore.Make(filepath.Join(f.work, "store"), "require-sigs = true\ntrusted-users =\nallowed-users = *\ntrusted-public-keys = "+strings.TrimSpace(string(key))+"\n")
	if err != nil {
		return err
	}
	served, end := context.WithCancel(ctx)
	socket, wait, err := store.Daemon(served)
	if err != nil {
		end()
		return err
	}
	f.closers = append(f.closers, func() error { end(); wait(); return nil })
	at := filepath.Join(f.node.Root(), "nix/var/nix/daemon-socket")
	return errors.Join(os.MkdirAll(at, 0o755), os.Symlink(socket, filepath.Join(at, "socket")))
}

func peakRow(u usage, took time.Duration) []rows.Row {
	return []rows.Row{
		rows.New("release of 10 MB in git and 300 MB in the store: the follower's peak RSS", mib(u.peak), "MiB").AtMost(60),
		rows.New("the same: from poll to SETTLED", took.Seconds(), "s"),
	}
}
