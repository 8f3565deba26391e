package substitute_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/cache"
	"xnodeos.org/internal/nix/daemon"
	"xnodeos.org/internal/nix/narinfo"
	"xnodeos.org/internal/nix/substitute"
	"xnodeos.org/internal/testkit/nixstore"
)

// origin is where releases come from: a store, a key, and a cache that was
// pushed from the one with the other.
type origin struct {
	store *nixstore.Store
	list  *nix.ClosureList
	key   *nix.CacheKey
	dir   string
}

func newOrigin(t *testing.T, paths ...nixstore.Path) *origin {
	t.Helper()
	if len(paths) == 0 {
		paths = nixstore.Sample(1 << 20)
	}
	key, err := nix.GenerateCacheKey("cache.example.org-1")
	if err != nil {
		t.Fatal(err)
	}
	o := &origin{store: nixstore.New(t, ""), key: key, dir: filepath.Join(t.TempDir(), "cache")}
	if err := o.store.Add(t.Context(), paths...); err != nil {
		t.Fatal(err)
	}
	if o.list, err = o.store.List(t.Context(), "system"); err != nil {
		t.Fatal(err)
	}
	if _, err := cache.Push(t.Context(), o.dir, o.list, o.store.Store, key, cache.PushOptions{}); err != nil {
		t.Fatal(err)
	}
	return o
}

func (o *origin) want(name string) nix.PathInfo {
	for _, info := range o.list.Paths {
		if info.Path == nixstore.PathOf(name) {
			return info
		}
	}
	panic("no path " + name)
}

// info returns the narinfo of a path of the cache.
func (o *origin) info(t *testing.T, name string) *narinfo.Info {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(o.dir, narinfo.Name(nix.StorePath(nixstore.PathOf(name)))))
	if err != nil {
		t.Fatal(err)
	}
	info, err := narinfo.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// serve serves the cache over HTTP. twist may answer in its place and says whether it did.
func (o *origin) serve(t *testing.T, twist func(w http.ResponseWriter, r *http.Request) bool) *cache.Cache {
	t.Helper()
	files := http.FileServer(http.Dir(o.dir))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if twist == nil || !twist(w, r) {
			files.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	c, err := cache.Open(server.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// folder is the cache as a folder.
func (o *origin) folder(t *testing.T) *cache.Cache {
	t.Helper()
	c, err := cache.Open("file://"+o.dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// node is an empty store behind a daemon that trusts a key and no user.
type node struct {
	store  *nixstore.Store
	socket string
}

func newNode(t *testing.T, key *nix.CacheKey) *node {
	t.Helper()
	n := &node{store: nixstore.New(t, "trusted-users =\nrequire-sigs = true\nallowed-users = *\ntrusted-public-keys = "+key.Public()+"\n")}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	socket, wait, err := n.store.Daemon(ctx)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); wait() })
	n.socket = socket
	return n
}

// connect connects as a user without rights.
func (n *node) connect(ctx context.Context) (*daemon.Conn, error) {
	conn, err := nixstore.DialAs(ctx, n.socket, nixstore.Nobody)
	if err != nil {
		return nil, err
	}
	return daemon.New(ctx, conn, daemon.Options{})
}

func (n *node) valid(t *testing.T, name string) bool {
	t.Helper()
	c, err := n.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	valid, err := c.IsValid(t.Context(), nix.StorePath(nixstore.PathOf(name)))
	if err != nil {
		t.Fatal(err)
	}
	return valid
}

// options bring o's system to the node.
func (o *origin) options(t *testing.T, n *node, caches ...*cache.Cache) substitute.Options {
	t.Helper()
	digest, err := nix.ParseHash(o.list.Digest())
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	return substitute.Options{
		Digest: digest, System: nix.StorePath(nixstore.PathOf("system")), Caches: caches, Connect: n.connect,
		Free: func() (int64, error) { return 1 << 40, nil },
		Read: cache.Options{
			Clock: func() time.Duration { return time.Since(begun) }, Keys: []nix.PublicKey{o.key.PublicKey()},
			Jitter: func() float64 { return 0 },
		},
	}
}
