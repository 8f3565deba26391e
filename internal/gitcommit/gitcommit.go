// Package gitcommit reads, checks and writes the raw commit objects of git,
// with the SSH signature that git puts into their header gpgsig.
//
// A signature covers bytes, so only bytes are judged here: nothing is decoded
// and encoded again before it is verified. What git tolerates but two readers
// could understand differently (a header that is there twice, several
// signatures, a NUL) is refused. The package opens no repository; who may sign
// is the business of package trust.
package gitcommit

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxSize bounds the bytes of a commit object. A release's commit has less
// than one thousand.
const MaxSize = 1 << 20

// maxParents bounds the parents of one commit.
const maxParents = 64

// ErrUnsigned says that a commit has no signature.
var ErrUnsigned = errors.New("the commit is not signed; sign it with: git commit --gpg-sign, with gpg.format=ssh and a key that allowed_signers lists for git")

// FormatError says that bytes are no commit that is taken here.
type FormatError struct{ Reason string }

func (e *FormatError) Error() string { return "malformed commit: " + e.Reason }

// Person is an author or committer line.
type Person struct {
	Name, Email string
	When        time.Time // to the second, in the zone that was written
}

// Commit is what a commit object says.
type Commit struct {
	Tree      string   // 40 lower-case hex digits
	Parents   []string // likewise
	Author    Person
	Committer Person
	Message   string
	// Signature is the armoured text of the header gpgsig, "" if there is none.
	Signature string

	payload []byte // the object without the header gpgsig: what is signed
}

// Payload returns the bytes that the signature covers: the raw object without
// its header gpgsig.
func (c *Commit) Payload() []byte { return bytes.Clone(c.payload) }

// Parse reads a raw commit object: its content, without git's own header
// "commit SIZE NUL". The error is a *FormatError.
func Parse(raw []byte) (*Commit, error) {
	if len(raw) > MaxSize {
		return nil, &FormatError{fmt.Sprintf("%d bytes; allowed are %d", len(raw), MaxSize)}
	}
	head, message, ok := bytes.Cut(raw, []byte("\n\n"))
	if !ok {
		return nil, &FormatError{"no empty line behind the headers"}
	}
	if at := bytes.IndexByte(head, 0); at >= 0 {
		return nil, &FormatError{"a NUL in the headers"}
	}
	headers, err := splitHeaders(string(head))
	if err != nil {
		return nil, err
	}
	c := &Commit{Message: string(message)}
	if err := c.take(headers); err != nil {
		return nil, err
	}
	for _, h := range headers {
		if h.key != "gpgsig" {
			c.payload = append(append(c.payload, h.raw...), '\n')
		}
	}
	c.payload = append(append(c.payload, '\n'), message...)
	return c, nil
}

// header is one header with its continuation lines.
type header struct {
	key   string
	value string // continuation lines joined by LF, without their leading space
	raw   string // as in the object, without the last line end
}

func splitHeaders(head string) ([]header, error) {
	var out []header
	for line := range strings.SplitSeq(head, "\n") {
		if rest, more := strings.CutPrefix(line, " "); more {
			if len(out) == 0 {
				return nil, &FormatError{"it begins with a continued line"}
			}
			last := &out[len(out)-1]
			last.value += "\n" + rest
			last.raw += "\n" + line
			continue
		}
		key, value, ok := strings.Cut(line, " ")
		if !ok || key == "" || strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-:_") != "" {
			return nil, &FormatError{fmt.Sprintf("header line %.60q", line)}
		}
		out = append(out, header{key, value, line})
	}
	return out, nil
}

// take fills the commit from its headers. The order of the first ones is
// git's own; the rest may be anything, but nothing twice.
func (c *Commit) take(headers []header) error {
	rest := headers
	next := func(key string) (header, bool) {
		if len(rest) == 0 || rest[0].key != key {
			return header{}, false
		}
		h := rest[0]
		rest = rest[1:]
		return h, true
	}
	tree, ok := next("tree")
	if !ok || !IsID(tree.value) {
		return &FormatError{"it does not begin with its one tree"}
	}
	c.Tree = tree.value
	for {
		parent, ok := next("parent")
		if !ok {
			break
		}
		if !IsID(parent.value) || len(c.Parents) == maxParents || slices.Contains(c.Parents, parent.value) {
			return &FormatError{fmt.Sprintf("parent %.60q: no commit id, there twice, or one of too many", parent.value)}
		}
		c.Parents = append(c.Parents, parent.value)
	}
	for _, who := range []struct {
		key  string
		into *Person
	}{{"author", &c.Author}, {"committer", &c.Committer}} {
		h, ok := next(who.key)
		if !ok {
			return &FormatError{"no " + who.key + " where it belongs"}
		}
		var err error
		if *who.into, err = ParsePerson(h.value); err != nil {
			return &FormatError{who.key + ": " + err.Error()}
		}
	}
	return c.takeOthers(rest)
}

func (c *Commit) takeOthers(headers []header) error {
	seen := map[string]bool{}
	for _, h := range headers {
		switch {
		case slices.Contains([]string{"tree", "parent", "author", "committer"}, h.key):
			return &FormatError{fmt.Sprintf("header %q again, or in the wrong place", h.key)}
		case seen[h.key]:
			return &FormatError{fmt.Sprintf("header %q is there twice", h.key)}
		case strings.HasPrefix(h.key, "gpgsig") && h.key != "gpgsig":
			return &FormatError{fmt.Sprintf("header %q: only one signature, gpgsig, is taken", h.key)}
		case h.key == "gpgsig":
			c.Signature = h.value + "\n"
		}
		seen[h.key] = true
	}
	return nil
}

// ParsePerson reads "Name <email> SECONDS +ZONE", as in a commit and as git var
// prints it.
func ParsePerson(text string) (Person, error) {
	bad := fmt.Errorf("%.80q; want Name <email> SECONDS +ZONE", text)
	if strings.Contains(text, "\n") {
		return Person{}, bad
	}
	open, shut := strings.Index(text, "<"), strings.LastIndex(text, "> ")
	if open < 0 || shut < open {
		return Person{}, bad
	}
	seconds, zone, ok := strings.Cut(text[shut+2:], " ")
	if !ok || len(seconds) == 0 || len(seconds) > 12 || strings.Trim(seconds, "0123456789") != "" {
		return Person{}, bad
	}
	at, err := strconv.ParseInt(seconds, 10, 64)
	if err != nil {
		return Person{}, bad
	}
	offset, err := parseZone(zone)
	if err != nil {
		return Person{}, bad
	}
	return Person{
		Name:  strings.TrimSpace(text[:open]),
		Email: text[open+1 : shut],
		When:  time.Unix(at, 0).In(time.FixedZone(zone, offset)),
	}, nil
}

// parseZone reads "+0130" as seconds east of UTC.
func parseZone(zone string) (int, error) {
	if len(zone) != 5 || zone[0] != '+' && zone[0] != '-' || strings.Trim(zone[1:], "0123456789") != "" {
		return 0, errors.New("no time zone")
	}
	n, err := strconv.Atoi(zone[1:])
	if err != nil {
		return 0, err
	}
	offset := (n/100*60 + n%100) * 60
	if zone[0] == '-' {
		offset = -offset
	}
	return offset, nil
}

// IsID says whether text is an object id: 40 lower-case hex digits, and not
// the zeros that stand for "none".
func IsID(text string) bool {
	raw, err := hex.DecodeString(text)
	return err == nil && len(raw) == 20 && strings.ToLower(text) == text && strings.Trim(text, "0") != ""
}
