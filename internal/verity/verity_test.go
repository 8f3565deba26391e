package verity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"xnodeos.org/internal/testkit"
)

func noise(blocks int) []byte {
	rng := rand.NewChaCha8(sha256.Sum256([]byte("verity")))
	b := make([]byte, blocks*BlockSize)
	rng.Read(b)
	return b
}

// TestVeritysetup holds tree and root against cryptsetup's program, at sizes
// around the borders of one, two and three levels.
func TestVeritysetup(t *testing.T) {
	salt := sha256.Sum256([]byte("salt"))
	for _, blocks := range []int{2, 127, 128, 129, 128*128 - 1, 128 * 128, 128*128 + 1} {
		data := noise(blocks)
		tree, got, err := Build(t.Context(), bytes.NewReader(data), int64(len(data)), salt)
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		image, hashes := filepath.Join(dir, "data"), filepath.Join(dir, "hash")
		if err := os.WriteFile(image, data, 0o600); err != nil {
			t.Fatal(err)
		}
		out := testkit.RunTool(t, "veritysetup", "format", "--no-superblock", "--hash=sha256", "--salt="+hex.EncodeToString(salt[:]), image, hashes)
		want, err := os.ReadFile(hashes)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("tree of %d blocks differs from veritysetup's: %d and %d bytes", blocks, len(got), len(want))
		}
		if !strings.Contains(out, hex.EncodeToString(tree.Root[:])) {
			t.Errorf("root of %d blocks = %x; veritysetup says:\n%s", blocks, tree.Root, out)
		}
		if Size(int64(blocks)) != int64(len(want)) {
			t.Errorf("Size(%d) = %d; want %d", blocks, Size(int64(blocks)), len(want))
		}
	}
}

func TestSameOnOneCore(t *testing.T) {
	data := noise(5000)
	first, a, err := Build(t.Context(), bytes.NewReader(data), int64(len(data)), [32]byte{})
	if err != nil {
		t.Fatal(err)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	second, b, err := Build(t.Context(), bytes.NewReader(data), int64(len(data)), [32]byte{})
	if err != nil || first != second || !bytes.Equal(a, b) {
		t.Errorf("the tree made on one core differs (%v)", err)
	}
}

func TestParams(t *testing.T) {
	tree := Tree{Root: [32]byte{1}, Salt: [32]byte{2}, DataBlocks: 3, Offset: 5 * BlockSize}
	want := "1 7:0 7:0 4096 4096 3 5 sha256 01" + strings.Repeat("00", 31) + " 02" + strings.Repeat("00", 31)
	if got := tree.Params("7:0"); got != want {
		t.Errorf("Params = %q; want %q", got, want)
	}
	if got := tree.Sectors(); got != 24 {
		t.Errorf("Sectors = %d; want 24", got)
	}
}

func TestBuildRefuses(t *testing.T) {
	for _, size := range []int64{0, 1, BlockSize, BlockSize + 1} {
		if _, _, err := Build(t.Context(), bytes.NewReader(noise(4)), size, [32]byte{}); err == nil {
			t.Errorf("Build took %d bytes", size)
		}
	}
	if _, _, err := Build(t.Context(), bytes.NewReader(noise(4)), 8*BlockSize, [32]byte{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Build of a short file = %v; want io.ErrUnexpectedEOF", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := Build(ctx, bytes.NewReader(noise(4)), 4*BlockSize, [32]byte{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Build with a cancelled context = %v; want context.Canceled", err)
	}
}
