package trust

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	"xnodeos.org/internal/sshsign"
)

// Bundle is a document with the signatures that were found beside it, in any
// order; any number of them may be by other keys or worth nothing.
type Bundle struct {
	Document   []byte
	Signatures [][]byte // armoured
}

// State is what a node trusts: what was embedded, changed by the documents
// that were verified since.
type State struct {
	// Version is that of the newest document, 0 without one.
	Version uint32
	// MinSequence is the least sequence of a record that counts.
	MinSequence uint32
	// Signers are all keys and their roles.
	Signers *Signers
	// NixKeys are public keys of Nix caches, "name:base64".
	NixKeys []string
	// Threshold is how many root keys have to sign the next document.
	Threshold int
	// Chain are the documents that lead here from what was embedded, rising:
	// what to keep. One that is not needed to verify a later one is left out.
	Chain []Bundle

	before *State // what the last document of Chain was applied to
}

// Embedded is the state before any document: what the trust root of a node
// brings. A majority of its root keys has to sign the first document; the
// document itself cannot say how many, because nobody would have verified that.
func Embedded(signers *Signers, nixKeys []string) *State {
	if signers == nil {
		signers = &Signers{}
	}
	return &State{Signers: signers, NixKeys: slices.Clone(nixKeys), Threshold: len(signers.keys(NamespaceTrust))/2 + 1}
}

// Roots returns the different keys that may sign the next document.
func (s *State) Roots() []sshsign.PublicKey { return s.Signers.keys(NamespaceTrust) }

// VersionError is a document that is not newer than the one that counts.
type VersionError struct{ Have, Got uint32 }

func (e *VersionError) Error() string {
	if e.Have == e.Got {
		return fmt.Sprintf("version %d is already another document; publish it with a higher version", e.Got)
	}
	return fmt.Sprintf("version %d is older than %d, which counts; publish it with a higher version", e.Got, e.Have)
}

// ThresholdError is a document that too few root keys signed.
type ThresholdError struct {
	Version  uint32
	New      bool // the document's own root keys are missing, not those before
	Want, Of int
	Valid    []sshsign.PublicKey
	Refused  []error // of the signatures that do not count
}

func (e *ThresholdError) Error() string {
	whose := "root keys that count now"
	if e.New {
		whose = "root keys that it names itself"
	}
	if e.Of == 0 {
		return fmt.Sprintf("version %d: allowed_signers has no key with the role %s, so no trust.json can count; embed the root keys", e.Version, NamespaceTrust)
	}
	text := fmt.Sprintf("version %d is signed by %d of the %d %s; %d have to sign it: ssh-keygen -Y sign -n %s -f KEY trust.json",
		e.Version, len(e.Valid), e.Of, whose, e.Want, NamespaceTrust)
	for i, err := range e.Refused {
		if i == 3 {
			return fmt.Sprintf("%s; and %d more", text, len(e.Refused)-i)
		}
		text += fmt.Sprintf("; signature %d: %v", i+1, err)
	}
	return text
}

// Unwrap returns why signatures do not count.
func (e *ThresholdError) Unwrap() []error { return e.Refused }

// Apply verifies a document and returns the state that follows. s itself is
// not changed, and stays what counts after an error. The newest document once
// more gives s. Where a document changes the root keys, as many of the new ones
// as it demands must have signed as well: else a slip could lock everybody out.
// The errors are *VersionError, *ThresholdError, and those of ParseDocument.
func (s *State) Apply(b Bundle) (*State, error) {
	d, signers, err := parseDocument(b.Document)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", DocumentName, err)
	}
	if n := len(s.Chain); n > 0 && bytes.Equal(s.Chain[n-1].Document, b.Document) {
		return s, nil
	}
	if d.Version <= s.Version {
		return nil, fmt.Errorf("apply %s: %w", DocumentName, &VersionError{s.Version, d.Version})
	}
	next := &State{
		Version: d.Version, MinSequence: d.MinSequence, Signers: signers,
		NixKeys: d.NixKeys, Threshold: d.RootThreshold,
	}
	if err := s.follows(next, b); err != nil {
		return nil, fmt.Errorf("apply %s: %w", DocumentName, err)
	}
	before := s
	for before.before != nil && before.before.follows(next, b) == nil {
		before = before.before
	}
	next.before = before
	next.Chain = append(slices.Clone(before.Chain), Bundle{bytes.Clone(b.Document), cloneAll(b.Signatures)})
	return next, nil
}

// follows says whether the signatures of b lead from s to next.
func (s *State) follows(next *State, b Bundle) error {
	if err := verify(next.Version, b, s.Roots(), s.Threshold, false); err != nil {
		return err
	}
	if s.Threshold == next.Threshold && sameKeys(s.Roots(), next.Roots()) {
		return nil
	}
	return verify(next.Version, b, next.Roots(), next.Threshold, true)
}

// verify counts the different root keys that signed.
func verify(version uint32, b Bundle, roots []sshsign.PublicKey, want int, isNew bool) error {
	e := &ThresholdError{Version: version, New: isNew, Want: want, Of: len(roots)}
	for i, armored := range b.Signatures {
		if i == MaxSignatures {
			e.Refused = append(e.Refused, fmt.Errorf("more than %d signatures", MaxSignatures))
			break
		}
		key, err := sshsign.Verify(NamespaceTrust, b.Document, armored)
		switch {
		case err != nil:
			e.Refused = append(e.Refused, &BadSignatureError{err})
		case !slices.Contains(roots, key):
			e.Refused = append(e.Refused, &UnknownKeyError{key})
		case !slices.Contains(e.Valid, key):
			e.Valid = append(e.Valid, key)
		}
	}
	if want < 1 || len(e.Valid) < want {
		return e
	}
	return nil
}

func sameKeys(a, b []sshsign.PublicKey) bool {
	if len(a) != len(b) {
		return false
	}
	for _, key := range a {
		if !slices.Contains(b, key) {
			return false
		}
	}
	return true
}

func cloneAll(in [][]byte) [][]byte {
	out := make([][]byte, len(in))
	for i, data := range in {
		out[i] = bytes.Clone(data)
	}
	return out
}

// Current applies documents to what is embedded, in the order of their
// versions: all that a node has kept and found, in any order, some of it
// perhaps damaged or forged. It returns what counts, and why the documents that
// do not count were left out.
func Current(embedded *State, bundles ...Bundle) (*State, []error) {
	type candidate struct {
		version uint32
		bundle  Bundle
	}
	if embedded == nil { // nothing can be verified by nobody
		return nil, nil
	}
	var candidates []candidate
	var errs []error
	for _, b := range bundles {
		d, err := ParseDocument(b.Document)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		candidates = append(candidates, candidate{d.Version, b})
	}
	slices.SortStableFunc(candidates, func(a, b candidate) int { return cmp.Compare(a.version, b.version) })
	state := embedded
	for _, c := range candidates {
		next, err := state.Apply(c.bundle)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		state = next
	}
	return state, errs
}
