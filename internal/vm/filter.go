package vm

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of what one unfinished line or control string may hold, so that a
// guest that never sends a line end fills neither memory nor a terminal.
const (
	maxLineBytes    = 4096
	maxControlBytes = 4096
)

// filter turns the bytes of a serial console into lines of plain text.
// Firmware clears the screen and moves the cursor, boot loaders draw menus,
// systemd sends colours and terminal queries: none of that may reach the
// terminal of whoever watches, nor tear a word that somebody waits for.
// Splitting the input differently gives the same lines.
type filter struct {
	state   filterState
	control int  // bytes in the current control string
	cr      bool // a carriage return was seen and nothing after it
	line    []byte
}

type filterState int

const (
	ground       filterState = iota
	escape                   // ESC
	escapeInter              // ESC and intermediate bytes, as in ESC ( B
	csi                      // ESC [
	controlStr               // ESC ] P X ^ _ up to BEL or ESC \
	controlStrEs             // ESC inside a control string
)

const (
	esc = 0x1b
	bel = 0x07
)

// feed takes one byte and gives the line that it completes, if any.
func (f *filter) feed(b byte) (line string, ok bool) {
	if b == '\n' { // whatever is open, a line end ends it
		f.state = ground
		return f.take()
	}
	switch f.state {
	case escape:
		return f.feedEscape(b)
	case escapeInter:
		if b < 0x20 || b > 0x2f {
			f.state = ground
		}
	case csi:
		return f.feedCSI(b)
	case controlStr, controlStrEs:
		return f.feedControlStr(b)
	default:
		return f.feedGround(b)
	}
	return "", false
}

func (f *filter) feedGround(b byte) (string, bool) {
	switch {
	case b == '\r':
		f.cr = true
	case b == esc:
		f.state = escape
	case b == '\b':
		_, n := utf8.DecodeLastRune(f.line)
		f.line = f.line[:len(f.line)-n]
	case b == '\t' || b >= 0x20 && b != 0x7f:
		return f.put(b)
	}
	return "", false
}

// put adds a byte of text. After a lone carriage return the guest writes over
// its line: what stood there becomes a line of its own.
func (f *filter) put(b byte) (line string, ok bool) {
	if len(f.line) > 0 && (f.cr || len(f.line) >= maxLineBytes) {
		line, ok = f.take()
	}
	f.cr = false
	f.line = append(f.line, b)
	return line, ok
}

func (f *filter) feedEscape(b byte) (string, bool) {
	switch {
	case b == '[':
		f.state = csi
	case b == ']' || b == 'P' || b == 'X' || b == '^' || b == '_':
		f.state, f.control = controlStr, 0
	case b == esc:
	case b >= 0x20 && b <= 0x2f:
		f.state = escapeInter
	case b == 'c': // full reset: the screen is empty afterwards
		f.state = ground
		return f.breakLine()
	default:
		f.state = ground
	}
	return "", false
}

func (f *filter) feedCSI(b byte) (string, bool) {
	switch {
	case b == esc:
		f.state = escape
	case b >= 0x40 && b <= 0x7e:
		f.state = ground
		// Cursor elsewhere or text erased: what follows is another line.
		if strings.IndexByte("ABEFHJf", b) >= 0 {
			return f.breakLine()
		}
	case b < 0x20 || b > 0x7e:
		f.state = ground
		return f.feedGround(b)
	}
	return "", false
}

// feedControlStr skips a control string. Its length is bounded, too: an
// unfinished one must not swallow the rest of the log.
func (f *filter) feedControlStr(b byte) (string, bool) {
	f.control++
	switch {
	case f.state == controlStrEs && b != '\\':
		f.state = escape
		return f.feedEscape(b)
	case b == esc:
		f.state = controlStrEs
	case b == bel, f.state == controlStrEs, f.control >= maxControlBytes:
		f.state = ground
	}
	return "", false
}

// breakLine ends the current line only if it says something.
func (f *filter) breakLine() (string, bool) {
	if strings.TrimSpace(string(f.line)) == "" {
		f.line = f.line[:0]
		return "", false
	}
	return f.take()
}

func (f *filter) take() (string, bool) {
	s := f.partial()
	f.line, f.cr = f.line[:0], false
	return s, true
}

// partial is the text of the line that is not complete yet.
func (f *filter) partial() string {
	s := strings.ToValidUTF8(string(f.line), "\uFFFD")
	s = strings.Map(func(r rune) rune {
		if r != '\t' && unicode.IsControl(r) {
			return -1 // C1 controls, spelled in UTF-8
		}
		return r
	}, s)
	return strings.TrimRight(s, " \t")
}
