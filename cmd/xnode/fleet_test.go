package main

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"xnodeos.org/agent/statusapi"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/testkit/nixstore"
	"xnodeos.org/test/node"
	"xnodeos.org/test/site"
)

// fleetNode is a node of a fleet on this machine, with the real program as its
// follower.
type fleetNode struct {
	t      *testing.T
	site   *site.Site
	node   *node.Node
	origin *nixstore.Store
}

func newFleetNode(t *testing.T) *fleetNode {
	t.Helper()
	dir, err := os.MkdirTemp("", "fleet") // short: a socket's name has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	f := &fleetNode{t: t, origin: nixstore.New(t, "")}
	f.site, err = site.Start(t.Context(), site.Options{Dir: filepath.Join(dir), Xnodeos: testkit.Programs(t), Host: "127.0.0.1", Agent: "\n[status]\nlisten = \"\"\n"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.site.Close(); err != nil {
			t.Error(err)
		}
	})
	f.node, err = node.Start(t.Context(), node.Options{
		Root: filepath.Join(dir, "node"), Config: f.site.Node, Owner: site.Owner, Class: "edge",
		Fails: func(system string) string {
			if strings.Contains(system, "broken") {
				return "unit broken.service failed"
			}
			return ""
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.node.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// follow starts the follower; it ends with the test.
func (f *fleetNode) follow() {
	cmd := exec.CommandContext(f.t.Context(), "xnode", "follow", "--root", f.node.Root())
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		_ = cmd.Wait() // the test's context killed it
		if f.t.Failed() {
			f.t.Logf("the follower said:\n%s", log.String())
		}
	})
}

// xnode runs a command and returns what it printed and its exit code.
func (f *fleetNode) xnode(args ...string) (string, int) {
	f.t.Helper()
	at := slices.Index(args, "__complete") + 1 // which takes all behind it as words to complete
	args = slices.Insert(args, at, "--root", f.node.Root())
	out, err := exec.CommandContext(f.t.Context(), "xnode", args...).CombinedOutput()
	var ended *exec.ExitError
	if err != nil && !errors.As(err, &ended) {
		f.t.Fatal(err)
	}
	if ended != nil {
		return string(out), ended.ExitCode()
	}
	return string(out), 0
}

func (f *fleetNode) await(pattern string) *statusapi.Status {
	f.t.Helper()
	client := statusapi.NewClient(filepath.Join(f.node.Root(), "run/xnode/agent/status.sock"))
	re, last := regexp.MustCompile(pattern), ""
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if status, err := client.Status(f.t.Context()); err == nil {
			if last = status.Oneline(); re.MatchString(last) {
				return status
			}
		}
	}
	f.t.Fatalf("the node does not come to %q; it says %s", pattern, last)
	return nil
}

// release makes a system of the name and announces it.
func (f *fleetNode) release(name string) {
	f.t.Helper()
	if err := node.AddSystem(f.t.Context(), f.origin, name); err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.site.ReleaseFrom(f.t.Context(), f.origin.Store.Dir, node.SystemOf(name)); err != nil {
		f.t.Fatal(err)
	}
}

// serveStore starts the nix-daemon where the follower looks for it.
func (f *fleetNode) serveStore() {
	f.t.Helper()
	key, err := os.ReadFile(filepath.Join(f.site.Node, "nix-keys"))
	if err != nil {
		f.t.Fatal(err)
	}
	store := nixstore.New(f.t, "require-sigs = true\ntrusted-users =\nallowed-users = *\ntrusted-public-keys = "+strings.TrimSpace(string(key))+"\n")
	socket, wait, err := store.Daemon(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(wait)
	at := filepath.Join(f.node.Root(), "nix/var/nix/daemon-socket")
	if err := errors.Join(os.MkdirAll(at, 0o755), os.Symlink(socket, filepath.Join(at, "socket"))); err != nil {
		f.t.Fatal(err)
	}
}

// What an operator sees of a node that follows a fleet: a release that waits for
// the nix-daemon and heals, a broken one, and the way back by hand.
func TestFollowAFleet(t *testing.T) {
	t.Parallel()
	f := newFleetNode(t)
	f.follow()

	f.release("two")
	stuck := f.await(`release=1 .*daemon`)
	if !strings.Contains(stuck.Reason, "nix/var/nix/daemon-socket/socket") {
		t.Errorf("without a nix-daemon the reason is %q; want it to name the socket", stuck.Reason)
	}
	f.serveStore()
	f.await(`ok settled release=1 system=two$`)

	f.release("broken-three")
	f.await(`degraded .*release=2 system=two .*broken.service failed`)
	out, code := f.xnode("status")
	if code != 3 || !regexp.MustCompile(`(?m)^quarantine +release 2, broken-three: .*broken.service failed`).MatchString(out) {
		t.Errorf("status ended with code %d; want 3:\n%s", code, out)
	}
	if out, code := f.xnode("quarantine", "list"); code != 0 || !strings.Contains(out, node.SystemOf("broken-three")) {
		t.Errorf("quarantine list: code %d: %s", code, out)
	}
	if out, code := f.xnode("__complete", "quarantine", "clear", ""); code != 0 || !strings.Contains(out, node.SystemOf("broken-three")) {
		t.Errorf("quarantine clear is completed with %s", out)
	}

	if out, code := f.xnode("rollback"); code != 0 || !strings.HasPrefix(out, "going back to "+node.Booted) {
		t.Errorf("rollback: code %d: %s", code, out)
	}
	f.await(`system=toy-system`)
	if out, code := f.xnode("quarantine", "list"); code != 0 || !strings.Contains(out, node.SystemOf("two")) {
		t.Errorf("after a rollback the quarantine is %s", out)
	}
	if out, code := f.xnode("history"); code != 0 || strings.Count(out, "\n") < 4 {
		t.Errorf("history: code %d: %s", code, out)
	}
	if out, code := f.xnode("quarantine", "clear", node.SystemOf("broken-three")); code != 0 {
		t.Errorf("quarantine clear: code %d: %s", code, out)
	}
}

// A socket file that nobody listens on is left from before, and no obstacle.
func TestListenSocketTakesAnOldOne(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	fresh, err := listenSocket(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	fresh.Close()
}
