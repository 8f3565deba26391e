package nix

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// CacheKey is a key that signs store paths for a binary cache.
type CacheKey struct {
	Name   string
	public ed25519.PublicKey
	secret ed25519.PrivateKey
}

// GenerateCacheKey makes a key. Its name is what trusted-public-keys and the
// signatures in narinfo files know it by; a number at the end leaves room for
// a successor, as in "cache.example.org-1".
func GenerateCacheKey(name string) (*CacheKey, error) {
	if !keyName(name) {
		return nil, fmt.Errorf("name %q of a cache key; want up to 128 letters, digits, \".\", \"_\" and \"-\", as in cache.example.org-1", cut(name))
	}
	public, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a cache key: %w", err)
	}
	return &CacheKey{Name: name, public: public, secret: secret}, nil
}

// ParseCacheKey reads the content of a secret key file as Secret and
// nix-store --generate-binary-cache-key write it; one line end may follow. The
// public half in it must be the one of its seed.
func ParseCacheKey(text []byte) (*CacheKey, error) {
	name, data, err := splitKey(strings.TrimSuffix(string(text), "\n"), ed25519.PrivateKeySize)
	if err != nil { // the text is a secret and stays out of the error
		return nil, fmt.Errorf("read a secret cache key: %w; want the file that nix-store --generate-binary-cache-key or xnodeos wrote", err)
	}
	secret := ed25519.NewKeyFromSeed(data[:ed25519.SeedSize])
	if !bytes.Equal(secret, data) {
		return nil, fmt.Errorf("read the secret cache key %q: its public half is not that of its seed; take the file from a backup", name)
	}
	return &CacheKey{Name: name, public: ed25519.PublicKey(secret[ed25519.SeedSize:]), secret: secret}, nil
}

// Sign returns the Ed25519 signature over a message, 64 bytes.
func (k *CacheKey) Sign(message []byte) []byte { return ed25519.Sign(k.secret, message) }

// PublicKey returns the half that checks signatures.
func (k *CacheKey) PublicKey() PublicKey { return PublicKey{Name: k.Name, Key: k.public} }

// PublicKey checks what a CacheKey signed. Its text is "name:base64", one word
// of trusted-public-keys.
type PublicKey struct {
	Name string
	Key  ed25519.PublicKey
}

// ParsePublicKey reads "name:base64".
func ParsePublicKey(text string) (PublicKey, error) {
	name, data, err := splitKey(text, ed25519.PublicKeySize)
	if err != nil {
		return PublicKey{}, fmt.Errorf("read the cache key %q: %w; want NAME:BASE64 as in trusted-public-keys", cut(text), err)
	}
	return PublicKey{Name: name, Key: data}, nil
}

// String returns "name:base64".
func (k PublicKey) String() string { return k.Name + ":" + base64.StdEncoding.EncodeToString(k.Key) }

func splitKey(text string, size int) (name string, data []byte, err error) {
	name, encoded, ok := strings.Cut(text, ":")
	if !ok || !keyName(name) {
		return "", nil, errors.New("it does not begin with a name of letters, digits, \".\", \"_\" and \"-\", and a colon")
	}
	data, err = base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(data) != size || base64.StdEncoding.EncodedLen(size) != len(encoded) {
		return "", nil, fmt.Errorf("what follows the name is not %d bytes in base64", size)
	}
	return name, data, nil
}

func keyName(name string) bool {
	return name != "" && len(name) <= 128 &&
		strings.Trim(name, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._-") == ""
}

// Public returns "name:base64", for trusted-public-keys and a node's nix-keys.
func (k *CacheKey) Public() string {
	return k.Name + ":" + base64.StdEncoding.EncodeToString(k.public)
}

// Secret returns the content of the secret key file, in the form of nix-store
// --generate-binary-cache-key: seed and public key together, no line end.
func (k *CacheKey) Secret() []byte {
	return []byte(k.Name + ":" + base64.StdEncoding.EncodeToString(k.secret))
}

// Format writes the public key for every verb.
func (k *CacheKey) Format(s fmt.State, _ rune) { fmt.Fprint(s, k.Public()) }
