package nix

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func wantedPaths(n int) (*hashIndex, []string) {
	wanted := &hashIndex{paths: map[string]StorePath{}}
	var hashes []string
	for i := range n {
		hash := EncodeBase32([]byte(fmt.Sprintf("hash number %08d", i)))[:HashLen]
		wanted.add(StorePath(StoreDir + "/" + hash + "-x"))
		hashes = append(hashes, hash)
	}
	return wanted, hashes
}

// naive is the definition: every window of the text.
func naive(wanted *hashIndex, text string) []string {
	s := newScanner(wanted)
	for i := 0; i+HashLen <= len(text); i++ {
		if p, ok := wanted.paths[text[i:i+HashLen]]; ok {
			s.found[p] = true
		}
	}
	return s.references()
}

func TestScannerFindsAcrossWrites(t *testing.T) {
	t.Parallel()
	wanted, hashes := wantedPaths(3)
	text := "e" + hashes[0] + "/" + strings.Repeat("0", 100) + hashes[1] + "0" + hashes[0][1:] + hashes[2][:31]
	want := naive(wanted, text)
	if len(want) != 2 {
		t.Fatalf("the text has %v", want)
	}
	for size := 1; size <= len(text); size++ {
		s := newScanner(wanted)
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			if _, err := s.Write([]byte(rest[:n])); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if diff := cmp.Diff(want, s.references()); diff != "" {
			t.Fatalf("in pieces of %d (-want +got):\n%s", size, diff)
		}
	}
}

func FuzzScanner(f *testing.F) {
	wanted, hashes := wantedPaths(4)
	f.Add(hashes[0]+hashes[1], uint64(1))
	f.Add("e"+hashes[2][:30]+"e"+hashes[2]+"e", uint64(2))
	f.Add(strings.Repeat("a", 100)+hashes[3], uint64(3))
	f.Fuzz(func(t *testing.T, text string, seed uint64) {
		// Plant hashes and pieces of them, or nothing would ever be found.
		random := rand.New(rand.NewPCG(seed, 0))
		for range seed % 4 {
			at, h := random.IntN(len(text)+1), hashes[random.IntN(len(hashes))]
			text = text[:at] + h[random.IntN(2):] + text[at:]
		}
		s := newScanner(wanted)
		for rest := text; rest != ""; {
			n := 1 + random.IntN(len(rest))
			s.Write([]byte(rest[:n]))
			rest = rest[n:]
		}
		if diff := cmp.Diff(naive(wanted, text), s.references()); diff != "" {
			t.Fatalf("(-naive +scanner):\n%s", diff)
		}
	})
}

func TestRegistrationIsCutOff(t *testing.T) {
	t.Parallel()
	_, hashes := wantedPaths(2)
	a, b := StoreDir+"/"+hashes[0]+"-a", StoreDir+"/"+hashes[1]+"-b"
	infos := []PathInfo{{Path: a, NarSize: 8, References: []string{a, b}}, {Path: b, NarSize: 9, References: []string{}}}
	var text strings.Builder
	if err := WriteRegistration(&text, infos); err != nil {
		t.Fatal(err)
	}
	got, err := ReadRegistration(iotest.OneByteReader(strings.NewReader(text.String())))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(infos, got); diff != "" {
		t.Errorf("registration (-want +got):\n%s", diff)
	}
	lines := strings.SplitAfter(text.String(), "\n")
	for n := 1; n < 7; n++ { // every cut within the first entry
		if got, err := ReadRegistration(strings.NewReader(strings.Join(lines[:n], ""))); err == nil {
			t.Errorf("cut after %d lines: %v; want an error", n, got)
		}
	}
}

func BenchmarkScanner(b *testing.B) {
	wanted, _ := wantedPaths(2000)
	random := rand.New(rand.NewPCG(1, 2))
	binary := make([]byte, 1<<20)
	for i := range binary {
		binary[i] = byte(random.Uint32())
	}
	for name, data := range map[string][]byte{
		"random": binary,
		"zeros":  make([]byte, 1<<20),
		"text":   []byte(strings.Repeat("The quick brown fox jumps over the lazy dog; int main(void) { return 0; }\n", 14000)),
		"hex":    []byte(strings.Repeat("0123456789abcdf0", 1<<16)),
	} {
		b.Run(name, func(b *testing.B) {
			s := newScanner(wanted)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				s.Write(data)
			}
		})
	}
}
