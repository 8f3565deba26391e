package nix

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"xnodeos.org/internal/nix/nar"
)

// PathInfo is what Nix knows of a store path, as far as a node needs it.
type PathInfo struct {
	Path       string // a valid StorePath
	NarHash    Hash
	NarSize    int64    // bytes
	References []string // valid store paths, sorted; the path itself if its bytes name it
}

// ClosureOptions says where the references come from. The zero value reads
// everything from the files of the store.
type ClosureOptions struct {
	// Database returns the closure as Nix registered it, see Database.Closure.
	// It is the truth where there is one: a text that looks like the path of
	// an unrelated store entry cannot enter the closure. If it returns
	// ErrNoDatabase or is nil, references are found by scanning.
	Database func(ctx context.Context, roots []StorePath) ([]PathInfo, error)
	// TrustDatabase takes hashes from the database without reading the files,
	// for a caller that only wants to know whether something changed.
	TrustDatabase bool
	// Candidates are the paths that scanning may find; nil means all that lie in the store.
	Candidates []StorePath
	// Workers is how many paths are read at once; 0 means as many as there are cores.
	Workers int
	// Progress gets the number of bytes that were read since its last call, from several goroutines.
	Progress func(bytes int64)
	// Note gets a line about why the database is not used.
	Note func(text string)
}

// ErrNoDatabase says that there is no Nix database to ask, or nothing to ask it with.
var ErrNoDatabase = errors.New("no Nix database")

// Closure returns what the roots need, themselves included, sorted by path.
// Every path is read and hashed (but see TrustDatabase). A path that is
// missing or unreadable is a *MissingError, one whose bytes are not what the
// database says a *ChangedError.
func (s Store) Closure(ctx context.Context, opt ClosureOptions, roots ...string) ([]PathInfo, error) {
	paths := make([]StorePath, len(roots))
	for i, root := range roots {
		p, err := ParseStorePath(root)
		if err != nil {
			return nil, err
		}
		paths[i] = p
	}
	if opt.Workers <= 0 {
		opt.Workers = runtime.GOMAXPROCS(0)
	}
	if opt.Database != nil {
		infos, err := opt.Database(ctx, paths)
		if err == nil {
			return s.checkRegistered(ctx, opt, infos)
		}
		if !errors.Is(err, ErrNoDatabase) {
			return nil, err
		}
		if opt.Note != nil {
			opt.Note(err.Error() + ": references are found by scanning the store")
		}
	}
	return s.scanClosure(ctx, opt, paths)
}

// ChangedError is a store path whose bytes are not what Nix registered.
type ChangedError struct {
	Path      StorePath
	Store     Store
	Want, Got Hash
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("store path %s was changed on disk: its NAR hash is %s, Nix registered %s; repair it with: nix-store%s --repair-path %s",
		e.Path, e.Got, e.Want, e.Store.option(), e.Path)
}

// checkRegistered compares what the database says with what is on disk.
func (s Store) checkRegistered(ctx context.Context, opt ClosureOptions, infos []PathInfo) ([]PathInfo, error) {
	list, err := NewClosureList(infos)
	if err != nil {
		return nil, fmt.Errorf("read Nix's database: %w", err)
	}
	infos = list.Paths
	referrer := map[string]StorePath{}
	for _, info := range infos {
		for _, ref := range info.References {
			if _, known := referrer[ref]; !known && ref != info.Path {
				referrer[ref] = StorePath(info.Path)
			}
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(opt.Workers)
	for _, info := range infos {
		group.Go(func() error {
			p := StorePath(info.Path)
			if _, err := os.Lstat(s.Physical(info.Path)); err != nil {
				return s.missing(p, referrer[info.Path], err)
			}
			if opt.TrustDatabase {
				return context.Cause(ctx)
			}
			got, err := s.readPath(ctx, opt, p, nil)
			if err != nil {
				return s.blame(p, referrer[info.Path], err)
			}
			if got.NarHash != info.NarHash {
				return &ChangedError{Path: p, Store: s, Want: info.NarHash, Got: got.NarHash}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return infos, nil
}

// scanClosure follows references from the roots, several paths at a time.
func (s Store) scanClosure(ctx context.Context, opt ClosureOptions, roots []StorePath) ([]PathInfo, error) {
	candidates := opt.Candidates
	if candidates == nil {
		var err error
		if candidates, err = s.List(); err != nil {
			return nil, err
		}
	}
	wanted, err := byHashPart(append(slices.Clone(candidates), roots...))
	if err != nil {
		return nil, err
	}
	group, ctx := errgroup.WithContext(ctx)
	slots := make(chan struct{}, opt.Workers)
	var lock sync.Mutex
	infos := map[string]PathInfo{}
	var visit func(p, referrer StorePath) // with the lock held
	visit = func(p, referrer StorePath) {
		if _, seen := infos[string(p)]; seen {
			return
		}
		infos[string(p)] = PathInfo{}
		group.Go(func() error {
			slots <- struct{}{} // a slot is for reading: waiting for one holds no worker up
			defer func() { <-slots }()
			info, err := s.readPath(ctx, opt, p, wanted)
			if err != nil {
				return s.blame(p, referrer, err)
			}
			lock.Lock()
			defer lock.Unlock()
			infos[string(p)] = info
			for _, ref := range info.References {
				visit(StorePath(ref), p)
			}
			return nil
		})
	}
	lock.Lock()
	for _, root := range roots {
		visit(root, "")
	}
	lock.Unlock()
	if err := group.Wait(); err != nil {
		return nil, err
	}
	all := make([]PathInfo, 0, len(infos))
	for _, info := range infos {
		all = append(all, info)
	}
	slices.SortFunc(all, func(a, b PathInfo) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

// List returns the store paths that lie in the store folder, sorted. What is
// no store path (.links, trash, lock files of builds) is left out.
func (s Store) List() ([]StorePath, error) {
	entries, err := os.ReadDir(s.root())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("list store: folder %q does not exist; name the store's parent folder with --store", s.root())
	}
	if err != nil {
		return nil, fmt.Errorf("list store: %w", err)
	}
	var paths []StorePath
	for _, e := range entries {
		p, err := ParseBaseName(e.Name())
		if err != nil || strings.HasSuffix(e.Name(), ".lock") && emptyFile(e) {
			continue
		}
		paths = append(paths, p)
	}
	return paths, nil
}

func emptyFile(e fs.DirEntry) bool {
	info, err := e.Info()
	return err == nil && info.Mode().IsRegular() && info.Size() == 0
}

// byHashPart indexes paths by their hash part. Nix makes temporary siblings
// (HASH-NAME.check, .chroot, ...): of those the path itself is meant.
func byHashPart(paths []StorePath) (*hashIndex, error) {
	index := &hashIndex{paths: make(map[string]StorePath, len(paths))}
	for _, p := range paths {
		old, twice := index.paths[p.HashPart()]
		switch {
		case !twice || strings.HasPrefix(string(old), string(p)):
			index.add(p)
		case !strings.HasPrefix(string(p), string(old)):
			return nil, fmt.Errorf("store paths %s and %s have the same hash; one of them was made by hand", old, p)
		}
	}
	return index, nil
}

// readPath hashes a path and finds its references in the same pass. With nil
// wanted no references are looked for.
func (s Store) readPath(ctx context.Context, opt ClosureOptions, p StorePath, wanted *hashIndex) (PathInfo, error) {
	sum := sha256.New()
	sink := &narSink{ctx: ctx, hash: sum, progress: opt.Progress, scanner: newScanner(wanted)}
	err := nar.WriteFunc(sink, s.Physical(string(p)), func(h nar.Header) error {
		if h.Kind != nar.Symlink || wanted == nil {
			return nil
		}
		return s.checkLink(p, h.Target)
	})
	if err != nil {
		return PathInfo{}, err
	}
	return PathInfo{
		Path:       string(p),
		NarHash:    Hash(sum.Sum(nil)),
		NarSize:    sink.size,
		References: sink.scanner.references(),
	}, nil
}

// checkLink finds what scanning for known paths cannot: a reference to a store
// path that is not there.
func (s Store) checkLink(p StorePath, target string) error {
	to, _, err := SplitPath(target)
	if err != nil {
		return nil //nolint:nilerr // a link to elsewhere is none of our business
	}
	if _, err := os.Lstat(s.Physical(string(to))); err != nil {
		return s.missing(to, p, err)
	}
	return nil
}

// narSink takes a NAR stream apart into hash, size and references.
type narSink struct {
	ctx      context.Context // of one readPath: ends it between two writes
	hash     hash.Hash
	scanner  *scanner
	size     int64
	progress func(int64)
}

func (k *narSink) Write(p []byte) (int, error) {
	if err := context.Cause(k.ctx); err != nil {
		return 0, err
	}
	k.size += int64(len(p))
	if k.scanner.wanted != nil {
		k.scanner.Write(p) //nolint:errcheck // never fails
	}
	if k.progress != nil {
		k.progress(int64(len(p)))
	}
	return k.hash.Write(p)
}

// blame says which store path of the closure an error of the file system is about.
func (s Store) blame(p, referrer StorePath, err error) error {
	var missing *MissingError
	var pe *fs.PathError
	if errors.As(err, &missing) || !errors.As(err, &pe) {
		return err
	}
	return s.missing(p, referrer, err)
}
