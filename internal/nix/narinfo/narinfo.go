// Package narinfo reads, writes, signs and checks narinfo files: what a Nix
// binary cache says of one store path (Nix manual, "Binary Cache", and
// "Store Object Info").
//
// It is about bytes only: nothing is fetched and nothing is trusted. Parse is
// strict in what it needs and bounded in everything; keys that it does not know
// are ignored, as Nix does, so that a newer cache can be read. What Encode
// writes is byte for byte what Nix writes for the same facts.
package narinfo

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"xnodeos.org/internal/nix"
)

// Bounds of what is read: far beyond what a real closure has.
const (
	MaxSize       = 2 << 20 // bytes of a narinfo file
	maxReferences = 1 << 14
	maxSignatures = 64
	maxURL        = 1024
	maxWord       = 4096 // Deriver, CA
)

// Compression is how a NAR lies in the cache.
type Compression string

// The compressions that we read. Nix has more (bzip2, br, lz4, ...); a file
// that names one parses, and whoever wants the NAR has to refuse it.
const (
	None Compression = "none"
	Zstd Compression = "zstd"
	XZ   Compression = "xz"
)

// Info is one narinfo file.
type Info struct {
	Path        nix.StorePath
	URL         string // relative to the cache's root, as in "nar/HASH.nar.zst"; safe to join (see checkURL)
	Compression Compression
	FileHash    *nix.Hash // of the compressed file; nil if it is not told
	FileSize    int64     // bytes of the compressed file; 0 if it is not told
	NarHash     nix.Hash
	NarSize     int64    // bytes
	References  []string // full store paths, sorted, each once
	Deriver     string   // HASH-NAME.drv or ""
	Sigs        []Signature
	CA          string // how the path follows from its content, "" if it does not
}

// Name returns the file name of a path's narinfo in the root of a cache.
func Name(p nix.StorePath) string { return p.HashPart() + ".narinfo" }

// ErrFormat is in every error about the bytes of a narinfo.
var ErrFormat = errors.New("not a valid narinfo")

func formatError(text string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(text, args...))
}

// PathInfo returns what a closure list says of a path.
func (i *Info) PathInfo() nix.PathInfo {
	return nix.PathInfo{Path: string(i.Path), NarHash: i.NarHash, NarSize: i.NarSize, References: i.References}
}

// Matches says whether the file describes exactly the path of a closure list,
// and what differs if not.
func (i *Info) Matches(want nix.PathInfo) error {
	switch {
	case string(i.Path) != want.Path:
		return fmt.Errorf("it is about %s", i.Path)
	case i.NarHash != want.NarHash:
		return fmt.Errorf("its NAR hash is %s, the closure list says %s", i.NarHash, want.NarHash)
	case i.NarSize != want.NarSize:
		return fmt.Errorf("its NAR has %d bytes, the closure list says %d", i.NarSize, want.NarSize)
	case !slices.Equal(i.References, want.References):
		for _, ref := range i.References {
			if !slices.Contains(want.References, ref) {
				return fmt.Errorf("it refers to %s, the closure list does not", ref)
			}
		}
		return errors.New("it lacks references that the closure list has")
	}
	return nil
}

// Encode writes the file as Nix does.
func (i *Info) Encode() []byte {
	var b bytes.Buffer
	line := func(key, value string) { fmt.Fprintf(&b, "%s: %s\n", key, value) }
	line("StorePath", string(i.Path))
	line("URL", i.URL)
	line("Compression", string(i.Compression))
	if i.FileHash != nil {
		line("FileHash", i.FileHash.Base32())
	}
	if i.FileSize > 0 {
		line("FileSize", strconv.FormatInt(i.FileSize, 10))
	}
	line("NarHash", i.NarHash.Base32())
	line("NarSize", strconv.FormatInt(i.NarSize, 10))
	refs := make([]string, len(i.References))
	for n, ref := range i.References {
		refs[n] = nix.StorePath(ref).Base()
	}
	line("References", strings.Join(refs, " "))
	if i.Deriver != "" {
		line("Deriver", i.Deriver)
	}
	for _, s := range i.Sigs {
		line("Sig", s.String())
	}
	if i.CA != "" {
		line("CA", i.CA)
	}
	return b.Bytes()
}
