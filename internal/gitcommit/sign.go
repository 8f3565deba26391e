package gitcommit

import (
	"context"
	"crypto/sha1" //nolint:gosec // git's object ids; what is trusted is bound by SHA-256 or a signature
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"xnodeos.org/internal/trust"
)

// ErrKeyDate says that the key that signed a commit was not valid at the
// commit's time.
var ErrKeyDate = errors.New("the key that signed the commit was not valid at the commit's time")

// Verify checks the signature of a raw commit object as git verify-commit does
// with gpg.format=ssh: made for the namespace "git" by a key that has this
// role, and within the key's dates at the committer's time. The errors are
// *FormatError, ErrUnsigned, ErrKeyDate and those of trust.Signers.Verify.
func Verify(raw []byte, signers *trust.Signers) (*trust.Signer, error) {
	c, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	if c.Signature == "" {
		return nil, ErrUnsigned
	}
	signer, err := signers.Verify(trust.NamespaceGit, c.payload, []byte(c.Signature))
	if err != nil {
		return nil, fmt.Errorf("signature of the commit: %w", err)
	}
	if !signer.ValidAt(c.Committer.When) {
		return nil, fmt.Errorf("signature of the commit: %w, %s: %s", ErrKeyDate, c.Committer.When.UTC().Format("2006-01-02 15:04:05Z"), signer)
	}
	return signer, nil
}

// A Signer signs a message for a namespace and returns the armoured signature.
// *sshsign.Signer is one.
type Signer interface {
	Sign(ctx context.Context, namespace string, message []byte) ([]byte, error)
}

// Encode writes the commit as git does, signed if signer is not nil: the same
// bytes as git commit --gpg-sign makes from the same words and key. The
// commit's own Signature is not looked at.
func Encode(ctx context.Context, c Commit, signer Signer) ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "tree %s\n", c.Tree)
	for _, p := range c.Parents {
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	for _, who := range []struct {
		key string
		p   Person
	}{{"author", c.Author}, {"committer", c.Committer}} {
		if strings.ContainsAny(who.p.Name+who.p.Email, "<>\n\x00") || strings.TrimSpace(who.p.Name) == "" {
			return nil, fmt.Errorf("write commit: %s %q <%s>: a name must not be empty, and neither may have <, > or line ends; set user.name and user.email with git config", who.key, who.p.Name, who.p.Email)
		}
		fmt.Fprintf(&b, "%s %s <%s> %d %s\n", who.key, who.p.Name, who.p.Email, who.p.When.Unix(), who.p.When.Format("-0700"))
	}
	head := b.String()
	payload := []byte(head + "\n" + c.Message)
	raw := payload
	if signer != nil {
		armored, err := signer.Sign(ctx, trust.NamespaceGit, payload)
		if err != nil {
			return nil, fmt.Errorf("write commit: %w", err)
		}
		text := strings.ReplaceAll(strings.TrimSuffix(string(armored), "\n"), "\n", "\n ")
		raw = []byte(head + "gpgsig " + text + "\n\n" + c.Message)
	}
	if _, err := Parse(raw); err != nil {
		return nil, fmt.Errorf("write commit: %w", err)
	}
	return raw, nil
}

// ID returns the object id of a raw commit: 40 hex digits.
func ID(raw []byte) string {
	h := sha1.New() //nolint:gosec // as above
	fmt.Fprintf(h, "commit %d\x00", len(raw))
	h.Write(raw)
	return hex.EncodeToString(h.Sum(nil))
}
