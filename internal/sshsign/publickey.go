package sshsign

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/ssh"
)

// PublicKey is an ssh-ed25519 public key. It can be compared and be the key of
// a map.
type PublicKey [ed25519.PublicKeySize]byte

// errNoKey says what the line of a public key looks like.
var errNoKey = errors.New("no ssh public key: want " + KeyType + " base64 [comment], as in ~/.ssh/id_ed25519.pub")

// ParsePublicKey reads the one line of a public key file. A type of key that
// is not used here is a *KeyTypeError.
func ParsePublicKey(line string) (key PublicKey, comment string, err error) {
	line = strings.TrimSpace(line)
	if strings.ContainsRune(line, '\n') {
		return key, "", fmt.Errorf("%w, and no second line", errNoKey)
	}
	kind, rest := cutField(line)
	digits, comment := cutField(rest)
	if !IsKeyType(kind) {
		return key, "", errNoKey
	}
	if kind != KeyType {
		return key, "", &KeyTypeError{kind}
	}
	blob, err := base64.StdEncoding.Strict().DecodeString(digits)
	if err != nil {
		return key, "", errNoKey
	}
	pub, err := ssh.ParsePublicKey(blob)
	if err != nil {
		return key, "", errNoKey
	}
	key, err = fromSSH(pub)
	return key, comment, err
}

// IsKeyType says whether a word names a type of ssh key, ours or another one.
func IsKeyType(word string) bool {
	return strings.HasPrefix(word, "ssh-") || strings.HasPrefix(word, "ecdsa-sha2-") || strings.HasPrefix(word, "sk-")
}

// cutField splits text at its first white space.
func cutField(text string) (field, rest string) {
	at := strings.IndexAny(text, " \t")
	if at < 0 {
		return text, ""
	}
	return text[:at], strings.TrimLeft(text[at:], " \t")
}

func fromSSH(pub ssh.PublicKey) (key PublicKey, err error) {
	if pub.Type() != KeyType {
		return key, &KeyTypeError{pub.Type()}
	}
	crypto, ok := pub.(ssh.CryptoPublicKey)
	if !ok {
		return key, errNoKey
	}
	raw, ok := crypto.CryptoPublicKey().(ed25519.PublicKey)
	if !ok || len(raw) != len(key) {
		return key, errNoKey
	}
	return PublicKey(raw), nil
}

func (k PublicKey) ssh() ssh.PublicKey {
	pub, err := ssh.NewPublicKey(ed25519.PublicKey(k[:]))
	if err != nil {
		panic("BUG: sshsign: " + err.Error()) // 32 bytes are always taken
	}
	return pub
}

// String returns the key as in a public key file: type and base64.
func (k PublicKey) String() string {
	return KeyType + " " + base64.StdEncoding.EncodeToString(k.ssh().Marshal())
}

// Fingerprint returns "SHA256:" and 43 characters, as ssh-keygen -l prints it.
func (k PublicKey) Fingerprint() string { return ssh.FingerprintSHA256(k.ssh()) }

// ID returns the first 8 characters of the fingerprint's base64: a hint at
// the key where there is no room for more, never a proof.
func (k PublicKey) ID() string { return strings.TrimPrefix(k.Fingerprint(), "SHA256:")[:8] }
