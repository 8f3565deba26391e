// Package trust reads who may sign what: OpenSSH's allowed_signers file
// (ssh-keygen(1), "ALLOWED SIGNERS"), with a role for each namespace that a
// key is listed for.
//
// What it accepts means the same to ssh-keygen -Y verify, but it accepts less:
// only ssh-ed25519 keys, no certificate authorities, and no key without
// namespaces=, which OpenSSH would let sign everything. Principals are shown
// and never judged. The package reads bytes; where they come from and which
// file counts is the caller's to know.
package trust

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"xnodeos.org/internal/sshsign"
)

// The namespaces of SSH signatures, which are the roles of keys.
const (
	// NamespaceAnnounce is for the announcement of a release.
	NamespaceAnnounce = "xnode-announce"
	// NamespaceManifest is for manifest.json and SHA256SUMS of an image.
	NamespaceManifest = "xnode-manifest"
	// NamespaceTrust is for trust.json, which changes all other keys.
	NamespaceTrust = "xnode-trust"
	// NamespaceGit is for commits; the name is git's own.
	NamespaceGit = "git"
)

// Signer is one line of the file: a key and what it may sign.
type Signer struct {
	Key        sshsign.PublicKey
	Principals string   // as written, a pattern list; for people
	Comment    string   // as written; for people
	Namespaces []string // plain names, in the order of the line
	// ValidAfter and ValidBefore are the key's dates, zero where there is
	// none; without a Z at the end they are read as UTC. Verify ignores them:
	// at the first boot nothing knows what time it is.
	ValidAfter, ValidBefore time.Time
	Line                    int // in the file, from 1
}

// ValidAt says whether t lies within the key's dates, for a caller that knows
// the time. Both ends belong to the time of validity.
func (s *Signer) ValidAt(t time.Time) bool {
	return (s.ValidAfter.IsZero() || !t.Before(s.ValidAfter)) && (s.ValidBefore.IsZero() || !t.After(s.ValidBefore))
}

// String names the signer to an operator.
func (s *Signer) String() string {
	return fmt.Sprintf("%s (%q, line %d)", s.Key.Fingerprint(), s.Principals, s.Line)
}

// Signers are the lines of an allowed_signers file in its order. The zero
// value trusts nobody.
type Signers struct {
	List []Signer
}

// UnknownKeyError is a good signature by a key that is not in the file.
type UnknownKeyError struct{ Key sshsign.PublicKey }

func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("signed by the key %s, which allowed_signers does not list; sign with a listed key, "+
		"or list this one if its owner confirms the fingerprint", e.Key.Fingerprint())
}

// RoleError is a good signature by a key that is listed for other purposes.
type RoleError struct {
	Signer    Signer // the first line with the key
	Namespace string // the role that it lacks
	Has       []string
}

func (e *RoleError) Error() string {
	return fmt.Sprintf("signed by the key %s, which allowed_signers lists for %s and not for %s; sign with a key that has this role, or add it to namespaces=",
		&e.Signer, strings.Join(e.Has, ", "), e.Namespace)
}

// BadSignatureError is a signature that proves nothing: damaged, over another
// message, for another namespace, by another type of key. It unwraps to the
// errors of package sshsign.
type BadSignatureError struct{ Err error }

func (e *BadSignatureError) Error() string { return e.Err.Error() }
func (e *BadSignatureError) Unwrap() error { return e.Err }

// Verify checks that armored is a signature of message, made for the
// namespace by a key that has this role, and returns the line that says so.
// The errors are *BadSignatureError, *UnknownKeyError and *RoleError; the
// signature is checked first, so that the latter two name a key that really
// signed.
func (s *Signers) Verify(namespace string, message, armored []byte) (*Signer, error) {
	key, err := sshsign.Verify(namespace, message, armored)
	if err != nil {
		return nil, &BadSignatureError{err}
	}
	return s.Authorize(namespace, key)
}

// Authorize looks for the role alone: the caller has checked the signature
// itself. The errors are *UnknownKeyError and *RoleError.
func (s *Signers) Authorize(namespace string, key sshsign.PublicKey) (*Signer, error) {
	missing := &RoleError{Namespace: namespace}
	if s == nil {
		return nil, &UnknownKeyError{key}
	}
	for i := range s.List {
		signer := &s.List[i]
		if signer.Key != key {
			continue
		}
		if slices.Contains(signer.Namespaces, namespace) {
			return signer, nil
		}
		if missing.Has == nil {
			missing.Signer = *signer
		}
		missing.Has = append(missing.Has, signer.Namespaces...)
	}
	if missing.Has == nil {
		return nil, &UnknownKeyError{key}
	}
	return nil, missing
}

// Has says whether any key has the role: without one no signature can count,
// which is better said before one is looked for.
func (s *Signers) Has(namespace string) bool {
	return s != nil && slices.ContainsFunc(s.List, func(x Signer) bool { return slices.Contains(x.Namespaces, namespace) })
}
