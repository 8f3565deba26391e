package iso_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"xnodeos.org/imagebuild/iso"
)

// marked is a file of any size whose only bytes that are not zero are its
// marks: eight bytes that say where they are.
type marked struct {
	size  int64
	marks []int64
}

func (m marked) ReadAt(b []byte, off int64) (int, error) {
	n := int(max(0, min(int64(len(b)), m.size-off)))
	clear(b[:n])
	for _, at := range m.marks {
		if at+8 <= off || at >= off+int64(n) {
			continue
		}
		for i, c := range fmt.Appendf(nil, "%08x", at>>4) {
			if k := at + int64(i) - off; k >= 0 && k < int64(n) {
				b[k] = c
			}
		}
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (m marked) file(name string) iso.File {
	return iso.File{Name: name, Size: m.size, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(m, 0, m.size)), nil
	}}
}

// sparse writes what is not zero and leaves holes.
type sparse struct {
	f     *os.File
	end   int64
	zeros [1 << 20]byte
}

func (s *sparse) Write(b []byte) (int, error) {
	if len(b) > len(s.zeros) || !bytes.Equal(b, s.zeros[:len(b)]) {
		if n, err := s.f.WriteAt(b, s.end); err != nil {
			return n, err
		}
	}
	s.end += int64(len(b))
	return len(b), nil
}

const overFourGiB = 4<<30 + 5000

func bigPayload() marked {
	return marked{overFourGiB, []int64{0, 1<<32 - 4096, 1<<32 - 2048, 1<<32 - 16, 1 << 32, 1<<32 + 2048, overFourGiB - 16}}
}

// buildBig writes an image whose payload needs several extents.
func buildBig(t *testing.T) string {
	t.Helper()
	spec := testSpec()
	spec.Files[1] = bigPayload().file("xnode/system.squashfs")
	l, err := iso.New(spec)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "big.iso")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := &sparse{f: f}
	if err := l.Write(t.Context(), w, nil); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(w.end); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPayloadOverFourGiB(t *testing.T) {
	t.Parallel()
	path := buildBig(t)
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	m, err := iso.Open(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	if problems := m.Check(); len(problems) > 0 {
		t.Errorf("Check = %q; want none", problems)
	}
	got, err := m.Find("xnode/system.squashfs")
	if err != nil {
		t.Fatal(err)
	}
	if got.Size != overFourGiB || len(got.Runs) != 1 {
		t.Errorf("payload has %d bytes in %d runs; want %d in 1", got.Size, len(got.Runs), int64(overFourGiB))
	}
	r := m.Open(got)
	for _, at := range bigPayload().marks {
		have, want := make([]byte, 16), make([]byte, 16)
		if _, err := r.ReadAt(have, at); err != nil {
			t.Fatal(err)
		}
		if _, err := bigPayload().ReadAt(want, at); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have, want) {
			t.Errorf("at %d: %q; want %q", at, have, want)
		}
	}
	checkBigWithXorriso(t, path)
}
