package cache

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"xnodeos.org/internal/atomicfile"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/narinfo"
)

// Keeper keeps what was fetched in a directory cache, so that it need not be
// fetched again: NARs as they came, narinfo files with their signatures, closure
// lists. The folder is read like any other cache, and believed as little.
type Keeper struct {
	dir string
}

// NewKeeper prepares the folder.
func NewKeeper(dir string) (*Keeper, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		err = prepareFolder(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("keep what is fetched in %q: %w", dir, err)
	}
	return &Keeper{dir: dir}, nil
}

// Cache is the folder as a cache to read.
func (k *Keeper) Cache() *Cache { return &Cache{name: k.dir, source: folder(k.dir)} }

// List keeps a closure list; its NARs come before it.
func (k *Keeper) List(list *nix.ClosureList) error {
	if err := writeList(k.dir, list); err != nil {
		return fmt.Errorf("keep the closure list: %w", err)
	}
	return nil
}

// Kept is a NAR that is being kept. Writing to it never fails: an error is for
// Commit to tell, so that a full disk here does not stop the way into the store.
type Kept struct {
	k    *Keeper
	info narinfo.Info
	file *atomicfile.File
	out  measure
	err  error
}

// Begin begins to keep the NAR of an offer. It gets the compressed bytes.
func (k *Keeper) Begin(o *Offer) *Kept {
	kept := &Kept{k: k, info: *o.Info}
	end := map[narinfo.Compression]string{narinfo.Zstd: ".zst", narinfo.XZ: ".xz"}[o.Info.Compression]
	kept.info.URL = narFolder + "/" + nix.EncodeBase32(o.Info.NarHash[:]) + ".nar" + end
	kept.file, kept.err = atomicfile.Create(filepath.Join(k.dir, kept.info.URL), listFileMode)
	if kept.err == nil && o.Info.FileSize > 0 && o.Info.FileSize <= o.Info.NarSize*2 {
		kept.err = kept.file.Expect(o.Info.FileSize)
	}
	kept.out = measure{w: kept.file, hash: sha256.New()}
	return kept
}

// Write implements io.Writer.
func (k *Kept) Write(p []byte) (int, error) {
	if k.err == nil {
		_, k.err = k.out.Write(p)
	}
	return len(p), nil
}

// Commit keeps the NAR and its narinfo.
func (k *Kept) Commit() error {
	err := k.err
	if err == nil {
		err = k.file.Commit()
	}
	if err == nil {
		sum := nix.Hash(k.out.hash.Sum(nil))
		k.info.FileHash, k.info.FileSize = &sum, k.out.size
		err = atomicfile.WriteBytes(filepath.Join(k.k.dir, narinfo.Name(k.info.Path)), listFileMode, k.info.Encode())
	}
	if err != nil {
		k.Abort()
		return fmt.Errorf("keep %s: %w", k.info.Path, err)
	}
	return nil
}

// Abort removes what was written. After Commit it does nothing.
func (k *Kept) Abort() {
	if k.file != nil {
		k.file.Abort()
	}
}

// Prune removes from a directory cache what none of the closure lists needs: of
// NARs, narinfo files and closure lists, and what writers that were killed left.
// Nothing may write to the folder meanwhile. It returns the bytes that were
// freed. A folder that does not exist is empty.
func Prune(dir string, keep ...*nix.ClosureList) (int64, error) {
	needed := map[string]bool{InfoName: true}
	for _, list := range keep {
		digest, err := nix.ParseHash(list.Digest())
		if err != nil {
			return 0, err
		}
		needed[ListName(digest)] = true
		for _, want := range list.Paths {
			name := narinfo.Name(nix.StorePath(want.Path))
			info, err := readInfoFile(filepath.Join(dir, name))
			if err == nil && info.Matches(want) == nil {
				needed[name], needed[info.URL] = true, true
			}
		}
	}
	freed, err := removeOthers(dir, needed)
	if err != nil {
		return freed, fmt.Errorf("prune cache %q: %w", dir, err)
	}
	return freed, nil
}

func removeOthers(dir string, needed map[string]bool) (freed int64, err error) {
	for _, sub := range []string{listFolder, "", narFolder} { // what names others first
		entries, err := os.ReadDir(filepath.Join(dir, sub))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return freed, err
		}
		for _, e := range entries {
			name := filepath.Join(sub, e.Name())
			ours := sub != "" || strings.HasSuffix(name, infoSuffix) || strings.HasSuffix(name, ".tmp")
			if needed[name] || !ours || e.IsDir() {
				continue
			}
			info, err := e.Info()
			if err == nil {
				err = os.Remove(filepath.Join(dir, name))
			}
			if err != nil {
				return freed, err
			}
			freed += info.Size()
		}
	}
	return freed, nil
}
