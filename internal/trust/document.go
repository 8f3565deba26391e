package trust

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"xnodeos.org/internal/sshsign"
)

const (
	// DocumentVersion is the only value of Document.V that is read and written.
	DocumentVersion = 1
	// DocumentName is the file name of a document, beside its signatures.
	DocumentName = "trust.json"
	// MaxDocument bounds an encoded document in bytes.
	MaxDocument = 256 << 10
	// MaxSignatures bounds the signatures that are looked at for one document.
	MaxSignatures = 64

	maxNixKeys = 64
)

// Document is trust.json: all keys that count from now on, in place of those
// that counted before. The order of the fields is that of the encoding.
type Document struct {
	V int `json:"v"`
	// Version only rises.
	Version uint32 `json:"version"`
	// MinSequence is the least sequence of a record that counts: what a stolen
	// key may have announced stays below it.
	MinSequence uint32 `json:"min_sequence"`
	// Signers are lines of an allowed_signers file. At least one key has the
	// role xnode-trust: it is the only one that can change the list again.
	Signers []string `json:"signers"`
	// NixKeys are public keys of Nix caches, "name:base64".
	NixKeys []string `json:"nix_keys"`
	// RootThreshold is how many keys of this document with the role
	// xnode-trust have to sign the next one.
	RootThreshold int `json:"root_threshold"`
}

// SignatureName is the file name of the signature that a key makes of
// trust.json. The "/" of its id cannot be part of one.
func SignatureName(key sshsign.PublicKey) string {
	return DocumentName + ".sig." + strings.ReplaceAll(key.ID(), "/", "_")
}

// Encode returns the document as JSON with an indent of two spaces and one LF
// at the end. It refuses what ParseDocument would refuse.
func (d *Document) Encode() ([]byte, error) {
	out := *d
	if out.Signers == nil {
		out.Signers = []string{}
	}
	if out.NixKeys == nil {
		out.NixKeys = []string{}
	}
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false) // "&" and "<" may be in a comment; people read this file
	enc.SetIndent("", "  ")
	if err := enc.Encode(&out); err != nil {
		return nil, fmt.Errorf("encode %s: %w", DocumentName, err)
	}
	if _, _, err := parseDocument(buf.Bytes()); err != nil {
		return nil, fmt.Errorf("encode %s: %w", DocumentName, err)
	}
	return buf.Bytes(), nil
}

// ParseDocument reads and checks a document; it verifies no signature. Unknown
// keys are ignored, so that an old node can still be brought to newer keys.
func ParseDocument(data []byte) (*Document, error) {
	d, _, err := parseDocument(data)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", DocumentName, err)
	}
	return d, nil
}

func parseDocument(data []byte) (*Document, *Signers, error) {
	if len(data) > MaxDocument {
		return nil, nil, fmt.Errorf("%d bytes; allowed are %d", len(data), MaxDocument)
	}
	var head struct {
		V int `json:"v"`
	}
	if err := decodeOne(data, &head); err != nil {
		return nil, nil, err
	}
	if head.V != DocumentVersion {
		return nil, nil, fmt.Errorf("v is %d; this program reads %d; use a newer xnodeos", head.V, DocumentVersion)
	}
	d := &Document{}
	if err := decodeOne(data, d); err != nil {
		return nil, nil, err
	}
	signers, err := d.check()
	return d, signers, err
}

func decodeOne(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(into); err != nil {
		return fmt.Errorf("not a JSON object as it should be: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("something follows the JSON object at byte %d", dec.InputOffset())
	}
	return nil
}

func (d *Document) check() (*Signers, error) {
	if d.Version == 0 {
		return nil, errors.New("version 0; versions begin with 1")
	}
	for i, line := range d.Signers {
		if strings.TrimSpace(line) == "" || strings.ContainsAny(line, "\r\n") || line[0] == '#' {
			return nil, fmt.Errorf("signers[%d] is not one line of an allowed_signers file", i)
		}
	}
	signers, err := Parse([]byte(strings.Join(d.Signers, "\n")))
	if err != nil {
		return nil, fmt.Errorf("signers: %w", err)
	}
	roots := len(signers.keys(NamespaceTrust))
	switch {
	case roots == 0:
		return nil, fmt.Errorf("signers: no key has the role %s; without one the list could never be changed again", NamespaceTrust)
	case d.RootThreshold < 1 || d.RootThreshold > roots:
		return nil, fmt.Errorf("root_threshold %d; there are %d keys with the role %s", d.RootThreshold, roots, NamespaceTrust)
	case len(d.NixKeys) > maxNixKeys:
		return nil, fmt.Errorf("nix_keys: %d; allowed are %d", len(d.NixKeys), maxNixKeys)
	}
	for i, key := range d.NixKeys {
		if err := CheckNixKey(key); err != nil {
			return nil, fmt.Errorf("nix_keys[%d]: %w", i, err)
		}
	}
	return signers, nil
}

// keys returns the different keys with a role, in the order of the file.
func (s *Signers) keys(namespace string) []sshsign.PublicKey {
	var keys []sshsign.PublicKey
	if s == nil {
		return nil
	}
	for i := range s.List {
		if slices.Contains(s.List[i].Namespaces, namespace) && !slices.Contains(keys, s.List[i].Key) {
			keys = append(keys, s.List[i].Key)
		}
	}
	return keys
}

// CheckNixKey takes a public key of a Nix cache, "name:base64", and refuses a
// secret one without showing it.
func CheckNixKey(text string) error {
	name, key, ok := strings.Cut(text, ":")
	raw, err := base64.StdEncoding.Strict().DecodeString(key)
	if !ok || name == "" || strings.ContainsAny(text, " \t\r\n#") || err != nil {
		return errors.New("no Nix public key; want name:base64, one a line, no comments")
	}
	if len(raw) != 32 {
		return fmt.Errorf("key %q has %d bytes; a Nix public key has 32 (is it the secret key?)", name, len(raw))
	}
	return nil
}
