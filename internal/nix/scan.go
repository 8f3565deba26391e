package nix

import "sort"

// hashIndex finds store paths by their hash part. It is only read once made,
// so that many scanners share one.
type hashIndex struct {
	paths map[string]StorePath
	// begins has a bit for each possible begin of four characters: in long
	// runs of the alphabet (hexadecimal tables) it spares most map look-ups.
	begins [1 << 20 / 64]uint64
}

// begin numbers the first four characters, which must be in the alphabet.
func begin(p []byte) uint32 {
	return uint32(base32Digit[p[0]])<<15 | uint32(base32Digit[p[1]])<<10 | uint32(base32Digit[p[2]])<<5 | uint32(base32Digit[p[3]])
}

func (x *hashIndex) add(p StorePath) {
	hash := p.HashPart()
	x.paths[hash] = p
	n := begin([]byte(hash))
	x.begins[n/64] |= 1 << (n % 64)
}

// find looks up a window of HashLen characters of the alphabet.
func (x *hashIndex) find(window []byte) (StorePath, bool) {
	if n := begin(window); x.begins[n/64]&(1<<(n%64)) == 0 {
		return "", false
	}
	p, ok := x.paths[string(window)]
	return p, ok
}

// scanner finds which of a set of hash parts occur in a stream, as Nix does to
// find references: 32 characters of the alphabet, wherever they stand.
type scanner struct {
	wanted *hashIndex
	found  map[StorePath]bool
	tail   []byte // the last bytes of the stream, fewer than a hash part
}

func newScanner(wanted *hashIndex) *scanner {
	return &scanner{wanted: wanted, found: map[StorePath]bool{}, tail: make([]byte, 0, 2*HashLen)}
}

// Write implements io.Writer; it never fails.
func (s *scanner) Write(p []byte) (int, error) {
	const keep = HashLen - 1
	// What stands across the border of two writes lies within tail + head.
	joined := append(s.tail, p[:min(len(p), keep)]...)
	s.search(joined)
	if len(p) >= keep {
		s.search(p)
		joined = p
	}
	if len(joined) > keep {
		joined = joined[len(joined)-keep:]
	}
	s.tail = append(s.tail[:0], joined...)
	return len(p), nil
}

// search looks at the last byte of a window first: one that is not in the
// alphabet rules out all windows over it, so most bytes are never looked at.
func (s *scanner) search(p []byte) {
	good := 0 // p[i:good] is known to be in the alphabet
	for i := 0; i+HashLen <= len(p); {
		j := i + HashLen - 1
		for j >= good && j >= i && base32Digit[p[j]] != notBase32 {
			j--
		}
		if j >= good && j >= i {
			i = j + 1
			continue
		}
		good = i + HashLen
		if path, ok := s.wanted.find(p[i:good]); ok {
			s.found[path] = true
		}
		i++
	}
}

// references returns what was found, sorted.
func (s *scanner) references() []string {
	refs := make([]string, 0, len(s.found))
	for p := range s.found {
		refs = append(refs, string(p))
	}
	sort.Strings(refs)
	return refs
}
