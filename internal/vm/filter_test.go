package vm

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func linesOf(in string) []string {
	var f filter
	var lines []string
	for i := range len(in) {
		if line, ok := f.feed(in[i]); ok {
			lines = append(lines, line)
		}
	}
	if p := f.partial(); p != "" {
		lines = append(lines, p)
	}
	return lines
}

func TestFilter(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"plain", "one\ntwo\n", []string{"one", "two"}},
		{"crlf", "one\r\ntwo\r\r\n\r\nx", []string{"one", "two", "", "x"}},
		{"progress by carriage return", "10 %\r20 %\r30 %\r\n", []string{"10 %", "20 %", "30 %"}},
		{"colours", "[\x1b[0;32m  OK  \x1b[0m] Started\r\n", []string{"[  OK  ] Started"}},
		{"firmware clears and moves", "\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe\x1b[02;01Hnext\x1b[02;01H\x1b[0m\r\n", []string{"BdsDxe", "next", ""}},
		{"seabios", "\x1bc\x1b[?7l\x1b[2J\x1b[0mSeaBIOS (version 1.16)\n", []string{"SeaBIOS (version 1.16)"}},
		{"title", "\x1b]0;evil title\x07text\x1b]8;;http://x\x1b\\link\n", []string{"textlink"}},
		{"unfinished title", "\x1b]0;begin\nnext\n", []string{"", "next"}},
		{"charset", "\x1b(Btext\x1b)0!\n", []string{"text!"}},
		{"escape inside csi", "\x1b[12\x1b[31mred\n", []string{"red"}},
		{"line end inside csi", "a\x1b[12\nb\n", []string{"a", "b"}},
		{"backspace", "abc\b\bx\n\b\by\n", []string{"ax", "y"}},
		{"bell and nul", "a\x07\x00b\x7fc\n", []string{"abc"}},
		{"c1 and bad utf-8", "a\u009b31mb\xff\xfec é\n", []string{"a31mb\uFFFDc é"}},
		{"tab and trailing space", "a\tb  \t \r\n", []string{"a\tb"}},
		{"prompt", "login: ", []string{"login:"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, linesOf(tt.in)); diff != "" {
				t.Errorf("lines of %q (-want +got):\n%s", tt.in, diff)
			}
		})
	}
}

func TestFilterBoundsALineWithoutEnd(t *testing.T) {
	lines := linesOf(strings.Repeat("x", 3*maxLineBytes))
	if len(lines) != 3 || len(lines[0]) != maxLineBytes {
		t.Errorf("%d lines; want 3 of %d bytes", len(lines), maxLineBytes)
	}
	lines = linesOf("\x1b]" + strings.Repeat("y", 2*maxControlBytes) + "\n")
	if len(lines) != 1 || len(lines[0]) < maxControlBytes/2 {
		t.Errorf("an endless control string was swallowed: %d lines", len(lines))
	}
}

func FuzzFilter(f *testing.F) {
	f.Add("plain\r\n\x1b[2J\x1b[01;01Htext\x1b]0;t\x07\x1b\\ \xff é\b")
	f.Add("\x1b(B\x1bP\x1b\x1b[\x1b\n\x1b]\x1b")
	f.Add("10 %\r20 %\r\r\n")
	f.Fuzz(func(t *testing.T, in string) {
		for _, line := range linesOf(in) {
			if !utf8.ValidString(line) {
				t.Errorf("line %q is not UTF-8", line)
			}
			if i := strings.IndexFunc(line, func(r rune) bool { return r != '\t' && unicode.IsControl(r) }); i >= 0 {
				t.Errorf("line %q holds a control character at %d", line, i)
			}
			if len(line) > 3*maxLineBytes {
				t.Errorf("line of %d bytes", len(line))
			}
		}
		// A line end always ends the line, whatever was open before it.
		after := linesOf(in + "\nXNODE-READY\n")
		if len(after) == 0 || after[len(after)-1] != "XNODE-READY" {
			t.Errorf("%q swallows the next line: %q", in, after)
		}
	})
}
