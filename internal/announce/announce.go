// Package announce is the record that says which release a fleet runs: one
// line of text, signed, small enough for one string of a DNS TXT record.
//
//	v=xnode1; s=1042; c=<40 hex>; d=<43 base64url>; t=1795180800; x=1795785600; k=Ab3dEf9h; sig=<86 base64url>
//
// The record binds the bytes of release.json by their hash (d), and itself to
// the name under which it is published, so that neither DNS nor git has to be
// believed. The package parses, signs, verifies, orders and judges records; it
// asks nobody for them and keeps nothing. A record that it refuses is no news:
// nothing in here ever means "go back".
package announce

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"xnodeos.org/internal/sshsign"
)

const (
	// MaxSize bounds a record in bytes: what one string of a TXT record holds.
	MaxSize = 255
	// MaxValidity bounds the time between Published and Expires.
	MaxValidity = 30 * 24 * time.Hour
	// MaxAhead is how far Published may lie ahead of a clock that is right.
	MaxAhead = 24 * time.Hour
	// MaxJump bounds how far a sequence may rise at once: whoever signs one
	// record by mistake or malice must not use up all the numbers.
	MaxJump = 1 << 20

	version  = "v=xnode1"
	between  = "; "
	sigStart = "; sig="

	// Ten digits: from 2001 to 2286.
	minTime = 1_000_000_000
	maxTime = 9_999_999_999
)

// Record is one announcement.
type Record struct {
	// Sequence numbers the release, from 1.
	Sequence uint32
	// Commit is the commit of the config repository, 40 lower-case hex digits.
	Commit string
	// Digest is the SHA-256 of that commit's release.json.
	Digest [sha256.Size]byte
	// Published and Expires are in seconds since 1970.
	Published, Expires int64
	// Halted says that the release is not to be started any more.
	Halted bool
	// KeyHint is the id of the key that signed (sshsign.PublicKey.ID).
	KeyHint string
	// Signature is a bare Ed25519 signature, see Verify.
	Signature [sshsign.RawSize]byte

	text string // as it was parsed, with tags that we do not know
}

// FormatError says that a text is no record that a node may read.
type FormatError struct{ Reason string }

func (e *FormatError) Error() string { return "not an announcement: " + e.Reason }

// OtherError is a text of another kind, as domains have many: it says nothing
// about announcements and is not worth a warning.
type OtherError struct{}

func (e *OtherError) Error() string { return "it does not begin with " + version }

func badf(format string, args ...any) error { return &FormatError{fmt.Sprintf(format, args...)} }

// Parse reads a record; it verifies nothing. Tags that it does not know are
// kept and ignored. The errors are *OtherError and *FormatError.
func Parse(text string) (*Record, error) {
	if text != version && !strings.HasPrefix(text, version+";") {
		return nil, &OtherError{}
	}
	if len(text) > MaxSize {
		return nil, badf("%d bytes; allowed are %d", len(text), MaxSize)
	}
	for i := range len(text) {
		if text[i] < ' ' || text[i] > '~' {
			return nil, badf("byte %d is not printable ASCII", i)
		}
	}
	r := &Record{text: text}
	seen := map[string]bool{}
	parts := strings.Split(text, between)
	for i, part := range parts {
		tag, value, ok := strings.Cut(part, "=")
		if !ok || !isTag(tag) || value == "" || strings.ContainsAny(value, "; ") {
			return nil, badf("%q; want tag=value with \"; \" between", part)
		}
		if seen[tag] {
			return nil, badf("the tag %s is there twice", tag)
		}
		seen[tag] = true
		if (tag == "sig") != (i == len(parts)-1) {
			return nil, badf("the tag sig must be there and be the last one")
		}
		if err := r.set(tag, value); err != nil {
			return nil, err
		}
	}
	for _, tag := range []string{"s", "c", "d", "t", "x", "k"} {
		if !seen[tag] {
			return nil, badf("it has no tag %s", tag)
		}
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return r, nil
}

func isTag(tag string) bool {
	for _, c := range tag {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return tag != "" && tag[0] >= 'a'
}

// set reads one value. Each has one spelling only, so that two texts never
// mean the same record.
func (r *Record) set(tag, value string) error {
	var err error
	switch tag {
	case "s":
		n, e := strconv.ParseUint(value, 10, 32)
		if r.Sequence, err = uint32(n), e; err == nil && strconv.FormatUint(n, 10) != value {
			err = strconv.ErrSyntax
		}
	case "c":
		r.Commit = value
	case "d":
		err = decode(r.Digest[:], value)
	case "t":
		r.Published, err = parseTime(value)
	case "x":
		r.Expires, err = parseTime(value)
	case "p":
		// Another value is a share that a later version knows, and a node
		// that does not must not take it for all.
		if r.Halted = value == "0"; !r.Halted {
			return badf("p=%s; only p=0 is known here", value)
		}
	case "k":
		r.KeyHint = value
	case "sig":
		err = decode(r.Signature[:], value)
	}
	if err != nil {
		return badf("the value %q of the tag %s: %v", value, tag, err)
	}
	return nil
}

func parseTime(value string) (int64, error) {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || len(value) != 10 || n < minTime {
		return 0, fmt.Errorf("want ten digits, seconds since 1970")
	}
	return n, nil
}

func decode(into []byte, value string) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(value)
	if err != nil || len(raw) != len(into) {
		return fmt.Errorf("want %d bytes in base64url without padding", len(into))
	}
	copy(into, raw)
	return nil
}

// check holds what Parse reads and Sign writes to the same rules.
func (r *Record) check() error {
	switch {
	case r.Sequence == 0:
		return badf("s=0; sequences begin with 1")
	case len(r.Commit) != 40 || strings.Trim(r.Commit, "0123456789abcdef") != "":
		return badf("commit %q; want 40 lower-case hex digits", r.Commit)
	case r.Published < minTime || r.Published > maxTime || r.Expires < minTime || r.Expires > maxTime:
		return badf("t=%d, x=%d; want ten digits, seconds since 1970", r.Published, r.Expires)
	case r.Expires <= r.Published:
		return badf("it expires (x=%d) before it is published (t=%d)", r.Expires, r.Published)
	case time.Duration(r.Expires-r.Published)*time.Second > MaxValidity:
		return badf("it is valid for %d s; allowed are 30 days (%d s)", r.Expires-r.Published, int64(MaxValidity/time.Second))
	case len(r.KeyHint) != 8 || strings.ContainsFunc(r.KeyHint, notBase64):
		return badf("key hint %q; want 8 characters of the key's SHA256 fingerprint", r.KeyHint)
	}
	return nil
}

func notBase64(c rune) bool {
	return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '+' && c != '/'
}

// Text returns the record as it was parsed or signed, byte for byte; "" for
// one that was put together by hand.
func (r *Record) Text() string { return r.text }

// Payload returns what is signed of the text: all before "; sig=".
func (r *Record) Payload() string {
	payload, _, _ := strings.Cut(r.text, sigStart)
	return payload
}

// String names the record to people: sequence, commit, and whether it halts.
func (r *Record) String() string {
	text := fmt.Sprintf("release %d at %.12s, published %s", r.Sequence, r.Commit, time.Unix(r.Published, 0).UTC().Format(time.RFC3339))
	if r.Halted {
		text += ", halted"
	}
	return text
}

// Tag returns the git tag of the release, "xnode/1042".
func (r *Record) Tag() string { return fmt.Sprintf("xnode/%d", r.Sequence) }
