package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"xnodeos.org/agent/repo"
	"xnodeos.org/internal/agentconfig"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/gitcommit"
	"xnodeos.org/internal/release"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/testkit/gitserver"
	"xnodeos.org/internal/testkit/pdns"
	"xnodeos.org/internal/trust"
)

// TestReleaseScripts runs init and release as an operator does, against a real
// git server and a real PowerDNS, and reads the outcome as a node does. $GIT is
// the repository's URL, dns.toml the table [dns] for publish.toml.
func TestReleaseScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/release",
		Setup: func(env *testscript.Env) error {
			ctx, stop := context.WithCancel(context.Background())
			env.Defer(stop)
			for _, setting := range []string{
				"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=Ops", "GIT_AUTHOR_EMAIL=ops@example.org",
				"GIT_COMMITTER_NAME=Ops", "GIT_COMMITTER_EMAIL=ops@example.org", "SYSTEM=" + testkit.ToySystem,
			} {
				name, value, _ := strings.Cut(setting, "=")
				env.Setenv(name, value)
			}
			if err := testkit.WriteToyStore(filepath.Join(env.WorkDir, "store")); err != nil {
				return err
			}
			if err := testkit.WriteToyLoaders(filepath.Join(env.WorkDir, "boot")); err != nil {
				return err
			}
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, "cache"))
			env.Setenv("SOURCE_DATE_EPOCH", "")
			root := filepath.Join(env.WorkDir, "git")
			if err := os.Mkdir(root, 0o755); err != nil {
				return err
			}
			if _, err := gitserver.Git(ctx, root, "init", "-q", "--bare", "-b", "main", "fleet.git"); err != nil {
				return err
			}
			server, err := gitserver.StartHTTP(ctx, gitserver.Options{Root: root})
			if err != nil {
				return err
			}
			env.Defer(func() { server.Close() })
			env.Setenv("GIT", server.URL("fleet.git"))
			return startDNS(ctx, env)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"node": nodeReads, "agentconfig": agentReads},
	})
}

// startDNS writes what publish.toml needs for a real PowerDNS.
func startDNS(ctx context.Context, env *testscript.Env) error {
	dns, err := pdns.Start(ctx, pdns.Options{})
	if err != nil {
		return err
	}
	env.Defer(func() { dns.Close() })
	env.Setenv("DNS", dns.Addr)
	text := fmt.Sprintf("[dns]\nserver = %q\nzone = %q\ntsig = \"tsig\"\n", dns.Addr, dns.Zone)
	if err := os.WriteFile(filepath.Join(env.WorkDir, "dns.toml"), []byte(text), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(env.WorkDir, "tsig"), []byte(dns.KeyName+" "+string(dns.Key)+"\n"), 0o600)
}

// nodeReads is the command "node SEQ": what a node that knows the fleet's keys
// finds at $GIT, with release SEQ announced.
func nodeReads(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: node SEQ")
	}
	seq, err := strconv.ParseUint(args[0], 10, 32)
	ts.Check(err)
	signers, err := trust.Parse([]byte(ts.ReadFile("fleet-keys/node/trust/allowed_signers")))
	ts.Check(err)
	dir, err := os.MkdirTemp("", "node-")
	ts.Check(err)
	defer os.RemoveAll(dir)
	r, err := repo.Open(repo.Options{Dir: dir, Remotes: []string{ts.Getenv("GIT")}})
	ts.Check(err)
	const owner = "stable._xnode.fleet.example.org"
	ctx := context.Background()
	found, err := r.ReadAnnounce(ctx, owner)
	ts.Check(err)
	record, err := announce.Parse(string(found[0].Record))
	ts.Check(err)
	_, err = record.Verify(owner, signers)
	ts.Check(err)
	s, err := r.Fetch(ctx, uint32(seq), record.Commit)
	ts.Check(err)
	_, err = gitcommit.Verify(s.CommitObject(), signers)
	ts.Check(err)
	data, err := s.ReadFile(release.FileName, release.MaxSize)
	ts.Check(err)
	opened, err := release.Open(data, record.Digest, uint32(seq))
	ts.Check(err)
	target, err := opened.For("edge", "x86_64-linux")
	ts.Check(err)
	nodes, err := s.ReadFile(release.NodesName, release.MaxNodes)
	ts.Check(err)
	_, err = opened.OpenNodes(nodes)
	ts.Check(err)
	fmt.Fprintf(ts.Stdout(), "release %d halted=%t %s\n", seq, record.Halted, target.System)
}

// agentReads is the command "agentconfig FILE": the agent's own strict reading.
func agentReads(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: agentconfig FILE")
	}
	c, err := agentconfig.Parse(agentconfig.Source{Name: args[0], Data: []byte(ts.ReadFile(args[0]))})
	ts.Check(err)
	ts.Check(c.Validate())
	if c.Name == "" || c.Class != "edge" || len(c.Git.Remotes) != 1 {
		ts.Fatalf("%s says %+v", args[0], c)
	}
}
