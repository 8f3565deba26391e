package repo

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"

	"github.com/go-git/go-git/v5/plumbing"

	"xnodeos.org/internal/gitcommit"
)

// Snapshot is one fetched commit. It stays readable until two others have been
// fetched.
type Snapshot struct {
	Sequence uint32
	Commit   string // 40 hex digits
	Remote   string // that it came from, "" if it was on disk already
	// Dir is the bare, shallow repository with the commit under the tag
	// xnode/<Sequence>; git and Nix (git+file, shallow=1) can read it.
	Dir string

	raw  []byte
	tree plumbing.Hash
}

// open reads a fetched commit. The error is fs.ErrNotExist if it was not
// fetched, anything else if the copy is damaged.
func (r *Repo) open(seq uint32, commit string) (*Snapshot, error) {
	s := &Snapshot{Sequence: seq, Commit: commit, Dir: r.path(seq, commit)}
	if _, err := os.Stat(s.Dir); err != nil {
		return nil, fmt.Errorf("open commit %s: %w", commit, err)
	}
	if err := s.load(); err != nil {
		//nolint:errorlint // a part that is missing is damage, not fs.ErrNotExist
		return nil, fmt.Errorf("open commit %s: %v", commit, err)
	}
	return s, nil
}

func (s *Snapshot) load() error {
	store := openStorage(s.Dir)
	defer store.Close() //nolint:errcheck // it was only read
	raw, err := readObject(store, plumbing.CommitObject, s.Commit, gitcommit.MaxSize)
	if err != nil {
		return err
	}
	c, err := gitcommit.Parse(raw)
	if err != nil {
		return err
	}
	s.raw, s.tree = raw, plumbing.NewHash(c.Tree)
	_, err = readObject(store, plumbing.TreeObject, c.Tree, maxTree)
	return err
}

// CommitObject returns the raw commit object, for gitcommit.Verify: who signed
// it matters only to a node that builds locally.
func (s *Snapshot) CommitObject() []byte { return bytes.Clone(s.raw) }

// ReadFile returns a regular file of the commit, by its path from the top with
// slashes. The error is fs.ErrNotExist if there is none; a file of more than
// most bytes is an error before it is read.
func (s *Snapshot) ReadFile(name string, most int64) ([]byte, error) {
	store := openStorage(s.Dir)
	defer store.Close() //nolint:errcheck // it was only read
	hash, err := findFile(store, s.tree, name)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", s.Commit, err)
	}
	data, err := readObject(store, plumbing.BlobObject, hash.String(), most)
	if err != nil {
		return nil, fmt.Errorf("commit %s: read %q: %w", s.Commit, name, err)
	}
	return data, nil
}

// names lists the files at the top of the commit.
func (s *Snapshot) names() ([]string, error) {
	store := openStorage(s.Dir)
	defer store.Close() //nolint:errcheck // it was only read
	raw, err := readObject(store, plumbing.TreeObject, s.tree.String(), maxTree)
	if err != nil {
		return nil, err
	}
	entries, err := parseTree(raw)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if e.mode.IsFile() && fs.ValidPath(e.name) {
			out = append(out, e.name)
		}
	}
	return out, nil
}
