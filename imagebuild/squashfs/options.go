package squashfs

import (
	"fmt"
	"runtime"

	"github.com/klauspost/compress/zstd"
)

// Level is a step of compression effort. The zero value is LevelDefault.
type Level int

// The four steps, from the quickest to the smallest image; the comment names
// the level of the zstd command that is nearest.
const (
	LevelDefault Level = iota // zstd -3
	LevelFastest              // zstd -1
	LevelBetter               // zstd -7
	LevelBest                 // zstd -11
)

// levels holds the name, encoder step and nearest zstd level of each Level.
var levels = [...]struct {
	name    string
	encoder zstd.EncoderLevel
	zstd    uint32
}{
	LevelDefault: {"default", zstd.SpeedDefault, 3},
	LevelFastest: {"fastest", zstd.SpeedFastest, 1},
	LevelBetter:  {"better", zstd.SpeedBetterCompression, 7},
	LevelBest:    {"best", zstd.SpeedBestCompression, 11},
}

// String returns the step's name: "default", "fastest", "better" or "best".
func (l Level) String() string {
	if l < 0 || int(l) >= len(levels) {
		return fmt.Sprintf("Level(%d)", int(l))
	}
	return levels[l].name
}

// Limits and default of Options.BlockSize, in bytes.
const (
	MinBlockSize     = 4 << 10
	MaxBlockSize     = 1 << 20
	DefaultBlockSize = 128 << 10
)

// DefaultMTime is the modification time of every inode unless Options says
// otherwise; it is what a Nix store gives its paths.
const DefaultMTime = 1

// Options says how Write lays out and compresses an image. The zero value is
// usable. Workers and Progress have no influence on the bytes of the image.
type Options struct {
	// BlockSize is the length of a data block in bytes, a power of two from
	// MinBlockSize to MaxBlockSize; 0 means DefaultBlockSize.
	BlockSize int
	// Level is the compression effort.
	Level Level
	// MTime is the modification time of every inode and of the image, in
	// seconds since 1970; 0 means DefaultMTime.
	MTime uint32
	// Workers is how many blocks are compressed at once; 0 means as many as
	// Go may use cores.
	Workers int
	// Progress is told how many bytes of the total file content are in the
	// image's pipeline. It is called from one goroutine at a time, at least
	// once, and the last call of a successful Write has done == total.
	Progress func(done, total int64)
}

// withDefaults returns o with every zero filled in, or an error that names the
// option that has no meaning.
func (o Options) withDefaults() (Options, error) {
	if o.BlockSize == 0 {
		o.BlockSize = DefaultBlockSize
	}
	if o.BlockSize < MinBlockSize || o.BlockSize > MaxBlockSize || o.BlockSize&(o.BlockSize-1) != 0 {
		return o, fmt.Errorf("block size %d: want a power of two from %d to %d", o.BlockSize, MinBlockSize, MaxBlockSize)
	}
	if o.Level < 0 || int(o.Level) >= len(levels) {
		return o, fmt.Errorf("compression level %d: want one of default, fastest, better, best", int(o.Level))
	}
	if o.MTime == 0 {
		o.MTime = DefaultMTime
	}
	if o.Workers < 0 {
		return o, fmt.Errorf("workers %d: want 0 (all cores) or more", o.Workers)
	}
	if o.Workers == 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = func(int64, int64) {}
	}
	return o, nil
}

// newEncoder returns an encoder for inputs of at most limit bytes. The kernel
// allocates a window of one block, so a frame may not ask for more.
func newEncoder(level Level, limit int) (*zstd.Encoder, error) {
	return zstd.NewWriter(nil,
		zstd.WithEncoderLevel(levels[level].encoder),
		zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(limit),
		zstd.WithSingleSegment(true),
		zstd.WithEncoderCRC(false),
	)
}
