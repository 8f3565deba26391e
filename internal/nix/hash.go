package nix

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
)

// Hash is a SHA-256 value. String and the JSON form are "sha256-BASE64" (SRI).
type Hash [sha256.Size]byte

// String returns the SRI form, which the closure list uses.
func (h Hash) String() string { return "sha256-" + base64.StdEncoding.EncodeToString(h[:]) }

// Base32 returns "sha256:" and Nix's base 32, the form of narinfo files.
func (h Hash) Base32() string { return "sha256:" + EncodeBase32(h[:]) }

// Hex returns 64 digits without prefix, the form of nix-store --load-db.
func (h Hash) Hex() string { return hex.EncodeToString(h[:]) }

// MarshalText implements encoding.TextMarshaler with the SRI form.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; it takes what ParseHash takes.
func (h *Hash) UnmarshalText(text []byte) (err error) {
	*h, err = ParseHash(string(text))
	return err
}

// ParseHash reads "sha256-BASE64", "sha256:BASE32" or "sha256:HEX".
func ParseHash(text string) (Hash, error) {
	var data []byte
	var err error
	if sri, ok := strings.CutPrefix(text, "sha256-"); ok {
		data, err = base64.StdEncoding.Strict().DecodeString(sri)
		if err == nil && base64.StdEncoding.EncodedLen(len(data)) != len(sri) {
			err = fmt.Errorf("line breaks inside") // the decoder skips them
		}
	} else if rest, ok := strings.CutPrefix(text, "sha256:"); !ok {
		return Hash{}, fmt.Errorf("parse hash %q: want sha256-BASE64, sha256:BASE32 or sha256:HEX", cut(text))
	} else if len(rest) == hex.EncodedLen(sha256.Size) {
		data, err = hex.DecodeString(rest)
		if err == nil && strings.ToLower(rest) != rest {
			err = fmt.Errorf("upper-case digits")
		}
	} else {
		data, err = DecodeBase32(rest)
	}
	if err != nil {
		return Hash{}, fmt.Errorf("parse hash %q: %w", cut(text), err)
	}
	if len(data) != sha256.Size {
		return Hash{}, fmt.Errorf("parse hash %q: %d bytes; SHA-256 has %d", cut(text), len(data), sha256.Size)
	}
	return Hash(data), nil
}

// cut keeps quoted outside text readable in an error.
func cut(text string) string {
	const most = 300
	if len(text) <= most {
		return text
	}
	return text[:most] + "..."
}

// HashOf returns the SHA-256 of bytes at hand.
func HashOf(data []byte) Hash { return sha256.Sum256(data) }
