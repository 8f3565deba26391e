package announce

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/trust"
)

// Owner returns a record's DNS name in the form that is signed: lower case, no
// dot at the end. It is the configured name, also where DNS answers through a
// CNAME.
func Owner(name string) (string, error) {
	owner := strings.TrimSuffix(name, ".")
	const want = "; want a DNS name like stable._xnode.fleet.example.org"
	if owner == "" || len(owner) > 253 {
		return "", fmt.Errorf("record name %q has %d characters%s", cut(name), len(owner), want)
	}
	owner = strings.ToLower(owner)
	for label := range strings.SplitSeq(owner, ".") {
		if label == "" || len(label) > 63 {
			return "", fmt.Errorf("record name %q has a part of %d characters; allowed are 1 to 63%s", cut(name), len(label), want)
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "", fmt.Errorf("record name %q has the character %q%s", cut(name), c, want)
			}
		}
	}
	return owner, nil
}

// UnknownKeyError is a record whose hint names no key that the node knows. It
// may be a newer key: then a newer trust.json lists it.
type UnknownKeyError struct{ Hint string }

func (e *UnknownKeyError) Error() string {
	return fmt.Sprintf("it names a key SHA256:%s... that is not listed; sign with a listed key, or publish a trust.json that lists this one", e.Hint)
}

// SignatureError is a record that the key of its hint did not sign for this
// name: forged, changed, or published under another name.
type SignatureError struct {
	Owner string
	Err   error // of package sshsign
}

func (e *SignatureError) Error() string {
	return fmt.Sprintf("its signature is not for %q: %v", e.Owner, e.Err)
}
func (e *SignatureError) Unwrap() error { return e.Err }

// message is what the signature is made of.
func message(owner, payload string) []byte { return []byte(owner + "\n" + payload) }

// Verify checks that a key with the role xnode-announce signed the record for
// this owner name, and returns the key's line. Only keys that the hint fits are
// tried. The errors are *UnknownKeyError, *SignatureError, *trust.RoleError, and
// that of Owner.
func (r *Record) Verify(owner string, signers *trust.Signers) (*trust.Signer, error) {
	owner, err := Owner(owner)
	if err != nil {
		return nil, err
	}
	err = &UnknownKeyError{r.KeyHint}
	if signers == nil {
		return nil, err
	}
	tried := map[sshsign.PublicKey]bool{}
	for i := range signers.List {
		key := signers.List[i].Key
		if key.ID() != r.KeyHint || tried[key] {
			continue
		}
		tried[key] = true
		if bad := sshsign.VerifyRaw(key, trust.NamespaceAnnounce, message(owner, r.Payload()), r.Signature[:]); bad != nil {
			err = &SignatureError{owner, bad}
			continue
		}
		return signers.Authorize(trust.NamespaceAnnounce, key)
	}
	return nil, err
}

// Sign makes a record with text and signature out of the fields of r; its
// KeyHint and Signature are not looked at. It signs nothing that a node would
// not read.
func Sign(ctx context.Context, owner string, r Record, signer *sshsign.Signer) (*Record, error) {
	owner, err := Owner(owner)
	if err != nil {
		return nil, fmt.Errorf("sign announcement: %w", err)
	}
	r.KeyHint = signer.PublicKey().ID()
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("sign announcement: %w", err)
	}
	payload := fmt.Sprintf("%s; s=%d; c=%s; d=%s; t=%d; x=%d", version, r.Sequence, r.Commit,
		base64.RawURLEncoding.EncodeToString(r.Digest[:]), r.Published, r.Expires)
	if r.Halted {
		payload += "; p=0"
	}
	payload += "; k=" + r.KeyHint
	raw, err := signer.SignRaw(ctx, trust.NamespaceAnnounce, message(owner, payload))
	if err != nil {
		return nil, fmt.Errorf("sign announcement: %w", err)
	}
	signed, err := Parse(payload + sigStart + base64.RawURLEncoding.EncodeToString(raw))
	if err != nil {
		return nil, fmt.Errorf("sign announcement: %w", err)
	}
	return signed, nil
}

// Refused is a text that was no candidate, and why.
type Refused struct {
	Text string
	Err  error
}

// NoneError says why no text of an answer is news.
type NoneError struct {
	// Refused are the texts that look like announcements and are none that
	// counts. It is empty if there was no such text at all.
	Refused []Refused
	// Valid are the texts of all valid records, where there is more than one:
	// whoever publishes two has not decided.
	Valid []string
}

func (e *NoneError) Error() string {
	switch {
	case len(e.Valid) > 0:
		return fmt.Sprintf("%d valid announcements where one is allowed; remove all but one", len(e.Valid))
	case len(e.Refused) == 0:
		return "no announcement (no text that begins with " + version + ")"
	}
	reasons := make([]string, len(e.Refused))
	for i, r := range e.Refused {
		reasons[i] = r.Err.Error()
	}
	return "no valid announcement: " + strings.Join(reasons, "; ")
}

// Unwrap returns the reasons of all refused texts.
func (e *NoneError) Unwrap() []error {
	errs := make([]error, len(e.Refused))
	for i, r := range e.Refused {
		errs[i] = r.Err
	}
	return errs
}

// Choose returns the one valid record among the texts of an answer, each of
// which is a TXT record with its strings joined, and the line of its key. Texts
// of other kinds are ignored; a forged or damaged record beside a valid one does
// not silence it. The error is *NoneError, or that of Owner.
func Choose(owner string, texts []string, signers *trust.Signers) (*Record, *trust.Signer, error) {
	if _, err := Owner(owner); err != nil {
		return nil, nil, err
	}
	var found *Record
	var by *trust.Signer
	none := &NoneError{}
	seen := map[string]bool{}
	for _, text := range texts {
		if seen[text] {
			continue
		}
		seen[text] = true
		r, err := Parse(text)
		var other *OtherError
		if errors.As(err, &other) {
			continue
		}
		var signer *trust.Signer
		if err == nil {
			signer, err = r.Verify(owner, signers)
		}
		if err != nil {
			none.Refused = append(none.Refused, Refused{cut(text), err})
			continue
		}
		none.Valid = append(none.Valid, text)
		found, by = r, signer
	}
	if len(none.Valid) != 1 {
		return nil, nil, none
	}
	return found, by, nil
}

// cut keeps outside text in errors readable.
func cut(text string) string {
	if len(text) <= MaxSize+1 {
		return text
	}
	return text[:MaxSize] + "..."
}
