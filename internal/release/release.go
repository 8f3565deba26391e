// Package release is what a node reads of a config repository: release.json,
// the systems of one sequence number by class and architecture, and nodes.json,
// which node is of which class.
//
// The announcement binds release.json by its hash, and release.json binds
// nodes.json; so Digest is compared before anything is parsed. Readers ignore
// what they do not know, unless "critical" names it: an old agent must be able
// to read the release that updates it. Writers have one encoding. The package
// fetches nothing and decides nothing about a node's state.
package release

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"time"

	"xnodeos.org/internal/nix"
)

const (
	// Version is the only value of V that this code reads and writes, in both
	// files.
	Version = 1
	// FileName is the name of a release in the repository.
	FileName = "release.json"
	// NodesName is the name of its nodes.
	NodesName = "nodes.json"
	// MaxSize bounds release.json in bytes.
	MaxSize = 1 << 20
	// MaxNodes bounds nodes.json in bytes.
	MaxNodes = 8 << 20
)

// Medium is what a system is made for.
type Medium string

const (
	// Live is a system whose root is in RAM.
	Live Medium = "live"
	// Installed is a system whose root is on a disk.
	Installed Medium = "installed"
)

// Barrier names a change of data that no older system can read; "" is none,
// and null in JSON. A node does not go back past it.
type Barrier string

// MarshalJSON writes "" as null.
func (b Barrier) MarshalJSON() ([]byte, error) {
	if b == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(b))
}

// Target is the system of one class and architecture.
type Target struct {
	System  string  `json:"system"`  // store path of the toplevel
	Closure string  `json:"closure"` // digest of its closure list, "sha256-BASE64"
	Medium  Medium  `json:"medium"`
	Barrier Barrier `json:"barrier"`
}

// Policy says how fast a fleet takes a release. Its zero value is at once.
type Policy struct {
	// Waves is the number of groups that start one after the other; 0 and 1
	// mean all at once.
	Waves uint32 `json:"waves,omitempty"`
	// RampSeconds is the time from the first group to the end of the last.
	RampSeconds int64 `json:"ramp_seconds,omitempty"`
}

// Start returns when a node may begin, for a record published at a time. The
// group comes from key and sequence together, so that each release has other
// nodes go first.
func (p Policy) Start(published int64, sequence uint32, key string) time.Time {
	start := time.Unix(published, 0)
	if p.Waves < 2 {
		return start
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\n%d", key, sequence))
	wave := binary.BigEndian.Uint64(sum[:]) % uint64(p.Waves)
	return start.Add(time.Duration(p.RampSeconds) * time.Second / time.Duration(p.Waves) * time.Duration(wave)) //nolint:gosec // below Waves, which is bounded
}

// Release is release.json. The order of the fields is that of the encoding.
type Release struct {
	V         int      `json:"v"`
	Critical  []string `json:"critical"`  // keys that a reader must know
	Seq       uint32   `json:"seq"`       // the record's sequence
	Published int64    `json:"published"` // seconds since 1970
	Caches    []string `json:"caches"`    // URLs of Nix binary caches
	Nodes     string   `json:"nodes"`     // digest of nodes.json, "sha256-BASE64"; "" without one
	Policy    Policy   `json:"policy"`
	// Classes has the targets by class and by Nix's name of the architecture.
	Classes map[string]map[string]Target `json:"classes"`
}

// NoTargetError is a class or architecture that the release does not serve.
type NoTargetError struct{ Class, Arch string }

func (e *NoTargetError) Error() string {
	if e.Arch == "" {
		return fmt.Sprintf("the release has no class %q; correct the node's class, or add it to xnode.toml and release again", e.Class)
	}
	return fmt.Sprintf("the release has no system for %s in class %q; add one and release again", e.Arch, e.Class)
}

// For returns the target of a class and architecture; the error is
// *NoTargetError.
func (r *Release) For(class, arch string) (Target, error) {
	archs, ok := r.Classes[class]
	if !ok {
		return Target{}, &NoTargetError{Class: class}
	}
	t, ok := archs[arch]
	if !ok {
		return Target{}, &NoTargetError{class, arch}
	}
	return t, nil
}

// Digest is what a record's d holds: the SHA-256 of the bytes of release.json.
func Digest(data []byte) [sha256.Size]byte { return sha256.Sum256(data) }

// DigestText is the form in which release.json names nodes.json:
// "sha256-BASE64".
func DigestText(data []byte) string { return nix.Hash(sha256.Sum256(data)).String() }

// MismatchError is a file whose bytes are not the ones that were bound.
type MismatchError struct {
	File      string
	Want, Got string
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("%s is not the one that was announced: it has %s, want %s; it was changed on its way, or the release was made anew without a new record", e.File, e.Got, e.Want)
}

// SequenceError is a release.json of another sequence than its record.
type SequenceError struct{ Want, Got uint32 }

func (e *SequenceError) Error() string {
	return fmt.Sprintf("release.json says seq %d, its record says s=%d; make the release again with: xnodeos release", e.Got, e.Want)
}

// Open reads the release.json that a record names: bytes by digest first, then
// content, then its sequence. The errors are *MismatchError, *SequenceError and
// those of Parse.
func Open(data []byte, digest [sha256.Size]byte, sequence uint32) (*Release, error) {
	if got := Digest(data); got != digest {
		return nil, &MismatchError{FileName, nix.Hash(digest).String(), nix.Hash(got).String()}
	}
	r, err := Parse(data)
	if err != nil {
		return nil, err
	}
	if r.Seq != sequence {
		return nil, &SequenceError{sequence, r.Seq}
	}
	return r, nil
}

// Parse reads and checks a release.json.
func Parse(data []byte) (*Release, error) {
	r := &Release{}
	if err := parse(data, MaxSize, r, releaseKeys); err != nil {
		return nil, fmt.Errorf("parse %s: %w", FileName, err)
	}
	r.leaveOut()
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("parse %s: %w", FileName, err)
	}
	return r, nil
}

// leaveOut drops what a later version may name for others: caches of another
// kind, and targets for another medium. A reader that refused the whole file
// could never be updated by it; what must be understood stands in critical.
func (r *Release) leaveOut() {
	r.Caches = slices.DeleteFunc(r.Caches, func(text string) bool {
		u, err := url.Parse(text)
		return err == nil && u.Scheme != "" && u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "file"
	})
	for class, archs := range r.Classes {
		before := len(archs)
		maps.DeleteFunc(archs, func(_ string, t Target) bool { return isWord(string(t.Medium), 64) && t.Medium.Check() != nil })
		if before > 0 && len(archs) == 0 {
			delete(r.Classes, class)
		}
	}
}

// Encode returns the one encoding: JSON with an indent of two spaces, maps
// sorted, one LF at the end. It refuses what Parse would refuse.
func (r *Release) Encode() ([]byte, error) {
	out := *r
	out.Critical, out.Caches = notNil(out.Critical), notNil(out.Caches)
	if err := out.check(); err != nil {
		return nil, fmt.Errorf("encode %s: %w", FileName, err)
	}
	return encode(FileName, &out, MaxSize)
}

// notNil keeps null and [] from being two encodings of one thing.
func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}

func encode(name string, value any, limit int) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(value); err != nil {
		return nil, fmt.Errorf("encode %s: %w", name, err)
	}
	if buf.Len() > limit {
		return nil, fmt.Errorf("encode %s: %d bytes; allowed are %d", name, buf.Len(), limit)
	}
	return buf.Bytes(), nil
}

// parse decodes after it has looked at version and critical keys: the rest of a
// later version may not even have the same types.
func parse(data []byte, limit int, into any, known []string) error {
	if len(data) > limit {
		return fmt.Errorf("%d bytes; allowed are %d", len(data), limit)
	}
	var head struct {
		V        int      `json:"v"`
		Critical []string `json:"critical"`
	}
	if err := decodeOne(data, &head); err != nil {
		return err
	}
	if head.V != Version {
		return &UnknownError{fmt.Sprintf("version %d", head.V)}
	}
	for _, key := range head.Critical {
		if !knows(known, key) {
			return &UnknownError{fmt.Sprintf("the critical key %q", cut(key))}
		}
	}
	return decodeOne(data, into)
}

// UnknownError is a file that needs a reader that knows more.
type UnknownError struct{ What string }

func (e *UnknownError) Error() string {
	return "it has " + e.What + ", which this program does not know; bring a newer xnode to the node first"
}

func decodeOne(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("not JSON as it should be: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("something follows the JSON object at byte %d", dec.InputOffset())
	}
	return nil
}
