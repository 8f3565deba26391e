package fat

import (
	"fmt"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	shortSpecials = "$%'-_@~`!(){}^#&"
	lfnUnits      = 13
	maxNameUnits  = 255
)

func checkLabel(label string) error {
	if label == "" || len(label) > 11 {
		return fmt.Errorf("label %q: want 1 to 11 characters", label)
	}
	for _, c := range []byte(label) {
		if !('A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_ ", c) >= 0) {
			return fmt.Errorf("label %q: character %q; allowed are A-Z 0-9 - _ and space", label, c)
		}
	}
	return nil
}

func checkName(name string) error {
	if name == "" || name == "." || name == ".." || !utf8.ValidString(name) || len(utf16.Encode([]rune(name))) > maxNameUnits {
		return fmt.Errorf("name %q: empty, a dot name, not UTF-8 or over %d units", name, maxNameUnits)
	}
	if strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") || strings.HasPrefix(name, " ") {
		return fmt.Errorf("name %q: begins or ends with a space, or ends with a dot", name)
	}
	for _, c := range name {
		if c < ' ' || c == 0x7f || strings.ContainsRune(`"*/:<>?\|`, c) {
			return fmt.Errorf("name %q: character %q is not allowed on FAT", name, c)
		}
	}
	return nil
}

// shortName gives the padded 8.3 form of name and whether name is exactly
// that form, so that it needs no long entries. taken holds the short names of
// the folder so far.
func shortName(name string, taken map[[11]byte]bool) (short [11]byte, exact bool, err error) {
	base, ext, _ := cutLast(name)
	plainBase, lossyBase := shortPart(base)
	plainExt, lossyExt := shortPart(ext)
	fits := !lossyBase && !lossyExt && len(plainBase) <= 8 && len(plainExt) <= 3 && plainBase != ""
	if fits {
		short = pad83(plainBase, plainExt)
		if !taken[short] {
			taken[short] = true
			return short, name == strings.TrimSuffix(plainBase+"."+plainExt, "."), nil
		}
	}
	for n := 1; n < 1_000_000; n++ {
		tail := fmt.Sprintf("~%d", n)
		short = pad83(plainBase[:min(len(plainBase), 8-len(tail))]+tail, plainExt[:min(len(plainExt), 3)])
		if !taken[short] {
			taken[short] = true
			return short, false, nil
		}
	}
	return short, false, fmt.Errorf("name %q: no short name is free", name)
}

func cutLast(name string) (base, ext string, found bool) {
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		return name[:i], name[i+1:], true
	}
	return name, "", false
}

// shortPart keeps what an 8.3 name may hold, in upper case; lossy says that
// something else than case was changed.
func shortPart(s string) (plain string, lossy bool) {
	var b strings.Builder
	for _, c := range strings.ToUpper(s) {
		switch {
		case 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune(shortSpecials, c):
			b.WriteRune(c)
		case c == ' ' || c == '.':
			lossy = true
		default:
			b.WriteByte('_')
			lossy = true
		}
	}
	return b.String(), lossy
}

func pad83(base, ext string) (out [11]byte) {
	copy(out[:], fmt.Sprintf("%-8s%-3s", base, ext))
	return out
}

// shortSum is the checksum that ties long entries to their short entry.
func shortSum(short [11]byte) byte {
	var sum byte
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

// longEntries are the entries that precede the short one, in disk order.
func longEntries(name string, short [11]byte) []byte {
	units := utf16.Encode([]rune(name))
	n := (len(units) + lfnUnits - 1) / lfnUnits
	if len(units)%lfnUnits != 0 {
		units = append(units, 0)
	}
	for len(units) < n*lfnUnits {
		units = append(units, 0xFFFF)
	}
	out := make([]byte, n*direntSize)
	for i := range n {
		seq := n - i // the last part comes first
		e := out[i*direntSize:][:direntSize]
		e[0] = byte(seq)
		if i == 0 {
			e[0] |= 0x40
		}
		e[11] = attrLong
		e[13] = shortSum(short)
		for k, at := range lfnPlaces {
			u := units[(seq-1)*lfnUnits+k]
			e[at], e[at+1] = byte(u), byte(u>>8)
		}
	}
	return out
}

// lfnPlaces are the offsets of a long entry's 13 characters.
var lfnPlaces = [lfnUnits]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}
