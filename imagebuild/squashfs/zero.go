package squashfs

import "bytes"

// allZero reports whether b holds nothing but zeros. Comparing b with itself,
// one byte on, is the quickest way that needs no unsafe code.
func allZero(b []byte) bool {
	return len(b) > 0 && b[0] == 0 && bytes.Equal(b[:len(b)-1], b[1:])
}
