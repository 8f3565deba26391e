package daemon_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/daemon"
	"xnodeos.org/internal/nix/nar"
	"xnodeos.org/internal/nix/narinfo"
	"xnodeos.org/internal/testkit/nixstore"
)

// world is a store with a closure, a key, and an empty store behind a daemon
// that trusts the key and no user.
type world struct {
	from, to *nixstore.Store
	list     *nix.ClosureList
	key      *nix.CacheKey
	socket   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	key, err := nix.GenerateCacheKey("cache.example.org-1")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{from: nixstore.New(t, ""), key: key}
	if err := w.from.Add(t.Context(), nixstore.Sample(1<<20)...); err != nil {
		t.Fatal(err)
	}
	if w.list, err = w.from.List(t.Context(), "system"); err != nil {
		t.Fatal(err)
	}
	w.to = nixstore.New(t, "trusted-users =\nrequire-sigs = true\nallowed-users = *\ntrusted-public-keys = "+key.Public()+"\n")
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	socket, wait, err := w.to.Daemon(ctx)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); wait() })
	w.socket = socket
	return w
}

// connect connects as a user without rights.
func (w *world) connect(t *testing.T) *daemon.Conn {
	t.Helper()
	conn, err := nixstore.DialAs(t.Context(), w.socket, nixstore.Nobody)
	if err != nil {
		t.Fatal(err)
	}
	c, err := daemon.New(t.Context(), conn, daemon.Options{Note: func(line string) { t.Log(line) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (w *world) info(name string) nix.PathInfo {
	for _, info := range w.list.Paths {
		if info.Path == nixstore.PathOf(name) {
			return info
		}
	}
	panic("no path " + name)
}

func (w *world) nar(t *testing.T, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := nar.Write(&b, w.from.Physical(nixstore.PathOf(name))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func (w *world) add(t *testing.T, c *daemon.Conn, info nix.PathInfo, data []byte, sigs ...narinfo.Signature) error {
	t.Helper()
	a, err := c.Add(t.Context(), info, sigs)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(data); err != nil {
		return errors.Join(err, a.Abort())
	}
	return a.Commit()
}

// TestUserWithoutRights: nobody puts a signed closure into the store, asks for
// it, and roots it.
func TestUserWithoutRights(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.connect(t)
	if v := c.Version(); !strings.HasPrefix(v, "1.") {
		t.Errorf("Version = %q", v)
	}
	for _, name := range []string{"lib", "big", "tool", "link", "system"} { // references first
		info := w.info(name)
		if err := c.AddTempRoot(t.Context(), nix.StorePath(info.Path)); err != nil {
			t.Fatal(err)
		}
		if valid, err := c.IsValid(t.Context(), nix.StorePath(info.Path)); valid || err != nil {
			t.Errorf("IsValid(%s) before = %v, %v", name, valid, err)
		}
		if _, err := c.PathInfo(t.Context(), nix.StorePath(info.Path)); !errors.Is(err, daemon.ErrInvalid) {
			t.Errorf("PathInfo(%s) before: %v; want ErrInvalid", name, err)
		}
		if err := w.add(t, c, info, w.nar(t, name), narinfo.Sign(info, w.key)); err != nil {
			t.Fatal(err)
		}
		got, err := c.PathInfo(t.Context(), nix.StorePath(info.Path))
		if diff := cmp.Diff(info, got); diff != "" || err != nil {
			t.Errorf("PathInfo(%s): %v (-want +got):\n%s", name, err, diff)
		}
	}
	valid, err := c.Valid(t.Context(), []string{nixstore.PathOf("lib"), nixstore.PathOf("unknown")})
	if err != nil || len(valid) != 1 || !valid[nixstore.PathOf("lib")] {
		t.Errorf("Valid = %v, %v", valid, err)
	}
	if err := w.to.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	w.to.MustRun(t, "nix", "store", "verify", "--recursive", "--sigs-needed", "1", "--option", "trusted-public-keys", w.key.Public(), nixstore.PathOf("system"))

	link := filepath.Join(t.TempDir(), "root")
	if err := os.Symlink(nixstore.PathOf("tool"), link); err != nil {
		t.Fatal(err)
	}
	if err := c.AddIndirectRoot(t.Context(), link); err != nil {
		t.Fatal(err)
	}
	c.Close()
	w.to.MustRun(t, "nix-store", "--gc")
	c = w.connect(t)
	for name, want := range map[string]bool{"tool": true, "lib": true, "system": false, "big": false} {
		if valid, err := c.IsValid(t.Context(), nix.StorePath(nixstore.PathOf(name))); valid != want || err != nil {
			t.Errorf("after the collection IsValid(%s) = %v, %v; want %v", name, valid, err, want)
		}
	}
}

// TestTempRootHolds: what a connection named is not collected while it lives.
func TestTempRootHolds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.connect(t)
	info := w.info("lib")
	if err := c.AddTempRoot(t.Context(), nix.StorePath(info.Path)); err != nil {
		t.Fatal(err)
	}
	other := w.connect(t)
	if err := w.add(t, other, info, w.nar(t, "lib"), narinfo.Sign(info, w.key)); err != nil {
		t.Fatal(err)
	}
	other.Close()
	w.to.MustRun(t, "nix-store", "--gc")
	if valid, err := c.IsValid(t.Context(), nix.StorePath(info.Path)); !valid || err != nil {
		t.Errorf("IsValid = %v, %v; the temporary root did not hold", valid, err)
	}
}

// TestRefused: what the daemon itself refuses from a user without rights.
func TestRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stranger, err := nix.GenerateCacheKey(w.key.Name)
	if err != nil {
		t.Fatal(err)
	}
	lib := w.info("lib")
	good := w.nar(t, "lib")
	bad := bytes.Replace(good, []byte("library"), []byte("LIBRARY"), 1)
	tool := w.info("tool")
	for name, try := range map[string]struct {
		info     nix.PathInfo
		data     []byte
		sigs     []narinfo.Signature
		unsigned bool
	}{
		"unsigned":            {lib, good, nil, true},
		"signed by a forger":  {lib, good, []narinfo.Signature{narinfo.Sign(lib, stranger)}, true},
		"signature of others": {lib, good, []narinfo.Signature{narinfo.Sign(tool, w.key)}, true},
		"other bytes":         {lib, bad, []narinfo.Signature{narinfo.Sign(lib, w.key)}, false},
		"cut off":             {lib, good[:len(good)-16], []narinfo.Signature{narinfo.Sign(lib, w.key)}, false},
		"reference missing":   {tool, w.nar(t, "tool"), []narinfo.Signature{narinfo.Sign(tool, w.key)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			c := w.connect(t)
			err := w.add(t, c, try.info, try.data, try.sigs...)
			var said *daemon.Error
			if !errors.As(err, &said) || said.Unsigned() != try.unsigned {
				t.Errorf("Commit = %v; want the daemon's refusal", err)
			}
			fresh := w.connect(t)
			if valid, err := fresh.IsValid(t.Context(), nix.StorePath(try.info.Path)); valid || err != nil {
				t.Errorf("IsValid = %v, %v", valid, err)
			}
		})
	}
}

// TestAbort: a NAR that is not whole registers nothing, and the context ends a
// wait.
func TestAbort(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	info, data := w.info("big"), w.nar(t, "big")
	info.References = []string{info.Path} // so that only the missing end keeps it out
	c := w.connect(t)
	a, err := c.Add(t.Context(), info, []narinfo.Signature{narinfo.Sign(info, w.key)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Write(data[:len(data)-1]); err != nil {
		t.Fatal(err)
	}
	if err := a.Abort(); err != nil {
		t.Errorf("Abort = %v", err)
	}
	if _, err := c.IsValid(t.Context(), nix.StorePath(info.Path)); !errors.Is(err, daemon.ErrClosed) {
		t.Errorf("after Abort: %v; want ErrClosed", err)
	}
	c = w.connect(t)
	if valid, err := c.IsValid(t.Context(), nix.StorePath(info.Path)); valid || err != nil {
		t.Errorf("IsValid = %v, %v", valid, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	if a, err = c.Add(ctx, info, []narinfo.Signature{narinfo.Sign(info, w.key)}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := a.Commit(); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit of a cancelled one: %v", err)
	}
}

// TestStdio: the same over the pipes of a daemon for a foreign root.
func TestStdio(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	rw, err := w.to.Stdio(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := daemon.New(t.Context(), rw, daemon.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	info := w.info("lib")
	if err := w.add(t, c, info, w.nar(t, "lib"), narinfo.Sign(info, w.key)); err != nil {
		t.Fatal(err)
	}
	if valid, err := c.IsValid(t.Context(), nix.StorePath(info.Path)); !valid || err != nil {
		t.Errorf("IsValid = %v, %v", valid, err)
	}
}

func TestDialNamesTheRemedy(t *testing.T) {
	t.Parallel()
	_, err := daemon.Dial(t.Context(), daemon.Options{Socket: filepath.Join(t.TempDir(), "none")})
	if err == nil || !strings.Contains(err.Error(), "systemctl start nix-daemon") {
		t.Errorf("Dial = %v", err)
	}
}
