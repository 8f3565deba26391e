package sshsign

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

// Signer signs with one key. It can be used by several goroutines.
type Signer struct {
	key    PublicKey
	origin string
	sign   func(ctx context.Context, data []byte) (*ssh.Signature, error)
}

// PublicKey returns the public half.
func (s *Signer) PublicKey() PublicKey { return s.key }

// String names the key and where its private half is.
func (s *Signer) String() string { return s.key.Fingerprint() + " from " + s.origin }

// Format writes String for every verb: %+v must not follow a pointer into the
// private key.
func (s *Signer) Format(f fmt.State, _ rune) { fmt.Fprint(f, s.String()) }

// LogValue is String, for slog.
func (s *Signer) LogValue() slog.Value { return slog.StringValue(s.String()) }

// Sign signs a message for a namespace and returns the armoured signature: the
// same bytes as ssh-keygen -Y sign -n NAMESPACE makes with this key.
func (s *Signer) Sign(ctx context.Context, namespace string, message []byte) ([]byte, error) {
	sig, err := s.signature(ctx, namespace, message)
	if err != nil {
		return nil, err
	}
	return armor(sig.Marshal()), nil
}

// SignRaw returns the 64 bytes of the signature without envelope, see
// VerifyRaw.
func (s *Signer) SignRaw(ctx context.Context, namespace string, message []byte) ([]byte, error) {
	sig, err := s.signature(ctx, namespace, message)
	if err != nil {
		return nil, err
	}
	return sig.Signature.Blob, nil
}

func (s *Signer) signature(ctx context.Context, namespace string, message []byte) (*sshsig.Signature, error) {
	if err := checkNamespace(namespace); err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	sign := func(data []byte) (*ssh.Signature, error) { return s.sign(ctx, data) }
	sig, err := sshsig.Sign(bytes.NewReader(message), adapter{s.key.ssh(), sign}, sshsig.HashSHA512, namespace)
	if err != nil {
		return nil, fmt.Errorf("sign for %s with %s: %w", namespace, s, err)
	}
	// An agent is another program; what it returns is looked at before it is
	// published and found out on a node.
	if _, err := Verify(namespace, message, armor(sig.Marshal())); err != nil {
		return nil, fmt.Errorf("sign for %s with %s: what came back is no good: %w", namespace, s, err)
	}
	return sig, nil
}

// adapter is an ssh.Signer around a function.
type adapter struct {
	key  ssh.PublicKey
	sign func(data []byte) (*ssh.Signature, error)
}

func (a adapter) PublicKey() ssh.PublicKey                              { return a.key }
func (a adapter) Sign(_ io.Reader, data []byte) (*ssh.Signature, error) { return a.sign(data) }

// KeyPair is a new key as the two files of ssh-keygen.
type KeyPair struct {
	PublicKey  PublicKey
	PublicFile []byte // one line with comment
	secret     []byte
}

// PrivateFile returns the private key file in OpenSSH's format, without a
// passphrase. It belongs into a file of mode 0600 and nowhere else.
func (p *KeyPair) PrivateFile() []byte { return p.secret }

// Format writes the fingerprint for every verb.
func (p *KeyPair) Format(f fmt.State, _ rune) { fmt.Fprint(f, p.PublicKey.Fingerprint()) }

// GenerateKey makes a new key. The comment is for people.
func GenerateKey(comment string) (*KeyPair, error) {
	for _, r := range comment {
		if r < ' ' || r == 0x7f {
			return nil, fmt.Errorf("comment %q has a control character; it must fit on one line", cut(comment))
		}
	}
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return nil, fmt.Errorf("make a key: %w", err)
	}
	key := PublicKey(public)
	line := key.String()
	if comment != "" {
		line += " " + comment
	}
	return &KeyPair{PublicKey: key, PublicFile: []byte(line + "\n"), secret: pem.EncodeToMemory(block)}, nil
}

// fromPrivate makes a signer from a parsed private key.
func fromPrivate(raw any, origin string) (*Signer, error) {
	signer, err := ssh.NewSignerFromKey(raw)
	if err != nil {
		return nil, errors.New("no ssh private key")
	}
	key, err := fromSSH(signer.PublicKey())
	if err != nil {
		return nil, err
	}
	return &Signer{key: key, origin: origin, sign: func(_ context.Context, data []byte) (*ssh.Signature, error) {
		return signer.Sign(rand.Reader, data)
	}}, nil
}

// Sign signs with the new key as Signer.Sign does.
func (p *KeyPair) Sign(ctx context.Context, namespace string, message []byte) ([]byte, error) {
	s, err := ParsePrivate(p.secret, "a new key")
	if err != nil {
		return nil, err
	}
	return s.Sign(ctx, namespace, message)
}

// ParsePrivate reads the content of a private key file that has no passphrase,
// without Open's way to an agent. origin is for people.
func ParsePrivate(data []byte, origin string) (*Signer, error) {
	raw, err := ssh.ParseRawPrivateKey(data)
	if err != nil {
		// The parser's words may hold parts of the key.
		return nil, fmt.Errorf("%s: no ssh private key without a passphrase", origin)
	}
	return fromPrivate(raw, origin)
}
