package trust

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"xnodeos.org/internal/sshsign"
)

// MaxSize bounds an allowed_signers file in bytes.
const MaxSize = 1 << 20

const (
	wantLine = "want principals [options] " + sshsign.KeyType + " base64 [comment]"
	noKey    = "no ssh public key after the principals: " + wantLine
)

// Parse reads an allowed_signers file. One bad line refuses the whole file,
// with its number: a line left out would be a key that is missed when it is
// needed. The caller names the file.
func Parse(data []byte) (*Signers, error) {
	if len(data) > MaxSize {
		return nil, fmt.Errorf("%d bytes; allowed are %d", len(data), MaxSize)
	}
	if !utf8.Valid(data) || bytes.IndexByte(data, 0) >= 0 {
		return nil, errors.New("not a text file in UTF-8")
	}
	signers := &Signers{}
	number := 0
	for line := range strings.SplitSeq(string(data), "\n") {
		number++
		line = strings.Trim(line, " \t\r")
		if line == "" || line[0] == '#' {
			continue
		}
		signer, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", number, err)
		}
		signer.Line = number
		signers.List = append(signers.List, *signer)
	}
	if len(signers.List) == 0 {
		return nil, errors.New("it has no key; add one or remove the file")
	}
	return signers, nil
}

// parseLine splits a line into principals, options and key.
func parseLine(line string) (*Signer, error) {
	s := &Signer{}
	principals, rest, ok := cutPrincipals(line)
	if !ok {
		return nil, errors.New(wantLine)
	}
	if sshsign.IsKeyType(principals) { // a line of authorized_keys
		return nil, errors.New(noKey)
	}
	s.Principals = principals
	options, key, ok := cutOptions(rest)
	if !ok {
		return nil, errors.New(wantLine)
	}
	if err := s.parseOptions(options); err != nil {
		return nil, err
	}
	var err error
	if s.Key, s.Comment, err = sshsign.ParsePublicKey(key); err != nil {
		var kind *sshsign.KeyTypeError
		if errors.As(err, &kind) {
			return nil, err
		}
		return nil, errors.New(noKey)
	}
	if len(s.Namespaces) == 0 {
		return nil, fmt.Errorf("the key has no role; say what it may sign, for instance namespaces=%q before %s", NamespaceManifest, sshsign.KeyType)
	}
	return s, nil
}

// cutPrincipals takes the first field, which may be quoted, off a line.
func cutPrincipals(line string) (principals, rest string, ok bool) {
	if quoted, isQuoted := strings.CutPrefix(line, `"`); isQuoted {
		principals, rest, ok = strings.Cut(quoted, `"`)
		if ok && rest != "" && rest[0] != ' ' && rest[0] != '\t' {
			return "", "", false
		}
	} else if end := strings.IndexAny(line, " \t"); end >= 0 {
		principals, rest, ok = line[:end], line[end:], !strings.Contains(line[:end], `"`)
	}
	rest = strings.TrimLeft(rest, " \t")
	return principals, rest, ok && principals != "" && rest != ""
}

// cutOptions takes the options off the rest of a line; they end at the first
// space outside quotes. There are none if the key's type comes first.
func cutOptions(text string) (options, key string, ok bool) {
	if word, _, _ := strings.Cut(text, " "); sshsign.IsKeyType(word) {
		return "", text, true
	}
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && strings.HasPrefix(text[i:], `\"`):
			i++
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\t') && !quoted:
			return text[:i], strings.TrimLeft(text[i:], " \t"), true
		}
	}
	return text, "", !quoted // no key follows, which is said when it is parsed
}

// parseOptions reads a comma-separated list. An option that we do not know is
// an error: it could be one that takes something away.
func (s *Signer) parseOptions(text string) error {
	seen := map[string]bool{}
	for text != "" {
		end := strings.IndexAny(text, "=,")
		name, rest := text, ""
		if end >= 0 {
			name, rest = text[:end], text[end:]
		}
		lower := strings.ToLower(name)
		switch lower {
		case "namespaces", "valid-after", "valid-before":
		case "cert-authority":
			return errors.New("cert-authority is refused: only plain keys are trusted; list the signer's own key")
		default:
			return fmt.Errorf("unknown option %.40q; allowed are namespaces=, valid-after= and valid-before=", name)
		}
		if seen[lower] {
			return fmt.Errorf("option %q is there twice; write one list", name)
		}
		seen[lower] = true
		value, rest, ok := dequote(strings.TrimPrefix(rest, "="))
		if !ok || value == "" {
			return fmt.Errorf("option %q has no value in double quotes; write %s=\"...\"", name, lower)
		}
		if err := s.setOption(lower, value); err != nil {
			return err
		}
		var more bool
		if text, more = strings.CutPrefix(rest, ","); rest != "" && (!more || text == "") {
			return fmt.Errorf("after option %q: want a comma and the next option, or a space and the key", name)
		}
	}
	if !s.ValidAfter.IsZero() && !s.ValidBefore.IsZero() && !s.ValidAfter.Before(s.ValidBefore) {
		return errors.New("valid-before is not later than valid-after; the key would never be valid")
	}
	return nil
}

// dequote takes a quoted string off text, as OpenSSH does: \" is a quote,
// every other backslash is itself.
func dequote(text string) (value, rest string, ok bool) {
	if text == "" || text[0] != '"' {
		return "", "", false
	}
	for i := 1; i < len(text); i++ {
		switch {
		case strings.HasPrefix(text[i:], `\"`):
			i++
		case text[i] == '"':
			return strings.ReplaceAll(text[1:i], `\"`, `"`), text[i+1:], true
		}
	}
	return "", "", false
}

func (s *Signer) setOption(name, value string) (err error) {
	switch name {
	case "namespaces":
		s.Namespaces, err = parseNamespaces(value)
	case "valid-after":
		s.ValidAfter, err = parseTime(name, value)
	case "valid-before":
		s.ValidBefore, err = parseTime(name, value)
	}
	return err
}

// parseNamespaces refuses patterns: "*" would give a key every role that a
// later release invents.
func parseNamespaces(list string) ([]string, error) {
	names := strings.Split(list, ",")
	for _, name := range names {
		if name == "" || strings.ContainsAny(name, "*?! \t\"\\") || !printable(name) {
			return nil, fmt.Errorf("namespace %q; want plain names with commas between, as in namespaces=%q, no patterns",
				name, NamespaceManifest+","+NamespaceGit)
		}
	}
	return names, nil
}

func printable(text string) bool {
	return strings.IndexFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) < 0
}

// parseTime reads YYYYMMDD[Z] and YYYYMMDDHHMM[SS][Z].
func parseTime(name, value string) (time.Time, error) {
	digits := strings.TrimSuffix(value, "Z")
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(layout) != len(digits) {
			continue
		}
		if t, err := time.Parse(layout, digits); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s %q is no date; want YYYYMMDD or YYYYMMDDHHMM[SS], with Z for UTC", name, value)
}
