// Package substitute brings the closure that a release names into the store of
// this machine, as a user without rights: the closure list by its digest, then
// only the paths that are missing, from caches, through nix-daemon.
//
// The closure list is what counts: narinfo, NAR hash, size and references are
// compared with it, so that whoever holds a cache or its key swaps nothing; the
// signature is checked beside it (by the daemon in any case). A path whose bytes
// are not the list's never reaches its end at the daemon.
//
// NARs stream through: memory is that of a few decompressors (bounded by
// cache.Options.DecodeMemory) and buffers. Several NARs are fetched
// and written at a time, also ones that refer to each other; only the last bytes
// of one wait until its references are registered.
package substitute

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"xnodeos.org/internal/mirror"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/cache"
	"xnodeos.org/internal/nix/daemon"
)

// Options say what to bring and how. Digest, System, Caches, Connect and
// Read.Clock are needed.
type Options struct {
	// Digest names the closure list, System is the path in it that is wanted.
	Digest nix.Hash
	System nix.StorePath
	// Caches are asked in order.
	Caches []*cache.Cache
	Read   cache.Options
	// Connect connects to the daemon; it is called once for what Result holds
	// and once for each path that is added at a time.
	Connect func(ctx context.Context) (*daemon.Conn, error)
	// Keep is a folder that keeps what is fetched, a cache itself that is asked
	// first. Empty keeps nothing.
	Keep string
	// Root is a symlink that will point to System and hold it against the
	// garbage collector (an indirect root); its folder must exist. Empty makes none.
	Root string
	// Parallel is how many requests to caches are under way at a time; 8. NARs
	// are unpacked and written as many at a time as there are cores, at least 3.
	Parallel int
	// Free says how many bytes the store has room for; the file system of
	// /nix/store is asked if nil.
	Free func() (int64, error)
	// Progress is told of how far it is, never from two goroutines at once.
	Progress func(Progress)
}

// Progress is how far a run is. Totals are of what is missing.
type Progress struct {
	Paths, TotalPaths int
	Bytes, TotalBytes int64 // of NARs
}

// Result is a closure that is in the store whole. Until Close the garbage
// collector leaves it alone, whatever roots there are.
type Result struct {
	List    *nix.ClosureList
	Missing int   // paths that were fetched
	Bytes   int64 // their NARs
	// KeepErr says why Keep does not have all of what was fetched.
	KeepErr error
	// Reports are the caches' faults that did not matter in the end.
	Reports []mirror.Report

	hold *daemon.Conn
}

// Close lets the garbage collector have what nothing else holds.
func (r *Result) Close() { r.hold.Close() }

// ErrNoSystem says that the closure list is not one of the system that it is for.
var ErrNoSystem = errors.New("the closure list does not have the system of the release")

// SpaceError says that the store has no room for what is missing.
type SpaceError struct {
	Need, Free int64 // bytes
	Paths      int   // missing
}

func (e *SpaceError) Error() string {
	return fmt.Sprintf("the store needs room for %d paths: %.1f MB, %.1f MB are free; free it with: nix-collect-garbage, or give the node more memory or disk",
		e.Paths, float64(e.Need)/1e6, float64(e.Free)/1e6)
}

// DifferentError is a path that the store has already, but with other bytes
// than the release names: one that was built here, or damaged.
type DifferentError struct {
	Path       nix.StorePath
	Have, Want nix.Hash
}

func (e *DifferentError) Error() string {
	return fmt.Sprintf("the store has %s with other bytes (NAR hash %s) than the release names (%s); remove it with: nix-store --delete %s, or go to a release built where that was",
		e.Path, e.Have, e.Want, e.Path)
}

// Run brings the closure. The error is a *cache.Error (no cache had something),
// *SpaceError, *DifferentError, ErrNoSystem, one of package daemon, or the
// context's. What was registered until then stays, so that the next run
// goes on from there.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Parallel < 1 {
		o.Parallel = 8
	}
	if o.Progress == nil {
		o.Progress = func(Progress) {}
	}
	if o.Free == nil {
		o.Free = freeInStore
	}
	r := &run{o: o, result: &Result{}}
	caches := o.Caches
	if o.Keep != "" {
		keeper, err := cache.NewKeeper(o.Keep)
		if err != nil {
			r.result.KeepErr = err
		} else {
			r.keeper = keeper
			caches = append([]*cache.Cache{keeper.Cache()}, caches...)
		}
	}
	r.set = cache.NewSet(caches, o.Read)
	err := r.all(ctx)
	r.result.Reports = r.set.Reports()
	if err != nil {
		if r.result.hold != nil {
			r.result.hold.Close()
		}
		return nil, fmt.Errorf("bring %s into the store: %w", o.System, err)
	}
	return r.result, nil
}

// freeInStore asks the file system that the store lies on.
func freeInStore() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(nix.StoreDir, &st); err != nil {
		return 0, fmt.Errorf("ask for room in %s: %w", nix.StoreDir, err)
	}
	return int64(min(st.Bavail, 1<<40)) * st.Bsize, nil
}

type run struct {
	o      Options
	set    *cache.Set
	keeper *cache.Keeper
	result *Result

	mu sync.Mutex // of the following and result.KeepErr
	at Progress
}

func (r *run) all(ctx context.Context) error {
	list, err := r.set.ClosureList(ctx, r.o.Digest)
	if err != nil {
		return err
	}
	r.result.List = list
	if !has(list, r.o.System) {
		return fmt.Errorf("%w: %s", ErrNoSystem, r.o.Digest)
	}
	if r.result.hold, err = r.o.Connect(ctx); err != nil {
		return err
	}
	missing, err := r.missing(ctx, list)
	if err != nil {
		return err
	}
	jobs, err := order(missing)
	if err != nil {
		return err
	}
	if err := r.checkRoom(missing); err != nil {
		return err
	}
	if err := r.fetch(ctx, jobs); err != nil {
		return err
	}
	r.keepList(list)
	return r.root(ctx)
}

func has(list *nix.ClosureList, p nix.StorePath) bool {
	for _, info := range list.Paths {
		if info.Path == string(p) {
			return true
		}
	}
	return false
}

// missing keeps the whole closure from the garbage collector, then asks what of
// it is there.
func (r *run) missing(ctx context.Context, list *nix.ClosureList) ([]nix.PathInfo, error) {
	conn := r.result.hold
	paths := make([]string, len(list.Paths))
	for i, info := range list.Paths {
		paths[i] = info.Path
		if err := conn.AddTempRoot(ctx, nix.StorePath(info.Path)); err != nil {
			return nil, err
		}
	}
	valid, err := conn.Valid(ctx, paths)
	if err != nil {
		return nil, err
	}
	var missing []nix.PathInfo
	for _, want := range list.Paths {
		if !valid[want.Path] {
			missing = append(missing, want)
			continue
		}
		have, err := conn.PathInfo(ctx, nix.StorePath(want.Path))
		if err != nil {
			return nil, err
		}
		if have.NarHash != want.NarHash {
			return nil, &DifferentError{Path: nix.StorePath(want.Path), Have: have.NarHash, Want: want.NarHash}
		}
	}
	r.result.Missing = len(missing)
	for _, info := range missing {
		r.result.Bytes += info.NarSize
	}
	r.at = Progress{TotalPaths: len(missing), TotalBytes: r.result.Bytes}
	return missing, nil
}

// reserve is room for the database and what else grows while we write.
const reserve = 16 << 20

func (r *run) checkRoom(missing []nix.PathInfo) error {
	if len(missing) == 0 {
		return nil
	}
	free, err := r.o.Free()
	if err != nil {
		return err
	}
	need := r.result.Bytes + r.result.Bytes/10 + reserve // files take whole blocks
	if need > free {
		return &SpaceError{Need: need, Free: free, Paths: len(missing)}
	}
	return nil
}

// fetch runs the jobs in their order, several at a time. Because the references
// of a job stand before it, the first that is not done never waits for another.
func (r *run) fetch(ctx context.Context, jobs []*job) error {
	if len(jobs) == 0 {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	ahead := newLookahead(r, jobs)
	group.Go(func() error { return ahead.start(ctx) })
	next := make(chan *job)
	group.Go(func() error {
		defer close(next)
		for _, j := range jobs {
			select {
			case next <- j:
			case <-ctx.Done():
				return nil
			}
		}
		return nil
	})
	// More workers than cores would only take turns, and each has a decompressor
	// and a process of the daemon.
	for range min(r.o.Parallel, max(3, runtime.GOMAXPROCS(0)), len(jobs)) {
		group.Go(func() error {
			w := &worker{run: r, ahead: ahead}
			defer w.close()
			for j := range next {
				if err := w.bring(ctx, j); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := group.Wait()
	ahead.close()
	return err
}

func (r *run) keepList(list *nix.ClosureList) {
	if r.keeper == nil || r.result.KeepErr != nil {
		return
	}
	r.result.KeepErr = r.keeper.List(list)
}

// root points the symlink at the system and tells the daemon.
func (r *run) root(ctx context.Context) error {
	if r.o.Root == "" {
		return nil
	}
	link, err := filepath.Abs(r.o.Root)
	if err != nil {
		return fmt.Errorf("make root: %w", err)
	}
	fresh := link + ".new"
	if err := os.Remove(fresh); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("make root: %w", err)
	}
	if err := os.Symlink(string(r.o.System), fresh); err != nil {
		return fmt.Errorf("make root: %w", err)
	}
	if err := os.Rename(fresh, link); err != nil {
		return fmt.Errorf("make root: %w", err)
	}
	return r.result.hold.AddIndirectRoot(ctx, link)
}

// keepFailed remembers the first reason why Keep is not whole.
func (r *run) keepFailed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.result.KeepErr == nil {
		r.result.KeepErr = err
	}
}

func (r *run) progress(paths int, bytes int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at.Paths += paths
	r.at.Bytes += bytes
	r.o.Progress(r.at)
}
