package nix

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Store is a store on this machine. Dir is the folder below which /nix/store
// lies: "" for the machine's own, DIR for what `nix --store DIR` writes.
// Logical paths (/nix/store/...) are what everybody speaks of; physical ones
// are where the bytes are.
type Store struct {
	Dir string
}

// maxLinks is the kernel's own limit for symlinks in one path.
const maxLinks = 40

// Physical maps a logical path to where it is on this machine. It does not
// look at symlinks inside: use Open, ReadFile or Follow for those.
func (s Store) Physical(path string) string {
	if s.Dir == "" {
		return path
	}
	return filepath.Join(s.Dir, path)
}

// root is the physical store folder.
func (s Store) root() string { return s.Physical(StoreDir) }

// Resolve turns what an operator writes into a store path that exists: a
// logical path in the store (or anything below a store path), a physical one
// below Dir, or an out-link or profile that leads to one, however many links away.
func (s Store) Resolve(path string) (StorePath, error) {
	p, err := s.find(path)
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(s.Physical(string(p))); err != nil {
		return "", s.missing(p, "", err)
	}
	return p, nil
}

// find walks through a path of this machine name by name, until it enters the
// store by its logical or its physical name.
func (s Store) find(path string) (StorePath, error) {
	notOne := func(why string) error {
		return fmt.Errorf("%q: %w: %s; give a path like %s/HASH-NAME, or the \"result\" link that nix-build made",
			path, ErrNotStorePath, why, StoreDir)
	}
	if path == "" {
		return "", notOne("it is empty")
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("resolve %q: %w", path, err)
	}
	root, err := filepath.EvalSymlinks(s.root())
	if err != nil {
		root = StoreDir // no store at all: Resolve will say so
	}
	done, rest := "/", splitNames(abs)
	for links := 0; len(rest) > 0; {
		if done == StoreDir || done == root {
			return ParseBaseName(rest[0])
		}
		next := filepath.Join(done, rest[0])
		rest = rest[1:]
		target, err := os.Readlink(next)
		switch {
		case next == filepath.Dir(StoreDir) || next == StoreDir || errors.Is(err, unix.EINVAL):
			done = next // on the way to the store, which may lie below Dir only; or no link
			continue
		case errors.Is(err, fs.ErrNotExist):
			return "", notOne("it does not exist")
		case err != nil:
			return "", fmt.Errorf("resolve %q: %w", path, err)
		}
		if links++; links > maxLinks {
			return "", notOne(fmt.Sprintf("it has more than %d symlinks", maxLinks))
		}
		if filepath.IsAbs(target) {
			done = "/"
		}
		rest = append(splitNames(target), rest...)
	}
	return "", notOne("it is no link to one")
}

// splitNames cuts a path into its names, without empty ones and ".".
func splitNames(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
}

// Follow resolves every symlink of a logical path in the store and returns the
// logical path of what it really is. Absolute links into /nix/store stay below
// Dir; a link that leaves the store is an error.
func (s Store) Follow(path string) (string, error) {
	if _, _, err := SplitPath(path); err != nil {
		return "", err
	}
	done, rest := StoreDir, splitNames(path[len(StoreDir):])
	for links := 0; len(rest) > 0; {
		next := filepath.Join(done, rest[0])
		rest = rest[1:]
		if next != StoreDir && !strings.HasPrefix(next, StoreDir+"/") {
			return "", fmt.Errorf("resolve %q: it leads out of the store, to %q", path, next)
		}
		target, err := os.Readlink(s.Physical(next))
		if errors.Is(err, unix.EINVAL) { // no link
			done = next
			continue
		}
		if err != nil {
			return "", fmt.Errorf("resolve %q: %w", path, err)
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("resolve %q: more than %d symlinks", path, maxLinks)
		}
		if filepath.IsAbs(target) {
			below, ok := strings.CutPrefix(target, StoreDir+"/")
			if !ok {
				return "", fmt.Errorf("resolve %q: it leads out of the store, to %q", path, target)
			}
			done, target = StoreDir, below
		}
		rest = append(splitNames(target), rest...)
	}
	return done, nil
}

// Open opens a file in the store by its logical path, through symlinks.
func (s Store) Open(path string) (*os.File, error) {
	logical, err := s.Follow(path)
	if err != nil {
		return nil, err
	}
	return os.Open(s.Physical(logical))
}

// ReadFile reads a regular file of at most limit bytes, as Open finds it.
func (s Store) ReadFile(path string, limit int64) ([]byte, error) {
	f, err := s.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("read %q: not a regular file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %q: longer than %d bytes", path, limit)
	}
	return data, nil
}

// FS returns a folder of the store, by its logical path, as a file system.
// os.DirFS would follow absolute symlinks to the machine's own store.
func (s Store) FS(dir string) fs.FS { return storeFS{store: s, dir: dir} }

type storeFS struct {
	store Store
	dir   string
}

// Open implements fs.FS. Entries of a folder tell symlinks as such; fs.Stat follows them.
func (f storeFS) Open(name string) (fs.File, error) {
	if !fs.ValidPath(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrInvalid}
	}
	return f.store.Open(path.Join(f.dir, name))
}

// MissingError is a store path that should be there and cannot be read.
type MissingError struct {
	Path     StorePath
	Referrer StorePath // who needs it; empty for a root
	Store    Store
	Err      error
}

func (e *MissingError) Error() string {
	text := fmt.Sprintf("store path %s", e.Path)
	if e.Referrer != "" {
		text += fmt.Sprintf(", which %s refers to,", e.Referrer)
	}
	option := e.Store.option()
	switch {
	case errors.Is(e.Err, fs.ErrNotExist):
		return text + fmt.Sprintf(" is missing below %q; bring it with: nix-store%s --realise %s", e.Store.root(), option, e.Path)
	case errors.Is(e.Err, fs.ErrPermission):
		return text + fmt.Sprintf(" cannot be read: %v; make it readable for this user, or repair the store with: nix-store%s --verify --check-contents --repair", e.Err, option)
	}
	return text + fmt.Sprintf(" cannot be read: %v; repair the store with: nix-store%s --verify --check-contents --repair", e.Err, option)
}

func (e *MissingError) Unwrap() error { return e.Err }

func (s Store) missing(p, referrer StorePath, err error) error {
	return &MissingError{Path: p, Referrer: referrer, Store: s, Err: err}
}
