package manifest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
)

func randomBytes(n int) []byte {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(data)
	return data
}

// payloadOf hashes data in chunks of size, one after another: the plain way,
// to compare with.
func payloadOf(data []byte, size int64) *Payload {
	hash := func(b []byte) string { sum := sha256.Sum256(b); return hex.EncodeToString(sum[:]) }
	p := &Payload{Name: "p", Size: int64(len(data)), SHA256: hash(data), ChunkSize: size}
	for c := range slices.Chunk(data, int(size)) {
		p.Chunks = append(p.Chunks, hash(c))
	}
	return p
}

func TestHashPayload(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 4096, ChunkSize - 1, ChunkSize, ChunkSize + 1, 5*ChunkSize + 77} {
		data := randomBytes(n)
		got, err := HashPayload("p", iotest.HalfReader(bytes.NewReader(data)))
		if err != nil {
			t.Fatal(err)
		}
		want := payloadOf(data, ChunkSize)
		if fmt.Sprint(got) != fmt.Sprint(*want) {
			t.Errorf("HashPayload of %d bytes = %v; want %v", n, got, *want)
		}
		if err := got.Verify(t.Context(), bytes.NewReader(data), nil); err != nil {
			t.Errorf("Verify of what was hashed (%d bytes): %v", n, err)
		}
	}
	if _, err := HashPayload("a/b", strings.NewReader("")); err == nil {
		t.Error("HashPayload takes a path for a name")
	}
	broken := errors.New("medium gone")
	if _, err := HashPayload("p", iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("HashPayload on a broken reader = %v", err)
	}
}

func TestVerifyFindsEveryChange(t *testing.T) {
	t.Parallel()
	const size = 4096
	data := randomBytes(10*size + 100)
	p := payloadOf(data, size)
	for offset := 0; offset < len(data); offset += 511 {
		data[offset] ^= 0x40
		err := p.Verify(t.Context(), bytes.NewReader(data), nil)
		data[offset] ^= 0x40
		var chunk *ChunkError
		if !errors.As(err, &chunk) {
			t.Fatalf("byte %d changed: %v; want a ChunkError", offset, err)
		}
		first := offset / size * size
		if chunk.Index != offset/size || chunk.Offset != int64(first) || chunk.Length != int64(min(size, len(data)-first)) || chunk.Name != "p" {
			t.Errorf("byte %d changed: %+v", offset, chunk)
		}
	}
}

func TestVerifySaysWhere(t *testing.T) {
	t.Parallel()
	data := randomBytes(3 * 4096)
	p := payloadOf(data, 4096)
	p.Name = "system.squashfs"
	data[2*4096] ^= 1
	err := p.Verify(t.Context(), bytes.NewReader(data), nil)
	for _, want := range []string{`"system.squashfs" is damaged: chunk 2 (bytes 8192 to 12287)`, p.Chunks[2], "write or fetch it again"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v has not %q", err, want)
		}
	}
}

func TestVerifySize(t *testing.T) {
	t.Parallel()
	data := randomBytes(5*4096 + 10)
	p := payloadOf(data, 4096)
	for _, n := range []int{0, 1, 4096, 5 * 4096, 5*4096 + 9, len(data) + 1, len(data) + 4096} {
		changed := append(bytes.Clone(data[:min(n, len(data))]), make([]byte, max(0, n-len(data)))...)
		err := p.Verify(t.Context(), bytes.NewReader(changed), nil)
		var size *SizeError
		if !errors.As(err, &size) || size.Want != p.Size {
			t.Errorf("%d instead of %d bytes: %v; want a SizeError", n, len(data), err)
		}
	}
}

func TestVerifyProgress(t *testing.T) {
	t.Parallel()
	data := randomBytes(9*4096 + 5)
	var last int64
	err := payloadOf(data, 4096).Verify(t.Context(), bytes.NewReader(data), func(done int64) {
		if done <= last {
			t.Errorf("progress goes from %d to %d", last, done)
		}
		last = done
	})
	if err != nil || last != int64(len(data)) {
		t.Errorf("progress ended at %d of %d, %v", last, len(data), err)
	}
}

// watched is a ReaderAt that notes in which order it is read.
type watched struct {
	io.ReaderAt
	next     int64
	jumps    atomic.Int32
	parallel atomic.Int32
	cancel   func()
	after    int64
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	if w.parallel.Add(1) != 1 || off != w.next {
		w.jumps.Add(1)
	}
	defer w.parallel.Add(-1)
	n, err := w.ReaderAt.ReadAt(p, off)
	w.next = off + int64(n)
	if w.cancel != nil && w.next >= w.after {
		w.cancel()
	}
	return n, err
}

func TestVerifyReadsInOrder(t *testing.T) {
	t.Parallel()
	data := randomBytes(64 * 4096)
	w := &watched{ReaderAt: bytes.NewReader(data)}
	if err := payloadOf(data, 8192).Verify(t.Context(), w, nil); err != nil {
		t.Fatal(err)
	}
	if w.jumps.Load() != 0 || w.next != int64(len(data)) {
		t.Errorf("%d reads out of order, ended at %d of %d", w.jumps.Load(), w.next, len(data))
	}
}

func TestVerifyStops(t *testing.T) {
	t.Parallel()
	data := randomBytes(64 * 4096)
	ctx, cancel := context.WithCancel(t.Context())
	w := &watched{ReaderAt: bytes.NewReader(data), cancel: cancel, after: 10 * 4096}
	if err := payloadOf(data, 4096).Verify(ctx, w, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify after cancel = %v", err)
	}
	if w.next > 12*4096 {
		t.Errorf("Verify read on to %d after it was cancelled at %d", w.next, w.after)
	}
}

func TestVerifyPassesReadErrorsOn(t *testing.T) {
	t.Parallel()
	data := randomBytes(8 * 4096)
	broken := errors.New("medium error")
	err := payloadOf(data, 4096).Verify(t.Context(), readerAt(func(p []byte, off int64) (int, error) {
		if off >= 5*4096 {
			return 0, broken
		}
		return copy(p, data[off:]), nil
	}), nil)
	if !errors.Is(err, broken) {
		t.Errorf("Verify on a broken medium = %v", err)
	}
}

type readerAt func(p []byte, off int64) (int, error)

func (r readerAt) ReadAt(p []byte, off int64) (int, error) { return r(p, off) }

func TestVerifyMemory(t *testing.T) {
	const size, chunks = 4 << 20, 100
	zero := sha256.Sum256(make([]byte, size))
	p := &Payload{Name: "p", Size: size * chunks, SHA256: strings.Repeat("0", 64), ChunkSize: size}
	for range chunks {
		p.Chunks = append(p.Chunks, hex.EncodeToString(zero[:]))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	err := p.Verify(t.Context(), readerAt(func(b []byte, off int64) (int, error) {
		b = b[:max(0, min(int64(len(b)), p.Size-off))]
		clear(b)
		if len(b) == 0 {
			return 0, io.EOF
		}
		return len(b), nil
	}), nil)
	if err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if got, limit := after.TotalAlloc-before.TotalAlloc, uint64(size*(runtime.GOMAXPROCS(0)+2)+1<<20); got > limit {
		t.Errorf("verifying %d MB allocated %d MB; want at most %d", p.Size>>20, got>>20, limit>>20)
	}
}

func TestFileVerify(t *testing.T) {
	t.Parallel()
	data := randomBytes(3<<20 + 5)
	f, err := HashFile("vmlinuz", bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Verify(t.Context(), bytes.NewReader(data)); err != nil {
		t.Errorf("Verify of what was hashed: %v", err)
	}
	var digest *DigestError
	changed := bytes.Clone(data)
	changed[2<<20] ^= 1
	if err := f.Verify(t.Context(), bytes.NewReader(changed)); !errors.As(err, &digest) || digest.Name != "vmlinuz" || digest.Want != f.SHA256 {
		t.Errorf("Verify of a changed file = %v; want a DigestError", err)
	}
	for _, n := range []int{0, len(data) - 1, len(data) + 1} {
		var size *SizeError
		long := append(bytes.Clone(data), 0)
		if err := f.Verify(t.Context(), bytes.NewReader(long[:n])); !errors.As(err, &size) {
			t.Errorf("Verify of %d instead of %d bytes = %v; want a SizeError", n, len(data), err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := f.Verify(ctx, bytes.NewReader(data)); !errors.Is(err, context.Canceled) {
		t.Errorf("Verify when cancelled = %v", err)
	}
}

func TestCheckChunkRefusesIndex(t *testing.T) {
	t.Parallel()
	p := payloadOf(randomBytes(4096), 4096)
	for _, index := range []int{-1, 1} {
		if err := p.CheckChunk(index, nil); err == nil {
			t.Errorf("CheckChunk(%d) of one chunk = nil", index)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	data := randomBytes(64 << 20)
	p := payloadOf(data, ChunkSize)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if err := p.Verify(b.Context(), bytes.NewReader(data), nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkHashPayload(b *testing.B) {
	data := randomBytes(64 << 20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := HashPayload("p", bytes.NewReader(data)); err != nil {
			b.Fatal(err)
		}
	}
}
