package manifest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
)

// ChunkError says that one chunk of a payload is not what the manifest says.
type ChunkError struct {
	Name   string // of the payload
	Index  int    // of the chunk, from 0
	Offset int64  // of its first byte
	Length int64
	Want   string // SHA-256 in hex
	Got    string
}

func (e *ChunkError) Error() string {
	return fmt.Sprintf("%q is damaged: chunk %d (bytes %d to %d) has sha256 %s, the manifest says %s; write or fetch it again",
		e.Name, e.Index, e.Offset, e.Offset+e.Length-1, e.Got, e.Want)
}

// SizeError says that a file is shorter or longer than its manifest says.
type SizeError struct {
	Name string
	Want int64
	Got  int64 // what could be read; for a file that is too long: more than Want
}

func (e *SizeError) Error() string {
	if e.Got > e.Want {
		return fmt.Sprintf("%q is longer than the %d bytes that the manifest says; write or fetch it again", e.Name, e.Want)
	}
	return fmt.Sprintf("%q ends after %d of %d bytes; write or fetch it again", e.Name, e.Got, e.Want)
}

// DigestError says that a whole file is not what the manifest says.
type DigestError struct {
	Name      string
	Want, Got string // SHA-256 in hex
}

func (e *DigestError) Error() string {
	return fmt.Sprintf("%q is damaged: sha256 %s, the manifest says %s; write or fetch it again", e.Name, e.Got, e.Want)
}

// HashPayload reads r to its end and returns the description of what it read,
// in chunks of ChunkSize. The chunks are hashed on all cores beside the whole;
// memory is bounded by one chunk a core and two more.
func HashPayload(name string, r io.Reader) (Payload, error) {
	if err := checkName(name); err != nil {
		return Payload{}, fmt.Errorf("hash payload: %w", err)
	}
	var (
		mu   sync.Mutex
		sums []string
	)
	whole := sha256.New()
	size, err := pump(context.Background(), r, ChunkSize, whole, func(index int, data []byte) error {
		sum := sha256.Sum256(data)
		mu.Lock()
		defer mu.Unlock()
		for len(sums) <= index {
			sums = append(sums, "")
		}
		sums[index] = hex.EncodeToString(sum[:])
		return nil
	})
	if err != nil {
		return Payload{}, fmt.Errorf("hash payload %q: %w", name, err)
	}
	return Payload{Name: name, Size: size, SHA256: hex.EncodeToString(whole.Sum(nil)), ChunkSize: ChunkSize, Chunks: sums}, nil
}

// HashFile reads r to its end and returns the description of what it read.
func HashFile(name string, r io.Reader) (File, error) {
	if err := checkName(name); err != nil {
		return File{}, fmt.Errorf("hash file: %w", err)
	}
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return File{}, fmt.Errorf("hash file %q: %w", name, err)
	}
	return File{Name: name, Size: n, SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

// Verify reads the whole payload once, from its first byte to its last, and
// checks length and every chunk. One goroutine reads, because CDs and disks
// are slow at anything else, and all cores hash. progress, if not nil, is
// called with the number of bytes found good so far, never from two goroutines
// at once. The error is a *ChunkError or *SizeError where the bytes are
// wrong, else that of r or of ctx.
//
// SHA256 of the whole is not looked at: the chunks bind the same bytes.
func (p *Payload) Verify(ctx context.Context, r io.ReaderAt, progress func(done int64)) error {
	if err := p.validate(); err != nil {
		return fmt.Errorf("verify payload: %w", err)
	}
	var (
		mu   sync.Mutex
		done int64
	)
	got, err := pump(ctx, io.NewSectionReader(r, 0, p.Size), p.ChunkSize, nil, func(index int, data []byte) error {
		if err := p.CheckChunk(index, data); err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		done += int64(len(data))
		if progress != nil {
			progress(done)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("verify payload: %w", err)
	}
	if got < p.Size {
		return fmt.Errorf("verify payload: %w", &SizeError{Name: p.Name, Want: p.Size, Got: got})
	}
	var more [1]byte
	if n, err := r.ReadAt(more[:], p.Size); n > 0 {
		return fmt.Errorf("verify payload: %w", &SizeError{Name: p.Name, Want: p.Size, Got: p.Size + 1})
	} else if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("verify payload %q: byte %d: %w", p.Name, p.Size, err)
	}
	return nil
}

// CheckChunk compares the bytes of one chunk with the manifest; a difference
// is a *ChunkError.
func (p *Payload) CheckChunk(index int, data []byte) error {
	if index < 0 || index >= len(p.Chunks) {
		return fmt.Errorf("%q has no chunk %d; it has %d", p.Name, index, len(p.Chunks))
	}
	offset := int64(index) * p.ChunkSize
	if want := min(p.ChunkSize, p.Size-offset); int64(len(data)) != want {
		return &SizeError{Name: p.Name, Want: p.Size, Got: offset + int64(len(data))}
	}
	sum := sha256.Sum256(data)
	if got := hex.EncodeToString(sum[:]); got != p.Chunks[index] {
		return &ChunkError{Name: p.Name, Index: index, Offset: offset, Length: int64(len(data)), Want: p.Chunks[index], Got: got}
	}
	return nil
}

// Verify reads the file once and checks length and hash. The error is a
// *DigestError or *SizeError where the bytes are wrong.
func (f *File) Verify(ctx context.Context, r io.Reader) error {
	if err := f.validate(); err != nil {
		return fmt.Errorf("verify file: %w", err)
	}
	h := sha256.New()
	got, err := pump(ctx, io.LimitReader(r, f.Size+1), 1<<20, h, nil)
	switch {
	case err != nil:
		return fmt.Errorf("verify file %q: %w", f.Name, err)
	case got != f.Size:
		return fmt.Errorf("verify file: %w", &SizeError{Name: f.Name, Want: f.Size, Got: got})
	}
	if sum := hex.EncodeToString(h.Sum(nil)); sum != f.SHA256 {
		return fmt.Errorf("verify file: %w", &DigestError{Name: f.Name, Want: f.SHA256, Got: sum})
	}
	return nil
}
