package kmod

import (
	"slices"
	"strings"
)

// aliasTable holds the patterns of modules.alias in the order of the file,
// grouped by bus ("pci" of "pci:v*"), so that a device is compared with the
// patterns of its own bus only.
type aliasTable struct {
	byBus map[string][]alias
	// any holds patterns that have a wildcard before the first ":".
	any []alias
	// exact holds names without ":" and wildcards, as "crypto-crc32c".
	exact map[string][]string
}

// alias is one line of the file. The first literal bytes of the pattern hold no
// wildcard: comparing them tells most devices apart at once.
type alias struct {
	pattern, module string
	literal         int
}

// parseAlias reads "alias pattern module" lines.
func (x *Index) parseAlias(text string) error {
	t := aliasTable{byBus: make(map[string][]alias), exact: make(map[string][]string)}
	for line := range strings.Lines(text) {
		rest, ok := strings.CutPrefix(line, "alias ")
		if !ok {
			continue
		}
		rest = strings.TrimSpace(rest)
		// A pattern may hold spaces (some DMI tables have them), a name cannot.
		end := strings.LastIndexByte(rest, ' ')
		if end <= 0 {
			continue
		}
		a := alias{pattern: strings.TrimSpace(rest[:end]), module: normal(rest[end+1:])}
		if a.literal = strings.IndexAny(a.pattern, `*?[\-_`); a.literal < 0 {
			a.literal = len(a.pattern)
		}
		switch bus, ok := busOf(a.pattern); {
		case ok:
			t.byBus[bus] = append(t.byBus[bus], a)
		case strings.ContainsAny(a.pattern, `*?[\`):
			t.any = append(t.any, a)
		default:
			key := normal(a.pattern)
			t.exact[key] = append(t.exact[key], a.module)
		}
	}
	x.aliases = t
	return nil
}

// busOf returns what stands before the first ":", if no wildcard is in it.
func busOf(pattern string) (string, bool) {
	i := strings.IndexAny(pattern, `:*?[\-_`)
	if i < 0 || pattern[i] != ':' {
		return "", false
	}
	return pattern[:i], true
}

// Match returns the names of the modules that drive the device with this
// modalias, in the order of modules.alias. A module alias without wildcards,
// as "crypto-crc32c" or "fs-vfat", is found too.
func (x *Index) Match(modalias string) []string {
	var names []string
	add := func(list []alias) {
		for _, a := range list {
			if strings.HasPrefix(modalias, a.pattern[:a.literal]) && glob(a.pattern, modalias) && !slices.Contains(names, a.module) {
				names = append(names, a.module)
			}
		}
	}
	if bus, ok := busOf(modalias); ok {
		add(x.aliases.byBus[bus])
	}
	for _, name := range x.aliases.exact[normal(modalias)] {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	add(x.aliases.any)
	return names
}

// glob matches as fnmatch(3) without flags does, except that "-" and "_" are
// one outside of brackets. It never takes more than len(pattern) * len(text)
// steps: both may come from a device.
func glob(pattern, text string) bool {
	p, t := 0, 0
	star, retry := -1, 0
	for t < len(text) {
		if p < len(pattern) && pattern[p] == '*' {
			star, retry = p, t
			p++
			continue
		}
		if next, ok := globOne(pattern, p, text[t]); ok {
			p, t = next, t+1
			continue
		}
		if star < 0 {
			return false
		}
		retry++
		p, t = star+1, retry
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// globOne matches one character of text with what stands at p, and returns
// where the pattern goes on.
func globOne(pattern string, p int, c byte) (next int, ok bool) {
	if p >= len(pattern) {
		return p, false
	}
	switch pattern[p] {
	case '?':
		return p + 1, true
	case '[':
		if next, in, closed := globSet(pattern, p+1, c); closed {
			return next, in
		}
		return p + 1, c == '[' // a "[" that nothing closes stands for itself
	case '\\':
		if p+1 < len(pattern) {
			return p + 2, pattern[p+1] == c
		}
	case '-', '_':
		return p + 1, c == '-' || c == '_'
	}
	return p + 1, pattern[p] == c
}

// globSet matches c with the set that begins at p, after its "[".
func globSet(pattern string, p int, c byte) (next int, in, closed bool) {
	not := p < len(pattern) && (pattern[p] == '!' || pattern[p] == '^')
	if not {
		p++
	}
	for first := true; p < len(pattern); first = false {
		if pattern[p] == ']' && !first {
			return p + 1, in != not, true
		}
		low, n := setChar(pattern, p)
		p = n
		high := low
		if p+1 < len(pattern) && pattern[p] == '-' && pattern[p+1] != ']' {
			high, p = setChar(pattern, p+1)
		}
		if low <= c && c <= high {
			in = true
		}
	}
	return p, false, false
}

func setChar(pattern string, p int) (c byte, next int) {
	if pattern[p] == '\\' && p+1 < len(pattern) {
		return pattern[p+1], p + 2
	}
	return pattern[p], p + 1
}
