package nix

import "fmt"

// base32Alphabet is Nix's: digits and lower-case letters without e, o, t, u.
const base32Alphabet = "0123456789abcdfghijklmnpqrsvwxyz"

// notBase32 marks bytes outside the alphabet in base32Digit.
const notBase32 = 0xff

var base32Digit = func() (table [256]byte) { // computed once, never changed
	for i := range table {
		table[i] = notBase32
	}
	for i, c := range []byte(base32Alphabet) {
		table[c] = byte(i)
	}
	return table
}()

// Base32Len is the length of n bytes in Nix's base 32.
func Base32Len(n int) int { return (n*8 + 4) / 5 }

// EncodeBase32 writes bytes as Nix does: the last digit first, so that the
// text is not that of RFC 4648 with another alphabet.
func EncodeBase32(data []byte) string {
	out := make([]byte, Base32Len(len(data)))
	for i := range out {
		bit := (len(out) - 1 - i) * 5
		c := data[bit/8] >> (bit % 8)
		if bit%8 > 3 && bit/8+1 < len(data) {
			c |= data[bit/8+1] << (8 - bit%8)
		}
		out[i] = base32Alphabet[c&31]
	}
	return string(out)
}

// DecodeBase32 is the inverse of EncodeBase32. It refuses text whose unused
// bits are not zero, so that every value has one spelling.
func DecodeBase32(text string) ([]byte, error) {
	size := len(text) * 5 / 8
	if Base32Len(size) != len(text) {
		return nil, fmt.Errorf("decode base-32 text of %d characters: no whole number of bytes has that length", len(text))
	}
	out := make([]byte, size)
	for i := range len(text) {
		c := text[len(text)-1-i]
		digit := base32Digit[c]
		if digit == notBase32 {
			return nil, fmt.Errorf("decode base-32 text: character %q is not in Nix's alphabet (0-9, a-z without e, o, t, u)", c)
		}
		bit := i * 5
		out[bit/8] |= digit << (bit % 8)
		if rest := digit >> (8 - bit%8); bit%8 > 3 && rest != 0 {
			if bit/8+1 == size {
				return nil, fmt.Errorf("decode base-32 text: its first character %q is out of range", text[0])
			}
			out[bit/8+1] |= rest
		}
	}
	return out, nil
}
