// Package nix knows Nix's data as files and bytes, without Nix: store paths,
// hashes, NAR archives (package nar below), the references of a path and the
// closure of a system, closure lists, and the registration text that gives a
// booted node its Nix database.
//
// It reads a store and never writes one. Nix's own database is asked through
// nix-store where there is one (see Database); everything else works on a
// plain folder of store paths, for any user.
package nix

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
)

const (
	// StoreDir is the only logical store folder that we deal with: paths in
	// another one have other hashes and are useless to a node.
	StoreDir = "/nix/store"
	// HashLen is the length of a store path's hash part.
	HashLen = 32
	// maxName is Nix's limit for the part after the hash.
	maxName = 211
)

// StorePath is a valid path directly in the store: /nix/store/HASH-NAME.
type StorePath string

// ErrNotStorePath is in every error of ParseStorePath and Resolve that says
// that something is no store path at all.
var ErrNotStorePath = errors.New("not a store path")

// ParseStorePath checks the full form /nix/store/HASH-NAME.
func ParseStorePath(path string) (StorePath, error) {
	base, ok := strings.CutPrefix(path, StoreDir+"/")
	if !ok {
		return "", fmt.Errorf("%q: %w: it does not begin with %s/", cut(path), ErrNotStorePath, StoreDir)
	}
	return ParseBaseName(base)
}

// ParseBaseName checks HASH-NAME, the form of narinfo references and of the
// store folder's entries.
func ParseBaseName(base string) (StorePath, error) {
	fail := func(why string, args ...any) (StorePath, error) {
		return "", fmt.Errorf("%q: %w: %s", cut(base), ErrNotStorePath, fmt.Sprintf(why, args...))
	}
	if len(base) < HashLen+2 || base[HashLen] != '-' {
		return fail("want %d characters of hash, a dash and a name", HashLen)
	}
	for i := range HashLen {
		if base32Digit[base[i]] == notBase32 {
			return fail("its hash has the character %q", base[i])
		}
	}
	name := base[HashLen+1:]
	if len(name) > maxName {
		return fail("its name has %d characters; %d are allowed", len(name), maxName)
	}
	if name[0] == '.' {
		return fail("its name begins with a dot")
	}
	for i := range len(name) {
		if !nameChar(name[i]) {
			return fail("its name has the character %q; letters, digits and +-._?= are allowed", name[i])
		}
	}
	return StorePath(StoreDir + "/" + base), nil
}

func nameChar(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("+-._?=", c) >= 0
}

// Base returns HASH-NAME.
func (p StorePath) Base() string { return string(p[len(StoreDir)+1:]) }

// HashPart returns the 32 characters by which a path is found in the bytes of others.
func (p StorePath) HashPart() string { return p.Base()[:HashLen] }

// Name returns the part after the hash.
func (p StorePath) Name() string { return p.Base()[HashLen+1:] }

// SplitPath cuts an absolute path inside the store into the store path and
// what lies below it ("" or "bin/x"). It is purely about text.
func SplitPath(path string) (StorePath, string, error) {
	rest, ok := strings.CutPrefix(path, StoreDir+"/")
	if !ok {
		return "", "", fmt.Errorf("%q: %w: it does not begin with %s/", cut(path), ErrNotStorePath, StoreDir)
	}
	base, below, _ := strings.Cut(rest, "/")
	p, err := ParseBaseName(base)
	return p, below, err
}

// SourcePath is where Nix puts a source without references whose NAR has the
// given hash: nix-store --add, builtins.path, recursive SHA-256 fixed outputs.
func SourcePath(name string, nar Hash) (StorePath, error) {
	return makePath("source", nar, name)
}

// FlatPath is where Nix puts one file by the hash of its bytes:
// nix-store --add-fixed sha256, fetchurl.
func FlatPath(name string, file Hash) (StorePath, error) {
	inner := sha256.Sum256([]byte("fixed:out:sha256:" + file.Hex() + ":"))
	return makePath("output:out", inner, name)
}

// makePath follows "Complete Store Path Calculation" of the Nix manual.
func makePath(kind string, inner Hash, name string) (StorePath, error) {
	sum := sha256.Sum256([]byte(kind + ":sha256:" + inner.Hex() + ":" + StoreDir + ":" + name))
	var folded [20]byte // the hash XORed onto itself, not cut off
	for i, b := range sum {
		folded[i%len(folded)] ^= b
	}
	return ParseBaseName(EncodeBase32(folded[:]) + "-" + name)
}
