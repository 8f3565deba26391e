// Package verity makes the hash tree that Linux's dm-verity checks a read-only
// device with, block by block as it is read (the kernel's
// Documentation/admin-guide/device-mapper/verity.rst, hash type 1), and writes
// the table that sets the device up.
//
// There is no superblock: offset, salt and root come from the manifest, which
// is trusted already. The package opens no device.
package verity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// BlockSize is the size of data and hash blocks in bytes: a page.
const BlockSize = 4096

const (
	hashSize = sha256.Size
	perBlock = BlockSize / hashSize
	// batch is how many hash blocks of the lowest level a worker makes at once.
	batch = 8
)

// Tree says where the hash tree of a device lies and what it must be.
type Tree struct {
	Root       [hashSize]byte
	Salt       [hashSize]byte
	DataBlocks int64 // blocks of data, from the device's start
	Offset     int64 // of the tree on the device, in bytes; a multiple of BlockSize
}

// Sectors is the length of the verified device, in sectors of 512 bytes.
func (t Tree) Sectors() uint64 { return uint64(t.DataBlocks) * BlockSize / 512 }

// Params are the parameters of a device-mapper table line with target
// "verity": data and hashes lie on the same device.
func (t Tree) Params(device string) string {
	return fmt.Sprintf("1 %s %s %d %d %d %d sha256 %s %s", device, device, BlockSize, BlockSize,
		t.DataBlocks, t.Offset/BlockSize, hex.EncodeToString(t.Root[:]), hex.EncodeToString(t.Salt[:]))
}

// levels returns how many hash blocks each level has, the lowest first.
func levels(dataBlocks int64) []int64 {
	var counts []int64
	for n := dataBlocks; n > 1 || len(counts) == 0; {
		n = (n + perBlock - 1) / perBlock
		counts = append(counts, n)
	}
	return counts
}

// Size is the length of the tree over that many data blocks, in bytes.
func Size(dataBlocks int64) int64 {
	var blocks int64
	for _, n := range levels(dataBlocks) {
		blocks += n
	}
	return blocks * BlockSize
}

// Build hashes the first size bytes of r, a multiple of BlockSize and more
// than one block, and returns the tree's bytes, to be put at offset size: the
// top level first, as the kernel expects. All cores hash; the bytes do not
// depend on their number.
func Build(ctx context.Context, r io.ReaderAt, size int64, salt [hashSize]byte) (Tree, []byte, error) {
	if size <= BlockSize || size%BlockSize != 0 {
		return Tree{}, nil, fmt.Errorf("verity: %d bytes are not a number of blocks of %d, at least two", size, BlockSize)
	}
	t := Tree{Salt: salt, DataBlocks: size / BlockSize, Offset: size}
	counts := levels(t.DataBlocks)
	bytes := make([]byte, Size(t.DataBlocks))
	// place cuts the tree into its levels, of which the last is the lowest.
	place := make([][]byte, len(counts))
	at := int64(0)
	for i := len(counts) - 1; i >= 0; i-- {
		place[i] = bytes[at : at+counts[i]*BlockSize]
		at += counts[i] * BlockSize
	}
	if err := hashData(ctx, r, t, place[0]); err != nil {
		return Tree{}, nil, fmt.Errorf("verity: %w", err)
	}
	for i := 1; i < len(place); i++ {
		hashBlocks(t.Salt, place[i-1], place[i])
	}
	var root [hashSize]byte
	hashBlocks(t.Salt, place[len(place)-1], root[:])
	t.Root = root
	return t, bytes, nil
}

// hashBlocks puts the hash of each block of data into out.
func hashBlocks(salt [hashSize]byte, data, out []byte) {
	h := sha256.New()
	for n := 0; n*BlockSize < len(data); n++ {
		h.Reset()
		h.Write(salt[:])
		h.Write(data[n*BlockSize:][:BlockSize])
		h.Sum(out[n*hashSize:][:0])
	}
}

// hashData fills the lowest level, some hash blocks at a time on each core.
func hashData(ctx context.Context, r io.ReaderAt, t Tree, level []byte) error {
	const data, hashes = batch * perBlock * BlockSize, batch * BlockSize
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() error {
			buf := make([]byte, data)
			for {
				n := next.Add(1) - 1
				from := n * data
				if from >= t.DataBlocks*BlockSize {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				part := buf[:min(data, t.DataBlocks*BlockSize-from)]
				if k, err := r.ReadAt(part, from); k < len(part) {
					if err == nil || errors.Is(err, io.EOF) {
						err = io.ErrUnexpectedEOF
					}
					return fmt.Errorf("read %d bytes at %d: %w", len(part), from, err)
				}
				hashBlocks(t.Salt, part, level[n*hashes:])
			}
		})
	}
	return group.Wait()
}
