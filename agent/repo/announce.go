package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
)

const (
	announceRef = "refs/heads/announce"
	maxRecord   = 4 << 10 // bytes of <owner name>.txt; a record has at most 255
	maxTrust    = 1 << 20 // of trust.json
	maxSig      = 16 << 10
	maxSigs     = 32
	// The branch is small by nature; most of what comes is the list of refs.
	announceBytes, announceObjects = 16 << 20, 2000
)

// Announced is the branch "announce" of one remote, as bytes that nobody has
// verified yet.
type Announced struct {
	Remote string
	// Record is the one line of <owner name>.txt without its end, nil if there
	// is none.
	Record []byte
	// Trust is trust.json, nil if there is none; Signatures are its files
	// trust.json.sig.<k> by their whole names.
	Trust      []byte
	Signatures map[string][]byte
}

// ReadAnnounce reads the branch of every remote, in their order: a remote
// that stands still or lies must not hide what another one carries, and the
// contents count by their own signatures. owner is the owner name of the
// record. Remotes that cannot be read are named in the error, which is not nil
// beside results too; nothing is kept on disk.
func (r *Repo) ReadAnnounce(ctx context.Context, owner string) ([]Announced, error) {
	if err := checkOwner(owner); err != nil {
		return nil, err
	}
	var out []Announced
	var errs []error
	for _, rem := range r.remotes {
		a, err := r.readAnnounce(ctx, rem, owner)
		if ctx.Err() != nil {
			return out, fmt.Errorf("read branch announce: %w", context.Cause(ctx))
		}
		if err != nil {
			errs = append(errs, &RemoteError{rem.name, err})
			continue
		}
		out = append(out, *a)
	}
	if len(errs) > 0 {
		return out, fmt.Errorf("read branch announce: %w", errors.Join(errs...))
	}
	return out, nil
}

// checkOwner takes a host name in lower case without trailing dot.
func checkOwner(owner string) error {
	ok := owner != "" && len(owner) <= 253 && strings.Trim(owner, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == ""
	for label := range strings.SplitSeq(owner, ".") {
		ok = ok && label != "" && len(label) <= 63
	}
	if !ok {
		return fmt.Errorf("owner name %q of the record; want a DNS name in lower case without trailing dot", owner)
	}
	return nil
}

func (r *Repo) readAnnounce(ctx context.Context, rem *remote, owner string) (*Announced, error) {
	limits := r.opt.Limits
	limits.Bytes, limits.Objects = min(limits.Bytes, announceBytes), min(limits.Objects, announceObjects)
	temp, err := r.download(ctx, rem, limits, announceRef, "")
	if temp != "" {
		defer os.RemoveAll(temp)
	}
	if err != nil {
		return nil, err
	}
	s, err := openHead(temp)
	if err != nil {
		return nil, err
	}
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	out := &Announced{Remote: rem.name, Signatures: map[string][]byte{}}
	for _, name := range names {
		var err error
		switch suffix, isSig := strings.CutPrefix(name, "trust.json.sig."); {
		case name == owner+".txt":
			out.Record, err = s.ReadFile(name, maxRecord)
			out.Record = bytes.TrimSuffix(out.Record, []byte("\n"))
		case name == "trust.json":
			out.Trust, err = s.ReadFile(name, maxTrust)
		case isSig && suffix != "" && len(suffix) <= 64 && len(out.Signatures) < maxSigs:
			out.Signatures[name], err = s.ReadFile(name, maxSig)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// openHead opens a repository that download made, at its only commit.
func openHead(dir string) (*Snapshot, error) {
	store := openStorage(dir)
	defer store.Close() //nolint:errcheck // it was only read
	head, err := store.Reference(plumbing.HEAD)
	if err != nil {
		return nil, err
	}
	s := &Snapshot{Commit: head.Hash().String(), Dir: dir}
	return s, s.load()
}
