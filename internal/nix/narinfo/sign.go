package narinfo

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"xnodeos.org/internal/nix"
)

// Signature is one Sig line: the key's name and 64 bytes of Ed25519.
type Signature struct {
	Name  string
	Bytes [ed25519.SignatureSize]byte
}

// String returns "name:base64".
func (s Signature) String() string {
	return s.Name + ":" + base64.StdEncoding.EncodeToString(s.Bytes[:])
}

// ParseSignature reads "name:base64".
func ParseSignature(text string) (Signature, error) {
	name, encoded, ok := strings.Cut(text, ":")
	data, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil || name == "" || len(name) > 128 || strings.ContainsAny(name, " \t") ||
		len(data) != ed25519.SignatureSize || base64.StdEncoding.EncodedLen(len(data)) != len(encoded) {
		return Signature{}, formatError("signature %.200q; want NAME:BASE64 of %d bytes", text, ed25519.SignatureSize)
	}
	return Signature{Name: name, Bytes: [ed25519.SignatureSize]byte(data)}, nil
}

// Fingerprint is what is signed of a path: "1;PATH;NARHASH;NARSIZE;REFERENCES".
// URL, compression and file hash are not in it.
func Fingerprint(info nix.PathInfo) []byte {
	out := []byte("1;" + info.Path + ";" + info.NarHash.Base32() + ";")
	out = append(strconv.AppendInt(out, info.NarSize, 10), ';')
	for n, ref := range info.References {
		if n > 0 {
			out = append(out, ',')
		}
		out = append(out, ref...)
	}
	return out
}

// Sign returns the signature of a path by a key.
func Sign(info nix.PathInfo, key *nix.CacheKey) Signature {
	return Signature{Name: key.Name, Bytes: [ed25519.SignatureSize]byte(key.Sign(Fingerprint(info)))}
}

// Verify returns the name of a key in keys that signed the path. As in Nix,
// one is enough and a signature counts only for the key of its name.
func Verify(info nix.PathInfo, sigs []Signature, keys []nix.PublicKey) (string, error) {
	message := Fingerprint(info)
	var named []string
	for _, s := range sigs {
		named = append(named, s.Name)
		for _, k := range keys {
			if k.Name == s.Name && ed25519.Verify(k.Key, message, s.Bytes[:]) {
				return k.Name, nil
			}
		}
	}
	trusted := make([]string, len(keys))
	for n, k := range keys {
		trusted[n] = k.Name
	}
	return "", fmt.Errorf("%s has no valid signature of a trusted key: it is signed by %q, trusted are %q", info.Path, named, trusted)
}
