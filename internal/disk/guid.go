package disk

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// GUID is a globally unique identifier in the order in which it is printed
// (RFC 9562); the mixed-endian form of the disk is made when a table is encoded.
type GUID [16]byte

// Partition types, as text (UEFI 2.10 table 5-7, and the GRUB manual for BIOS boot).
const (
	// TypeESP is an EFI system partition.
	TypeESP = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
	// TypeBIOSBoot holds the core image of a BIOS boot loader.
	TypeBIOSBoot = "21686148-6449-6E6F-744E-656564454649"
	// TypeLinux is plain Linux data.
	TypeLinux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
)

// ParseGUID reads the form 8-4-4-4-12 of hex digits, in either case.
func ParseGUID(text string) (GUID, error) {
	var g GUID
	plain := strings.ReplaceAll(text, "-", "")
	raw, err := hex.DecodeString(plain)
	if err != nil || len(raw) != len(g) {
		return GUID{}, fmt.Errorf("GUID %q: want 32 hex digits as 8-4-4-4-12", text)
	}
	copy(g[:], raw)
	if !strings.EqualFold(g.String(), text) {
		return GUID{}, fmt.Errorf("GUID %q: want 32 hex digits as 8-4-4-4-12", text)
	}
	return g, nil
}

// DeriveGUID makes a GUID from a hash and a word that says what it is for.
// The same input gives the same GUID (version 8 of RFC 9562), so that images
// are reproducible and still differ from one another.
func DeriveGUID(seed [32]byte, purpose string) GUID {
	sum := sha256.Sum256(append(seed[:], purpose...))
	var g GUID
	copy(g[:], sum[:])
	g[6] = g[6]&0x0f | 0x80
	g[8] = g[8]&0x3f | 0x80
	return g
}

// String is the form 8-4-4-4-12 in upper case.
func (g GUID) String() string {
	s := strings.ToUpper(hex.EncodeToString(g[:]))
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

// IsZero reports whether g is the GUID of an unused entry.
func (g GUID) IsZero() bool { return g == GUID{} }

// swapped turns the printed order into the order of the disk and back: the
// first three groups are little-endian there (UEFI 2.10 appendix A).
func (g GUID) swapped() GUID {
	g[0], g[1], g[2], g[3] = g[3], g[2], g[1], g[0]
	g[4], g[5] = g[5], g[4]
	g[6], g[7] = g[7], g[6]
	return g
}
