package repo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/storage/filesystem"

	"xnodeos.org/internal/gitcommit"
)

// objectCache bounds the objects that go-git holds in memory, in bytes.
const objectCache = 1 << 20

// folder is a source in the file system: a bare repository or one with a work
// tree. go-git's own transport for it would start git.
type folder struct {
	store  *filesystem.Storage
	m      *meter
	limits Limits
	pipe   *io.PipeReader
}

func newFolder(m *meter, path string) (*folder, error) {
	dir := path
	if info, err := os.Stat(filepath.Join(path, ".git")); err == nil && info.IsDir() {
		dir = filepath.Join(path, ".git")
	}
	if _, err := os.Stat(filepath.Join(dir, "HEAD")); err != nil {
		return nil, fmt.Errorf("no git repository: %w", err)
	}
	return &folder{store: openStorage(dir), m: m, limits: m.limits}, nil
}

func openStorage(dir string) *filesystem.Storage {
	return filesystem.NewStorage(osfs.New(dir, osfs.WithBoundOS()), cache.NewObjectLRU(objectCache))
}

func (f *folder) ref(_ context.Context, name string) (string, error) {
	ref, err := f.store.Reference(plumbing.ReferenceName(name))
	switch {
	case errors.Is(err, plumbing.ErrReferenceNotFound):
		return "", &RefError{Ref: name}
	case err != nil:
		return "", fmt.Errorf("read %s: %w", name, err)
	case ref.Type() != plumbing.HashReference || !gitcommit.IsID(ref.Hash().String()):
		return "", fmt.Errorf("its %s names no object", name)
	}
	return ref.Hash().String(), nil
}

func (f *folder) pack(ctx context.Context, commit string) (io.Reader, error) {
	hashes, err := f.objects(ctx, plumbing.NewHash(commit))
	if err != nil {
		return nil, err
	}
	r, w := io.Pipe()
	f.pipe = r
	go func() {
		_, err := packfile.NewEncoder(w, f.store, false).Encode(hashes, 0)
		w.CloseWithError(err)
	}()
	return &counted{r, f.m, ctx}, nil
}

// objects lists a commit, its trees and its files, each once.
func (f *folder) objects(ctx context.Context, commit plumbing.Hash) ([]plumbing.Hash, error) {
	raw, err := readObject(f.store, plumbing.CommitObject, commit.String(), gitcommit.MaxSize)
	if err != nil {
		return nil, err
	}
	c, err := gitcommit.Parse(raw)
	if err != nil {
		return nil, err
	}
	all := []plumbing.Hash{commit}
	seen := map[plumbing.Hash]bool{}
	trees := []plumbing.Hash{plumbing.NewHash(c.Tree)}
	for len(trees) > 0 {
		hash := trees[len(trees)-1]
		trees = trees[:len(trees)-1]
		if seen[hash] {
			continue
		}
		seen[hash] = true
		all = append(all, hash)
		raw, err := readObject(f.store, plumbing.TreeObject, hash.String(), maxTree)
		if err != nil {
			return nil, err
		}
		entries, err := parseTree(raw)
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			switch {
			case e.mode == filemode.Dir:
				trees = append(trees, e.id)
			case e.mode != filemode.Submodule && !seen[e.id]:
				seen[e.id] = true
				all = append(all, e.id)
			}
		}
		if len(all) > f.limits.Objects {
			return nil, tooMany("objects", int64(f.limits.Objects), "objects")
		}
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
	}
	return all, nil
}

func (f *folder) Close() error {
	if f.pipe != nil {
		return f.pipe.Close() // ends the writer, if it still writes
	}
	return nil
}
