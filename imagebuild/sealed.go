package imagebuild

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"

	"xnodeos.org/internal/atomicfile"
)

// A sealed file is a piece in the cache: the SHA-256 of the content stands
// before it, so that a damaged one is made again instead of being built in.

// readSealed returns the content, or false where there is no whole one.
func readSealed(file string) ([]byte, bool) {
	data, err := os.ReadFile(file)
	if err != nil || len(data) < sha256.Size {
		return nil, false
	}
	sum, content := data[:sha256.Size], data[sha256.Size:]
	want := sha256.Sum256(content)
	return content, bytes.Equal(sum, want[:])
}

// writeSealed keeps content in the cache.
func writeSealed(file string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	sum := sha256.Sum256(content)
	if err := atomicfile.WriteBytes(file, 0o666, append(sum[:], content...)); err != nil {
		return fmt.Errorf("cache: %w", err)
	}
	return nil
}
