package cache

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"

	"xnodeos.org/internal/atomicfile"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/nar"
	"xnodeos.org/internal/nix/narinfo"
)

// pushWindow is the window of the NARs that we write: what a reader needs in
// memory for each of those that it unpacks at a time.
const pushWindow = 2 << 20

// compress writes the NAR of info's path and fills in what is known then.
// Level and window are fixed and one encoder works alone: a path gives the same
// bytes on every machine, so its file can be named by its NAR hash.
func (p *push) compress(ctx context.Context, info *narinfo.Info) error {
	f, err := atomicfile.Create(filepath.Join(p.dir, info.URL), listFileMode)
	if err != nil {
		return err
	}
	defer f.Abort()
	file := &measure{w: f, hash: sha256.New()}
	enc, err := zstd.NewWriter(file, zstd.WithEncoderLevel(zstd.SpeedBetterCompression),
		zstd.WithWindowSize(pushWindow), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return fmt.Errorf("BUG: zstd options: %w", err)
	}
	tree := &measure{w: enc, hash: sha256.New(), ctx: ctx}
	err = nar.Write(tree, p.store.Physical(string(info.Path)))
	if err := errors.Join(err, enc.Close()); err != nil {
		return err
	}
	if got := nix.Hash(tree.hash.Sum(nil)); got != info.NarHash {
		return &nix.ChangedError{Path: info.Path, Store: p.store, Want: info.NarHash, Got: got}
	}
	sum := nix.Hash(file.hash.Sum(nil))
	info.FileHash, info.FileSize = &sum, file.size
	return f.Commit()
}

// measure counts and hashes what it passes on.
type measure struct {
	w    io.Writer
	hash hash.Hash
	size int64
	ctx  context.Context // of one write of a tree; nil if nothing can end it
}

func (m *measure) Write(b []byte) (int, error) {
	if m.ctx != nil {
		if err := context.Cause(m.ctx); err != nil {
			return 0, err
		}
	}
	n, err := m.w.Write(b)
	m.hash.Write(b[:n])
	m.size += int64(n)
	return n, err
}

// Info is what nix-cache-info says.
type Info struct {
	StoreDir string
}

// parseInfo reads nix-cache-info; keys that do not matter here are ignored.
func parseInfo(data []byte) (Info, error) {
	if len(data) > maxInfoSize {
		return Info{}, fmt.Errorf("longer than %d bytes", maxInfoSize)
	}
	info := Info{StoreDir: nix.StoreDir} // Nix's own default
	for line := range strings.Lines(string(data)) {
		key, value, ok := strings.Cut(strings.TrimSpace(line), ":")
		if !ok && key != "" {
			return Info{}, fmt.Errorf("line %.100q has no key", key)
		}
		if key == "StoreDir" {
			info.StoreDir = strings.TrimSpace(value)
		}
	}
	return info, nil
}
