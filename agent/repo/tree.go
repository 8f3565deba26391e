package repo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/storer"
)

const (
	maxTree    = 4 << 20 // bytes of one tree object: about 100,000 entries
	maxDepth   = 16      // folders of a path
	maxPathLen = 1 << 10
)

// treeEntry is one line of a tree object.
type treeEntry struct {
	mode filemode.FileMode
	name string
	id   plumbing.Hash
}

// parseTree reads a raw tree object: "MODE NAME NUL" and 20 bytes for each
// entry, names sorted as git sorts them. What could be read in two ways (a
// name twice, a slash, "..") is refused.
func parseTree(raw []byte) ([]treeEntry, error) {
	var out []treeEntry
	last := ""
	for len(raw) > 0 {
		head, rest, ok := bytes.Cut(raw, []byte{0})
		mode, name, spaced := strings.Cut(string(head), " ")
		if !ok || !spaced || len(rest) < 20 {
			return nil, errors.New("malformed tree: an entry is cut off")
		}
		m, err := filemode.New(mode)
		if err != nil {
			return nil, fmt.Errorf("malformed tree: mode %.20q", mode)
		}
		if name == "" || name == "." || name == ".." || strings.EqualFold(name, ".git") || strings.Contains(name, "/") {
			return nil, fmt.Errorf("malformed tree: name %.60q", name)
		}
		sorted := name
		if m == filemode.Dir {
			sorted += "/"
		}
		if sorted <= last || len(out) > 0 && out[len(out)-1].name == name {
			return nil, fmt.Errorf("malformed tree: %.60q is there twice or out of order", name)
		}
		last = sorted
		out = append(out, treeEntry{m, name, plumbing.Hash(rest[:20])})
		raw = rest[20:]
	}
	return out, nil
}

// readObject reads an object whole, if it has the type and is small enough,
// and checks that it hashes to its name.
func readObject(store storer.EncodedObjectStorer, kind plumbing.ObjectType, id string, most int64) ([]byte, error) {
	hash := plumbing.NewHash(id)
	size, err := store.EncodedObjectSize(hash)
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return nil, fmt.Errorf("%s %s is missing in the repository", kind, id)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", kind, id, err)
	}
	if size > most {
		return nil, fmt.Errorf("%s %s has %d bytes; allowed are %d", kind, id, size, most)
	}
	object, err := store.EncodedObject(kind, hash)
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", kind, id, err)
	}
	r, err := object.Reader()
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", kind, id, err)
	}
	defer r.Close()
	data, err := io.ReadAll(io.LimitReader(r, most+1))
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", kind, id, err)
	}
	hasher := plumbing.NewHasher(kind, int64(len(data)))
	hasher.Write(data)
	if hasher.Sum() != hash {
		return nil, fmt.Errorf("%s %s is damaged: its content has another hash", kind, id)
	}
	return data, nil
}

// findFile follows a path from a tree down to a regular file.
func findFile(store storer.EncodedObjectStorer, tree plumbing.Hash, name string) (plumbing.Hash, error) {
	if !fs.ValidPath(name) || name == "." || len(name) > maxPathLen || strings.Count(name, "/") >= maxDepth {
		return plumbing.ZeroHash, fmt.Errorf("%.100q is no path inside a repository", name)
	}
	steps := strings.Split(name, "/")
	for i, step := range steps {
		raw, err := readObject(store, plumbing.TreeObject, tree.String(), maxTree)
		if err != nil {
			return plumbing.ZeroHash, err
		}
		entries, err := parseTree(raw)
		if err != nil {
			return plumbing.ZeroHash, fmt.Errorf("%s: %w", tree, err)
		}
		entry, err := pick(entries, step)
		switch last := i == len(steps)-1; {
		case err != nil:
			return plumbing.ZeroHash, &fs.PathError{Op: "open", Path: path.Join(steps[:i+1]...), Err: err}
		case last && entry.mode != filemode.Regular && entry.mode != filemode.Executable && entry.mode != filemode.Deprecated,
			!last && entry.mode != filemode.Dir:
			return plumbing.ZeroHash, &fs.PathError{Op: "open", Path: path.Join(steps[:i+1]...), Err: errors.New("no regular file, or no folder")}
		}
		tree = entry.id
	}
	return tree, nil
}

func pick(entries []treeEntry, name string) (treeEntry, error) {
	for _, e := range entries {
		if e.name == name {
			return e, nil
		}
	}
	return treeEntry{}, fs.ErrNotExist
}
