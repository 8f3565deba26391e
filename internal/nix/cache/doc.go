// Package cache reads and writes Nix binary caches: a folder, a file:// URL or
// an HTTP(S) URL with nix-cache-info, HASH.narinfo and NARs (Nix manual,
// "Binary Cache"), and beside them closures/SHA256HEX.closure, the closure
// lists that releases name by their digest.
//
// Reading believes nothing of what a cache says: a list counts by its digest, a
// narinfo only if it says of a path what the closure list says, a NAR only as
// far as the list's size (its hash is for whoever takes the bytes). A reader is
// a Set of caches in order; one that is faulty is tried again with pauses, then
// dropped and named. Memory is bounded by Options.DecodeMemory and small
// buffers, whatever a cache sends; no NAR is held.
//
// Writing (Push, Keeper) makes folders that Nix itself reads. Every file appears
// whole or not at all, and a file that others name comes before them: NAR,
// narinfo, closure list. The same closure gives the same bytes.
//
// What writes into the store is package daemon; what joins the two is package
// substitute.
package cache

import (
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"xnodeos.org/internal/mirror"
	"xnodeos.org/internal/nix"
)

// Names in the root of a cache.
const (
	InfoName     = "nix-cache-info"
	narFolder    = "nar"
	listFolder   = "closures"
	listSuffix   = ".closure"
	infoSuffix   = ".narinfo"
	maxInfoSize  = 64 << 10
	maxListSize  = 64 << 20
	infoText     = "StoreDir: " + nix.StoreDir + "\nWantMassQuery: 1\nPriority: 40\n"
	listFileMode = 0o644
	folderMode   = 0o755
)

// ListName is where a cache has the closure list of a digest.
func ListName(digest nix.Hash) string { return listFolder + "/" + digest.Hex() + listSuffix }

// ErrNotFound says that a cache has no such file. It is no fault of a cache.
var ErrNotFound = errors.New("the cache does not have it")

// Options say how to read. Clock is needed; the zero value of every other field
// is the default that its comment names.
type Options struct {
	// Clock is a time that only grows.
	Clock func() time.Duration
	// Keys are the cache keys whose signature a narinfo needs; without keys
	// signatures are not looked at here (the nix-daemon does it in any case).
	Keys []nix.PublicKey
	// StallTimeout ends a request that brings next to nothing
	// (mirror.StallBytes) for so long; 15 s.
	StallTimeout time.Duration
	// Tries is how many faults in a row a cache may have before it is dropped; 8,
	// but never more than 3 while there is another cache to ask.
	Tries int
	// DecodeMemory bounds the windows of all decompressors together, in bytes;
	// 16 MiB. A NAR whose window is larger is refused.
	DecodeMemory int64
	// OnFault is told of each fault as it happens, never from two goroutines at once.
	OnFault func(cache string, f mirror.Fault)
	// Jitter returns numbers from 0 to 1 that spread retries; random ones.
	Jitter func() float64
}

const (
	// progressBytes between two faults make the second the first again.
	progressBytes = 4 << 10
	// maxStrikes is how often a cache may be plainly wrong.
	maxStrikes = 3
	// triesWithOthers takes the place of Options.Tries while there are other caches.
	triesWithOthers = 3
)

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		panic("BUG: cache: Options without a Clock")
	}
	if o.StallTimeout <= 0 {
		o.StallTimeout = 15 * time.Second
	}
	if o.Tries <= 0 {
		o.Tries = 8
	}
	if o.DecodeMemory <= 0 {
		o.DecodeMemory = 16 << 20
	}
	if o.OnFault == nil {
		o.OnFault = func(string, mirror.Fault) {}
	}
	if o.Jitter == nil {
		o.Jitter = rand.Float64
	}
	return o
}

// Cache is one binary cache, not yet asked for anything.
type Cache struct {
	name   string
	source source
}

// String returns what the cache was opened by, without secrets.
func (c *Cache) String() string { return c.name }

// Open reads what an operator or a release writes: http:// or https:// and the
// URL of the folder with nix-cache-info, file:// and an absolute folder, or the
// path of a folder. Nothing is asked yet. client is what NewClient returns, or nil for that.
func Open(text string, client *http.Client) (*Cache, error) { return open(text, client) }
