package cache_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/cache"
	"xnodeos.org/internal/nix/narinfo"
	"xnodeos.org/internal/testkit/nixstore"
)

func newKey(t *testing.T, name string) *nix.CacheKey {
	t.Helper()
	key, err := nix.GenerateCacheKey(name)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sample returns a store with the sample closure and its list.
func sample(t *testing.T, size int) (*nixstore.Store, *nix.ClosureList) {
	t.Helper()
	store := nixstore.New(t, "")
	if err := store.Add(t.Context(), nixstore.Sample(size)...); err != nil {
		t.Fatal(err)
	}
	list, err := store.List(t.Context(), "system")
	if err != nil {
		t.Fatal(err)
	}
	return store, list
}

func push(t *testing.T, dir string, list *nix.ClosureList, store *nixstore.Store, key *nix.CacheKey) *cache.PushResult {
	t.Helper()
	result, err := cache.Push(t.Context(), dir, list, store.Store, key, cache.PushOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// sums returns every file of a folder with its hash.
func sums(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		sum := sha256.Sum256(data)
		all[strings.TrimPrefix(path, dir+"/")] = hex.EncodeToString(sum[:])
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestNixReadsWhatWePush: the real Nix takes the closure out of the folder and
// over HTTP, by nix copy and by substitution, checks our signature, and finds
// every byte right.
func TestNixReadsWhatWePush(t *testing.T) {
	t.Parallel()
	store, list := sample(t, 3<<20)
	key := newKey(t, "cache.example.org-1")
	dir := filepath.Join(t.TempDir(), "cache")
	result := push(t, dir, list, store, key)
	if result.Written != len(list.Paths) || result.Digest != list.Digest() || result.NarBytes != list.NarSize() || result.FileBytes > result.NarBytes*8/10 {
		t.Errorf("Push = %+v; want all %d paths, compressed", result, len(list.Paths))
	}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	system := nixstore.PathOf("system")
	trusted := []string{"--option", "trusted-public-keys", key.Public()}
	for _, url := range []string{"file://" + dir, server.URL} {
		copied := nixstore.New(t, "")
		copied.MustRun(t, "nix", append([]string{"copy", "--from", url, system}, trusted...)...)
		realised := nixstore.New(t, "")
		realised.MustRun(t, "nix-store", append([]string{"--realise", system, "--option", "substitute", "true", "--option", "substituters", url}, trusted...)...)
		for _, s := range []*nixstore.Store{copied, realised} {
			if err := s.Verify(t.Context()); err != nil {
				t.Error(err)
			}
			got, err := s.List(t.Context(), "system")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(list, got); diff != "" {
				t.Errorf("what Nix has from %s (-want +got):\n%s", url, diff)
			}
		}
		stranger := nixstore.New(t, "")
		if _, err := stranger.Run(t.Context(), "nix", "copy", "--from", url, system, "--option", "trusted-public-keys", newKey(t, key.Name).Public()); err == nil {
			t.Error("Nix took it by another key of the same name")
		}
	}
}

// TestPushIsRepeatable: a second push writes nothing, one into another folder
// writes the same bytes, one that was cut off goes on.
func TestPushIsRepeatable(t *testing.T) {
	t.Parallel()
	store, list := sample(t, 1<<20)
	key := newKey(t, "cache.example.org-1")
	dir := filepath.Join(t.TempDir(), "cache")
	push(t, dir, list, store, key)
	before := sums(t, dir)
	if result := push(t, dir, list, store, key); result.Written != 0 {
		t.Errorf("the second push wrote %d NARs", result.Written)
	}
	if diff := cmp.Diff(before, sums(t, dir)); diff != "" {
		t.Errorf("the second push changed files:\n%s", diff)
	}
	other := filepath.Join(t.TempDir(), "other")
	ctx, cancel := context.WithCancel(t.Context())
	_, err := cache.Push(ctx, other, list, store.Store, key, cache.PushOptions{Parallel: 1, Progress: func(p cache.PushProgress) {
		if p.Done == 2 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("a push that is cancelled: %v", err)
	}
	if names, err := filepath.Glob(filepath.Join(other, "closures", "*")); err != nil || len(names) > 0 {
		t.Errorf("the closure list is there before the NARs: %v, %v", names, err)
	}
	if result := push(t, other, list, store, key); result.Written == 0 || result.Written >= len(list.Paths) {
		t.Errorf("after a push that was cut off, %d of %d NARs were written", result.Written, len(list.Paths))
	}
	if diff := cmp.Diff(before, sums(t, other)); diff != "" {
		t.Errorf("two pushes of one closure differ:\n%s", diff)
	}
}

func TestPushAddsSignature(t *testing.T) {
	t.Parallel()
	store, list := sample(t, 1000)
	dir := filepath.Join(t.TempDir(), "cache")
	keys := []*nix.CacheKey{newKey(t, "old-1"), newKey(t, "new-1")}
	for _, key := range keys {
		push(t, dir, list, store, key)
	}
	path := nix.StorePath(list.Paths[0].Path)
	data, err := os.ReadFile(filepath.Join(dir, narinfo.Name(path)))
	if err != nil {
		t.Fatal(err)
	}
	info, err := narinfo.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range keys {
		if _, err := narinfo.Verify(list.Paths[0], info.Sigs, []nix.PublicKey{key.PublicKey()}); err != nil {
			t.Error(err)
		}
	}
}

func TestPushRefuses(t *testing.T) {
	t.Parallel()
	store, list := sample(t, 1000)
	key := newKey(t, "cache.example.org-1")
	at := func(change func(l *nix.ClosureList)) *nix.ClosureList {
		other, err := nix.NewClosureList(list.Paths)
		if err != nil {
			t.Fatal(err)
		}
		change(other)
		return other
	}
	try := func(name, dir string, list *nix.ClosureList, want string) {
		t.Helper()
		if _, err := cache.Push(t.Context(), dir, list, store.Store, key, cache.PushOptions{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v; want %q", name, err, want)
		}
	}
	changed := filepath.Join(t.TempDir(), "changed")
	try("store changed", changed, at(func(l *nix.ClosureList) { l.Paths[0].NarHash[0]++ }), "was changed on disk")
	for name := range sums(t, changed) {
		if strings.HasPrefix(name, "closures/") || strings.Contains(name, ".tmp") {
			t.Errorf("a failed push left %s", name)
		}
	}
	full := filepath.Join(t.TempDir(), "full")
	push(t, full, list, store, key)
	try("other bytes", full, at(func(l *nix.ClosureList) { l.Paths[1].NarHash[0]++ }), "other bytes")
	foreign := t.TempDir()
	if err := os.WriteFile(filepath.Join(foreign, cache.InfoName), []byte("StoreDir: /gnu/store\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	try("other store", foreign, list, "choose another folder")
}

// TestNixKeyFiles: a secret key that Nix made is read, and signs as Nix does.
func TestNixKeyFiles(t *testing.T) {
	t.Parallel()
	store, list := sample(t, 1000)
	dir := t.TempDir()
	secret, public := filepath.Join(dir, "sk"), filepath.Join(dir, "pk")
	err := command.Run(t.Context(), command.Cmd{Name: "nix-store", Args: []string{"--generate-binary-cache-key", "theirs-1", secret, public}, AddEnv: store.Env, Package: "nix-bin"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(secret)
	if err != nil {
		t.Fatal(err)
	}
	key, err := nix.ParseCacheKey(text)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := os.ReadFile(public); err != nil || key.Public() != strings.TrimSpace(string(want)) {
		t.Errorf("public key %q, %v; want %q", key.Public(), err, want)
	}
	theirs := filepath.Join(dir, "theirs")
	store.MustRun(t, "nix", "copy", "--to", "file://"+theirs+"?compression=zstd&secret-key="+secret, nixstore.PathOf("system"))
	ours := filepath.Join(dir, "ours")
	push(t, ours, list, store, key)
	for _, info := range list.Paths {
		var both [2]*narinfo.Info
		for i, dir := range []string{theirs, ours} {
			data, err := os.ReadFile(filepath.Join(dir, narinfo.Name(nix.StorePath(info.Path))))
			if err != nil {
				t.Fatal(err)
			}
			if both[i], err = narinfo.Parse(data); err != nil {
				t.Fatal(err)
			}
			if i == 0 && string(both[i].Encode()) != string(data) {
				t.Errorf("Nix wrote\n%s\nwe would write\n%s", data, both[i].Encode())
			}
		}
		if diff := cmp.Diff(both[0].Sigs, both[1].Sigs); diff != "" {
			t.Errorf("signature of %s (-Nix +we):\n%s", info.Path, diff)
		}
	}
	if result := push(t, theirs, list, store, key); result.Written != 0 {
		t.Errorf("into a cache that Nix filled we wrote %d NARs again", result.Written)
	}
}
