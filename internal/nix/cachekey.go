package nix

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strings"
)

// CacheKey is a new key that signs store paths for a binary cache.
type CacheKey struct {
	Name   string
	public ed25519.PublicKey
	secret ed25519.PrivateKey
}

// GenerateCacheKey makes a key. Its name is what trusted-public-keys and the
// signatures in narinfo files know it by; a number at the end leaves room for
// a successor, as in "cache.example.org-1".
func GenerateCacheKey(name string) (*CacheKey, error) {
	if name == "" || len(name) > 128 || strings.Trim(name, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ._-") != "" {
		return nil, fmt.Errorf("name %q of a cache key; want up to 128 letters, digits, \".\", \"_\" and \"-\", as in cache.example.org-1", cut(name))
	}
	public, secret, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a cache key: %w", err)
	}
	return &CacheKey{Name: name, public: public, secret: secret}, nil
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
