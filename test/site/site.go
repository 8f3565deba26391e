// Package site is the outside world of a small fleet on this machine: the real
// PowerDNS, a real git server and a binary cache, each on a port of the
// loopback, and an operator who releases with the real xnodeos.
//
// It is for tests that boot a node, for measurements and for scripts/try. A
// guest of QEMU's user network reaches all of it under the address Gateway.
package site

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/testkit/gitserver"
	"xnodeos.org/internal/testkit/pdns"
)

const (
	// Gateway is the host as a guest of QEMU's user network sees it.
	Gateway = "10.0.2.2"
	// Zone is the fleet's part of DNS.
	Zone = "fleet.example.org"
	// Owner is the name of its record.
	Owner = "stable._xnode." + Zone
)

// Options say where a site lies.
type Options struct {
	// Dir is an empty folder for everything.
	Dir string
	// Xnodeos is the operator's program.
	Xnodeos string
	// Host is the address under which nodes see this machine; Gateway if empty.
	Host string
	// TTL is that of the record; a second if 0.
	TTL time.Duration
	// Agent are further lines of the nodes' agent.toml, before its tables.
	// Tables are added behind, as "[activate]\nsettle = \"5s\"".
	Agent string
	// Cache wraps what serves the binary cache, to have it misbehave; may be nil.
	Cache func(http.Handler) http.Handler
	// Log gets a line for each step that takes time; may be nil.
	Log func(string)
}

// Site is a running site.
type Site struct {
	opt Options
	DNS *pdns.Server
	Git *gitserver.Server
	// Cache serves CacheDir.
	CacheURL, CacheDir string
	// Repo is the operator's clone, Keys the folder beside it, Node the node
	// config of the fleet.
	Repo, Keys, Node string

	cache *http.Server
	done  chan error
	cut   atomic.Bool
}

// Start starts the servers and makes the fleet. What it started ends with Close
// or ctx.
func Start(ctx context.Context, opt Options) (_ *Site, err error) {
	if opt.TTL == 0 {
		opt.TTL = time.Second
	}
	if opt.Host == "" {
		opt.Host = Gateway
	}
	s := &Site{
		opt: opt, CacheDir: filepath.Join(opt.Dir, "fleet-keys", "cache"), Repo: filepath.Join(opt.Dir, "fleet"),
		Keys: filepath.Join(opt.Dir, "fleet-keys"), Node: filepath.Join(opt.Dir, "fleet-keys", "node"), done: make(chan error, 1),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.DNS, err = pdns.Start(ctx, pdns.Options{Zone: Zone}); err != nil {
		return nil, err
	}
	served := filepath.Join(opt.Dir, "git")
	if _, err := gitserver.Git(ctx, opt.Dir, "init", "--quiet", "--bare", "--initial-branch=main", filepath.Join(served, "fleet.git")); err != nil {
		return nil, err
	}
	if s.Git, err = gitserver.StartHTTP(ctx, gitserver.Options{Root: served}); err != nil {
		return nil, err
	}
	if err := s.serveCache(ctx); err != nil {
		return nil, err
	}
	return s, s.initFleet(ctx, filepath.Join(served, "fleet.git"))
}

// serveCache serves the cache's folder as any HTTP server does.
func (s *Site) serveCache(ctx context.Context) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("serve the cache: %w", err)
	}
	s.CacheURL = "http://" + s.forNodes(l.Addr().String())
	files := http.FileServer(http.Dir(s.CacheDir))
	if s.opt.Cache != nil {
		files = s.opt.Cache(files)
	}
	s.cache = &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cut.Load() {
			panic(http.ErrAbortHandler) // the connection ends without an answer
		}
		files.ServeHTTP(w, r)
	})}
	go func() { s.done <- s.cache.Serve(l) }()
	return nil
}

// forNodes is an address of the loopback as a node sees it.
func (s *Site) forNodes(addr string) string {
	return strings.Replace(addr, "127.0.0.1", s.opt.Host, 1)
}

// initFleet runs xnodeos init, and fills in what an operator would by hand.
func (s *Site) initFleet(ctx context.Context, bare string) error {
	_, err := s.run(ctx, "init", s.Repo, "--record", Owner, "--cache", s.CacheURL,
		"--remote", s.forNodes(s.Git.URL("fleet.git")))
	if err != nil {
		return err
	}
	settings := fmt.Sprintf("\n[dns]\nserver = %q\nzone = %q\ntsig = \"tsig\"\nttl = %q\nwatch = [%q]\n", s.DNS.Addr, Zone, s.opt.TTL, s.DNS.Addr)
	if err := edit(filepath.Join(s.Keys, "publish.toml"), func(text string) string {
		return strings.Replace(text, "remotes = []", fmt.Sprintf("remotes = [%q]", bare), 1) + settings
	}); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.Keys, "tsig"), []byte(s.DNS.KeyName+" "+string(s.DNS.Key)+"\n"), 0o600); err != nil {
		return err
	}
	dns := fmt.Sprintf("\n[dns]\nresolvers = [%q]\nfloor = \"2s\"\nbackoff = \"10s\"\n", s.forNodes(s.DNS.Addr))
	if err := edit(filepath.Join(s.Node, "agent.toml"), func(text string) string { return text + dns + s.opt.Agent }); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.Node, "class"), []byte("edge\n"), 0o644)
}

func edit(path string, change func(string) string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(change(string(data))), 0o644)
}

// Released is what xnodeos release made.
type Released struct {
	Sequence uint32 `json:"sequence"`
	Commit   string `json:"commit"`
	Record   string `json:"record"`
}

// Release announces a system, a word of --system, to the class edge.
func (s *Site) Release(ctx context.Context, system string) (Released, error) {
	return s.release(ctx, "--system", "edge="+system)
}

// ReleaseFrom is Release of a system in another Nix store than the machine's.
func (s *Site) ReleaseFrom(ctx context.Context, store, system string) (Released, error) {
	return s.release(ctx, "--store", store, "--system", "edge="+system)
}

// Change changes the record only: refresh, halt or resume.
func (s *Site) Change(ctx context.Context, what string) (Released, error) {
	return s.release(ctx, "--"+what)
}

func (s *Site) release(ctx context.Context, args ...string) (Released, error) {
	var r Released
	out, err := s.run(ctx, append([]string{"release", "--json", "--repo", s.Repo}, args...)...)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("read what xnodeos release says: %w", err)
	}
	return r, nil
}

func (s *Site) run(ctx context.Context, args ...string) ([]byte, error) {
	return command.Output(ctx, command.Cmd{
		Name: s.opt.Xnodeos, Args: args, Package: "scripts/setup",
		StderrLine: func(line string) {
			if s.opt.Log != nil {
				s.opt.Log(line)
			}
		},
	})
}

// Cut takes all servers from everybody who asks, until Mend. Nothing can be
// released meanwhile.
func (s *Site) Cut() error {
	s.cut.Store(true)
	s.Git.SetFault(gitserver.Fault{Then: gitserver.Cut})
	return s.DNS.Pause()
}

// Mend ends a Cut.
func (s *Site) Mend() error {
	s.cut.Store(false)
	s.Git.SetFault(gitserver.Fault{})
	return s.DNS.Continue()
}

// Close ends the servers.
func (s *Site) Close() error {
	var errs []error
	if s.cache != nil {
		errs = append(errs, s.cache.Close())
		if err := <-s.done; !errors.Is(err, http.ErrServerClosed) {
			errs = append(errs, err)
		}
	}
	if s.Git != nil {
		errs = append(errs, s.Git.Close())
	}
	if s.DNS != nil {
		errs = append(errs, s.DNS.Close())
	}
	return errors.Join(errs...)
}
