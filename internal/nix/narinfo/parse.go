package narinfo

import (
	"slices"
	"strconv"
	"strings"

	"xnodeos.org/internal/nix"
)

// Parse reads a narinfo file. A file without Compression means bzip2, Nix's
// oldest default.
func Parse(data []byte) (*Info, error) {
	if len(data) > MaxSize {
		return nil, formatError("it is longer than %d bytes", MaxSize)
	}
	if len(data) == 0 || data[len(data)-1] != '\n' {
		return nil, formatError("its last line is not ended")
	}
	p := parser{info: &Info{Compression: "bzip2", References: []string{}}, seen: map[string]bool{}}
	number := 0
	for line := range strings.Lines(string(data)) {
		number++
		if err := p.line(strings.TrimSuffix(line, "\n")); err != nil {
			return nil, formatError("line %d: %v", number, err) // the sentinel is ours; causes are texts
		}
	}
	for _, key := range []string{"StorePath", "URL", "NarHash", "NarSize", "References"} {
		if !p.seen[key] {
			return nil, formatError("it has no line %q", key)
		}
	}
	return p.info, nil
}

type parser struct {
	info *Info
	seen map[string]bool
}

func (p *parser) line(text string) error {
	key, value, ok := strings.Cut(text, ": ")
	if !ok {
		if key, ok = strings.CutSuffix(text, ":"); !ok { // an empty value whose space was trimmed
			return formatError("%.80q has no key", text)
		}
	}
	if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return formatError("%s has a control character", quoteKey(key))
	}
	if key != "Sig" {
		if p.seen[key] {
			return formatError("%s stands twice", quoteKey(key))
		}
		if len(p.seen) > 64 {
			return formatError("more than 64 different keys")
		}
		p.seen[key] = true
	}
	return p.set(key, value)
}

func quoteKey(key string) string { return strconv.Quote(key[:min(len(key), 40)]) }

func (p *parser) set(key, value string) (err error) {
	i := p.info
	switch key {
	case "StorePath":
		i.Path, err = nix.ParseStorePath(value)
	case "URL":
		i.URL, err = value, checkURL(value)
	case "Compression":
		i.Compression, err = Compression(value), checkCompression(value)
	case "FileHash":
		var h nix.Hash
		h, err = nix.ParseHash(value)
		i.FileHash = &h
	case "FileSize":
		i.FileSize, err = parseSize(value)
	case "NarHash":
		i.NarHash, err = nix.ParseHash(value)
	case "NarSize":
		i.NarSize, err = parseSize(value)
		if err == nil && i.NarSize == 0 {
			err = formatError("a NAR of 0 bytes")
		}
	case "References":
		i.References, err = parseReferences(value)
	case "Deriver":
		i.Deriver, err = parseDeriver(value)
	case "Sig":
		var s Signature
		s, err = ParseSignature(value)
		i.Sigs = append(i.Sigs, s)
		if len(i.Sigs) > maxSignatures {
			err = formatError("more than %d signatures", maxSignatures)
		}
	case "CA":
		i.CA = value
		if len(value) > maxWord {
			err = formatError("CA is longer than %d bytes", maxWord)
		}
	}
	return err
}

func parseSize(text string) (int64, error) {
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0, formatError("%.40q is no size", text)
	}
	return int64(n), nil
}

func checkCompression(text string) error {
	if text == "" || len(text) > 16 || strings.Trim(text, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return formatError("compression %.40q", text)
	}
	return nil
}

func parseReferences(text string) ([]string, error) {
	refs := []string{}
	for word := range strings.FieldsSeq(text) {
		p, err := nix.ParseBaseName(word)
		if err != nil {
			return nil, err
		}
		if refs = append(refs, string(p)); len(refs) > maxReferences {
			return nil, formatError("more than %d references", maxReferences)
		}
	}
	slices.Sort(refs)
	if n := len(refs); len(slices.Compact(refs)) != n {
		return nil, formatError("a reference stands twice")
	}
	return refs, nil
}

func parseDeriver(text string) (string, error) {
	if text == "unknown-deriver" || text == "" {
		return "", nil
	}
	p, err := nix.ParseBaseName(text)
	if err != nil {
		return "", err
	}
	return p.Base(), nil
}

// checkURL takes what can be joined to the root of a cache without leaving it:
// names of letters, digits and +-._=~ with slashes between them, none of them
// beginning with a dot, and behind them perhaps a query as some servers of caches write.
// Nix would also take an absolute URL; that would let a cache point its readers
// at any host of their network.
func checkURL(url string) error {
	if url == "" || len(url) > maxURL {
		return formatError("a URL of %d characters; 1 to %d are allowed", len(url), maxURL)
	}
	path, query, _ := strings.Cut(url, "?")
	for i := range len(query) {
		if !urlChar(query[i]) && query[i] != '&' {
			return formatError("URL %.200q has the character %q", url, query[i])
		}
	}
	for name := range strings.SplitSeq(path, "/") {
		if name == "" || name[0] == '.' || len(name) > 255 {
			return formatError("URL %.200q leads out of the cache; want a relative one such as nar/NAME", url)
		}
		for i := range len(name) {
			if !urlChar(name[i]) {
				return formatError("URL %.200q has the character %q", url, name[i])
			}
		}
	}
	return nil
}

func urlChar(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || strings.IndexByte("+-._=~", c) >= 0
}
