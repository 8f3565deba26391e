package nix

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

const (
	listHeader = "xnode-closure 1"
	// Bounds of a list that is read: far beyond any NixOS system.
	maxListSize = 64 << 20
	maxPaths    = 1 << 20
)

// ClosureList is the text form of a closure that programs exchange and that
// has a name of its own: its digest. After the line "xnode-closure 1" each
// path has one line of words with one space between them, ended by LF:
//
//	/nix/store/HASH-NAME sha256-BASE64 NARSIZE [REFERENCE ...]
//
// Paths and each path's references are sorted by bytes and differ; a reference
// is HASH-NAME and must have a line of its own. There is exactly one text for
// a closure, and ParseClosureList takes no other.
type ClosureList struct {
	Paths []PathInfo
}

// NewClosureList checks what Closure returned (or any other source) and sorts it.
func NewClosureList(infos []PathInfo) (*ClosureList, error) {
	list := &ClosureList{Paths: slices.Clone(infos)}
	slices.SortFunc(list.Paths, func(a, b PathInfo) int { return strings.Compare(a.Path, b.Path) })
	if err := list.check(); err != nil {
		return nil, err
	}
	return list, nil
}

// check enforces what ClosureList promises.
func (l *ClosureList) check() error {
	if len(l.Paths) == 0 {
		return errors.New("closure list: it is empty")
	}
	known := make(map[string]bool, len(l.Paths))
	for _, info := range l.Paths {
		known[info.Path] = true
	}
	last := ""
	for _, info := range l.Paths {
		if _, err := ParseStorePath(info.Path); err != nil {
			return fmt.Errorf("closure list: %w", err)
		}
		if info.Path <= last {
			return fmt.Errorf("closure list: %s after %s: paths must be sorted and differ", info.Path, last)
		}
		last = info.Path
		if info.NarSize < 0 {
			return fmt.Errorf("closure list: %s: size %d", info.Path, info.NarSize)
		}
		lastRef := ""
		for _, ref := range info.References {
			if !known[ref] {
				return fmt.Errorf("closure list: %s refers to %q, which has no line of its own", info.Path, cut(ref))
			}
			if ref <= lastRef {
				return fmt.Errorf("closure list: %s: references must be sorted and differ", info.Path)
			}
			lastRef = ref
		}
	}
	return nil
}

// Encode returns the one text of the list.
func (l *ClosureList) Encode() []byte {
	out := []byte(listHeader + "\n")
	for _, info := range l.Paths {
		out = append(out, info.Path...)
		out = append(append(out, ' '), info.NarHash.String()...)
		out = strconv.AppendInt(append(out, ' '), info.NarSize, 10)
		for _, ref := range info.References {
			out = append(append(out, ' '), StorePath(ref).Base()...)
		}
		out = append(out, '\n')
	}
	return out
}

// Digest names the closure: the SHA-256 of Encode, as "sha256-BASE64".
func (l *ClosureList) Digest() string { return Hash(sha256.Sum256(l.Encode())).String() }

// NarSize is the sum of all paths' NAR sizes in bytes.
func (l *ClosureList) NarSize() int64 {
	var sum int64
	for _, info := range l.Paths {
		sum += info.NarSize
	}
	return sum
}

// ParseClosureList reads the text form.
func ParseClosureList(data []byte) (*ClosureList, error) {
	if len(data) > maxListSize {
		return nil, fmt.Errorf("closure list: longer than %d bytes", maxListSize)
	}
	text, ok := strings.CutPrefix(string(data), listHeader+"\n")
	if !ok {
		return nil, fmt.Errorf("closure list: it does not begin with the line %q", listHeader)
	}
	if text == "" || text[len(text)-1] != '\n' {
		return nil, errors.New("closure list: its last line is not ended")
	}
	list := &ClosureList{}
	for line := range strings.Lines(text) {
		if len(list.Paths) == maxPaths {
			return nil, fmt.Errorf("closure list: more than %d paths", maxPaths)
		}
		info, err := parseListLine(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, fmt.Errorf("closure list: line %d: %w", len(list.Paths)+2, err)
		}
		list.Paths = append(list.Paths, info)
	}
	if err := list.check(); err != nil {
		return nil, err
	}
	if !bytes.Equal(list.Encode(), data) {
		return nil, errors.New("closure list: it is not in its one canonical form")
	}
	return list, nil
}

func parseListLine(line string) (PathInfo, error) {
	words := strings.Split(line, " ")
	if len(words) < 3 {
		return PathInfo{}, fmt.Errorf("%q: want path, NAR hash, NAR size and references", cut(line))
	}
	info := PathInfo{Path: words[0], References: make([]string, 0, len(words)-3)}
	var err error
	if info.NarHash, err = ParseHash(words[1]); err != nil {
		return info, err
	}
	if info.NarSize, err = strconv.ParseInt(words[2], 10, 64); err != nil {
		return info, fmt.Errorf("%q is no NAR size", cut(words[2]))
	}
	for _, base := range words[3:] {
		ref, err := ParseBaseName(base)
		if err != nil {
			return info, err
		}
		info.References = append(info.References, string(ref))
	}
	return info, nil
}
