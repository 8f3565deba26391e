// Package sshsign makes and checks SSH signatures of messages, as OpenSSH's
// PROTOCOL.sshsig defines them and ssh-keygen -Y sign and -Y verify handle
// them: a namespace that says what the signature is for, SHA-512, ssh-ed25519.
//
// It narrows the format: no other key type, no SHA-256, one encoding of each
// signature. Who may sign what is not decided here but in package trust. The
// private key comes from an OpenSSH key file or stays in an ssh-agent; no
// error and no printed value shows a byte of it.
package sshsign

import (
	"bytes"
	_ "crypto/sha512" // registers the hash that sshsig asks package crypto for
	"errors"
	"fmt"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

const (
	// KeyType is the only type of key that signs and is trusted.
	KeyType = ssh.KeyAlgoED25519
	// RawSize is the length in bytes of a signature without its envelope.
	RawSize = 64
	// maxNamespace bounds a namespace; ours have up to 14 characters.
	maxNamespace = 64
)

// KeyTypeError is a key of a type that is not used here, however good it is.
type KeyTypeError struct{ Type string }

func (e *KeyTypeError) Error() string {
	return fmt.Sprintf("key of type %q; only %q is allowed; make one with: xnodeos key new", cut(e.Type), KeyType)
}

// FormatError says that bytes are no SSH signature of the kind that is used
// here.
type FormatError struct{ Reason string }

func (e *FormatError) Error() string { return "not an SSH signature: " + e.Reason }

// NamespaceError is a signature that was made for another purpose.
type NamespaceError struct{ Want, Got string }

func (e *NamespaceError) Error() string {
	return fmt.Sprintf("the signature is for the namespace %q, not %q; sign again with: ssh-keygen -Y sign -n %s", cut(e.Got), e.Want, e.Want)
}

// BadSignatureError is a well-formed signature that the named key did not make
// over this message.
type BadSignatureError struct{ Key PublicKey }

func (e *BadSignatureError) Error() string {
	return fmt.Sprintf("the signature, said to be by the key %s, does not fit: the message or its signature was changed, "+
		"or they do not belong together; fetch both again, or sign again", e.Key.Fingerprint())
}

// Verify checks that armored is a signature of message for the namespace and
// returns the key that made it. Whether that key may do so is the caller's
// question. The errors are *FormatError, *KeyTypeError, *NamespaceError and
// *BadSignatureError.
func Verify(namespace string, message, armored []byte) (PublicKey, error) {
	sig, key, err := parse(armored)
	if err != nil {
		return PublicKey{}, err
	}
	if sig.Namespace != namespace {
		return PublicKey{}, &NamespaceError{Want: namespace, Got: sig.Namespace}
	}
	return key, check(key, message, sig)
}

// VerifyRaw checks the 64 bytes of an Ed25519 signature that lack the
// envelope, as a DNS record has room for no more. Signed is the same as in
// Verify: the namespace, "sha512" and the message's hash.
func VerifyRaw(key PublicKey, namespace string, message, signature []byte) error {
	if len(signature) != RawSize {
		return &FormatError{fmt.Sprintf("%d bytes; an Ed25519 signature has %d", len(signature), RawSize)}
	}
	return check(key, message, &sshsig.Signature{
		PublicKey: key.ssh(),
		Namespace: namespace,
		Signature: &ssh.Signature{Format: KeyType, Blob: signature},
	})
}

func check(key PublicKey, message []byte, sig *sshsig.Signature) error {
	if err := sshsig.Verify(bytes.NewReader(message), sig, key.ssh(), sshsig.HashSHA512, sig.Namespace); err != nil {
		return &BadSignatureError{key} // the library's cause is always the same and says less
	}
	return nil
}

// parse takes an armoured signature apart. There is one encoding only: what
// the library and OpenSSH read past (a filled reserved field, bytes behind the
// signature) is refused, so that a signature file cannot carry anything else.
func parse(armored []byte) (*sshsig.Signature, PublicKey, error) {
	blob, err := dearmor(armored)
	if err != nil {
		return nil, PublicKey{}, err
	}
	sig, err := sshsig.ParseSignature(blob)
	if err != nil {
		return nil, PublicKey{}, &FormatError{err.Error()}
	}
	key, err := fromSSH(sig.PublicKey)
	if err != nil {
		return nil, PublicKey{}, err
	}
	switch {
	case sig.HashAlgorithm != sshsig.HashSHA512:
		err = &FormatError{fmt.Sprintf("it uses the hash %q; only %q is allowed, ssh-keygen's default", sig.HashAlgorithm, sshsig.HashSHA512)}
	case sig.Signature.Format != KeyType || len(sig.Signature.Blob) != RawSize:
		err = &FormatError{fmt.Sprintf("a signature of type %q and %d bytes does not fit its %s key", cut(sig.Signature.Format), len(sig.Signature.Blob), KeyType)}
	case len(sig.Signature.Rest) > 0 || !bytes.Equal(sig.Marshal(), blob):
		err = &FormatError{"it has more bytes than it needs"}
	}
	return sig, key, err
}

func checkNamespace(namespace string) error {
	if namespace == "" || len(namespace) > maxNamespace {
		return fmt.Errorf("namespace %q; want 1 to %d characters", cut(namespace), maxNamespace)
	}
	for _, r := range namespace {
		if r <= ' ' || r > '~' {
			return errors.New("a namespace has printable ASCII characters only, and no space")
		}
	}
	return nil
}

// cut keeps outside text in errors readable.
func cut(text string) string {
	const most = 100
	if len(text) <= most {
		return text
	}
	return text[:most] + "..."
}
