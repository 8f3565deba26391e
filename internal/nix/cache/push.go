package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"xnodeos.org/internal/atomicfile"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/narinfo"
)

// PushOptions say how to push. The zero value is good.
type PushOptions struct {
	// Parallel is how many NARs are compressed at a time; as many as there are cores.
	Parallel int
	// Progress is told of each path that is in the cache, never from two goroutines at once.
	Progress func(PushProgress)
}

// PushProgress is how far a push is.
type PushProgress struct {
	Path         nix.StorePath // that is in the cache now
	Written      int64         // bytes of its compressed NAR, 0 if it was there already
	Done, Total  int           // paths
	Bytes, Whole int64         // NAR bytes
}

// PushResult is what a push did.
type PushResult struct {
	Digest    string // of the closure list, as release.json has it: "sha256-BASE64"
	Paths     int    // in the closure
	Written   int    // of those, NARs that were not there before
	NarBytes  int64  // of the written NARs, uncompressed
	FileBytes int64  // of the written NARs, compressed
}

// Push brings a closure into the directory cache dir: each NAR as zstd, its
// narinfo signed with key, the closure list last. What is there already stays,
// so a push that was cut off goes on where it ended and one that is repeated
// writes nothing. The cache can be served as it is by any HTTP server, and read
// by Nix.
//
// A path whose bytes in the store are not what the list says is a
// *nix.ChangedError. A path that the cache has with other bytes is an error too:
// replacing it would break the releases that name those.
func Push(ctx context.Context, dir string, list *nix.ClosureList, store nix.Store, key *nix.CacheKey, o PushOptions) (*PushResult, error) {
	if o.Parallel < 1 {
		o.Parallel = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(PushProgress) {}
	}
	if err := prepareFolder(dir); err != nil {
		return nil, fmt.Errorf("push to cache %q: %w", dir, err)
	}
	p := &push{
		dir: dir, store: store, key: key, tell: o.Progress, result: PushResult{Digest: list.Digest(), Paths: len(list.Paths)},
		at: PushProgress{Total: len(list.Paths), Whole: list.NarSize()},
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(o.Parallel)
	for _, info := range list.Paths {
		group.Go(func() error { return p.path(ctx, info) })
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("push to cache %q: %w", dir, err)
	}
	if err := writeList(dir, list); err != nil {
		return nil, fmt.Errorf("push to cache %q: %w", dir, err)
	}
	return &p.result, nil
}

// prepareFolder makes the parts of a cache that do not depend on its contents.
func prepareFolder(dir string) error {
	for _, sub := range []string{narFolder, listFolder} {
		if err := os.MkdirAll(filepath.Join(dir, sub), folderMode); err != nil {
			return err
		}
	}
	path := filepath.Join(dir, InfoName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return atomicfile.WriteBytes(path, listFileMode, []byte(infoText))
	}
	if err != nil {
		return err
	}
	info, err := parseInfo(data)
	if err != nil {
		return fmt.Errorf("%s: %w; choose another folder", InfoName, err)
	}
	if info.StoreDir != nix.StoreDir {
		return fmt.Errorf("it is a cache of the store %q, not of %s; choose another folder", info.StoreDir, nix.StoreDir)
	}
	return nil
}

// writeList writes the closure list under the name that its digest gives.
func writeList(dir string, list *nix.ClosureList) error {
	digest, err := nix.ParseHash(list.Digest())
	if err != nil {
		return err
	}
	path := filepath.Join(dir, ListName(digest))
	text := list.Encode()
	if have, err := os.ReadFile(path); err == nil && string(have) == string(text) {
		return nil
	}
	return atomicfile.WriteBytes(path, listFileMode, text)
}

type push struct {
	dir   string
	store nix.Store
	key   *nix.CacheKey

	mu     sync.Mutex
	tell   func(PushProgress)
	at     PushProgress
	result PushResult
}

func (p *push) path(ctx context.Context, want nix.PathInfo) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	path := nix.StorePath(want.Path)
	written, err := p.bring(ctx, path, want)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if written > 0 {
		p.result.Written++
		p.result.NarBytes += want.NarSize
		p.result.FileBytes += written
	}
	p.at.Path, p.at.Written = path, written
	p.at.Done++
	p.at.Bytes += want.NarSize
	p.tell(p.at)
	return nil
}

// bring sees to NAR and narinfo of a path, and returns the size of the file if it wrote one.
func (p *push) bring(ctx context.Context, path nix.StorePath, want nix.PathInfo) (int64, error) {
	file := filepath.Join(p.dir, narinfo.Name(path))
	have, err := readInfoFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, narinfo.ErrFormat):
		// Of no use to anybody: written anew.
	case err != nil:
		return 0, err
	default:
		if err := have.Matches(want); err != nil {
			return 0, fmt.Errorf("the cache has it with other bytes (%w), and releases may name those: "+
				"take the cache's into the store (nix copy --from), or push to another folder", err)
		}
		if complete(p.dir, have) {
			return 0, p.addSignature(file, have)
		}
	}
	info := &narinfo.Info{
		Path: path, URL: narFolder + "/" + nix.EncodeBase32(want.NarHash[:]) + ".nar.zst", Compression: narinfo.Zstd,
		NarHash: want.NarHash, NarSize: want.NarSize, References: want.References,
		Sigs: []narinfo.Signature{narinfo.Sign(want, p.key)},
	}
	if err := p.compress(ctx, info); err != nil {
		return 0, err
	}
	return info.FileSize, atomicfile.WriteBytes(file, listFileMode, info.Encode())
}

// addSignature signs what another key signed before.
func (p *push) addSignature(file string, have *narinfo.Info) error {
	if _, err := narinfo.Verify(have.PathInfo(), have.Sigs, []nix.PublicKey{p.key.PublicKey()}); err == nil {
		return nil
	}
	have.Sigs = append(have.Sigs, narinfo.Sign(have.PathInfo(), p.key))
	return atomicfile.WriteBytes(file, listFileMode, have.Encode())
}

func readInfoFile(path string) (*narinfo.Info, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, narinfo.MaxSize+1))
	if err != nil {
		return nil, err
	}
	return narinfo.Parse(data)
}

// complete says whether the NAR that a narinfo names is there with its size.
func complete(dir string, info *narinfo.Info) bool {
	if strings.Contains(info.URL, "?") {
		return false
	}
	st, err := os.Lstat(filepath.Join(dir, info.URL))
	return err == nil && st.Mode().IsRegular() && st.Size() > 0 && (info.FileSize == 0 || st.Size() == info.FileSize)
}
