package ext4_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/ext4"
	"xnodeos.org/internal/testkit"
)

var testOptions = ext4.Options{
	UUID:     [16]byte{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0x4d, 0xef, 0x81, 0x23, 1, 2, 3, 4, 5, 6},
	HashSeed: [16]byte{9, 8, 7, 6, 5, 4, 3, 2, 1, 1, 2, 3, 4, 5, 6, 7},
	Label:    "XNODE-STATE", Time: 1_790_000_000,
}

// makeFS writes a file system into a sparse file that holds something else
// before: old blocks must not shine through.
func makeFS(t *testing.T, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fs")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	noise := make([]byte, min(size, 24<<20))
	for i := range noise {
		noise[i] = byte(i*7 + i>>8)
	}
	if _, err := f.WriteAt(noise, 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := ext4.Write(f, size, testOptions); err != nil {
		t.Fatal(err)
	}
	return name
}

// check runs e2fsck over it, which must find nothing at all.
func check(t *testing.T, name string) {
	t.Helper()
	for line := range strings.Lines(testkit.RunTool(t, "e2fsck", "-f", "-n", name)) {
		if !strings.HasPrefix(line, "Pass ") && !strings.HasPrefix(line, "e2fsck ") && !strings.HasPrefix(line, "XNODE-STATE: 11/") {
			t.Errorf("e2fsck says %q", line)
		}
	}
}

// Sizes at which something changes: journals, copies of the superblock, a last
// group that is too small, more descriptors than a block, beyond 1 TiB.
func TestCheckedByE2fsck(t *testing.T) {
	t.Parallel()
	const mib, group = 1 << 20, 128 << 20
	sizes := []int64{
		ext4.MinSize, ext4.MinSize + 4095, 64 * mib, 100*mib + 512, group - 4096, group, group + 4096, group + 1040*1024, group + 1500*1024,
		group + 2*mib, 2 * group, 3*group + 5*mib, 8*group - 4096, 8 * group, 9*group + 77*4096, 64 * group, 64*group + 4*mib,
		10_000_000_000, 50 * 128 * group, 1 << 40, 1<<40 + 3*mib + 17, 3<<40 + 12345*4096,
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		sizes = append(sizes, ext4.MinSize+r.Int64N(1<<(26+r.IntN(10))))
	}
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			name := makeFS(t, size)
			check(t, name)
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			got, ok, err := ext4.ReadHead(f)
			if err != nil || !ok {
				t.Fatalf("ReadHead = %v, %v", ok, err)
			}
			if got.Size > size || got.Size < size-(3<<20) {
				t.Errorf("size %d of %d bytes", got.Size, size)
			}
			want := ext4.Head{UUID: testOptions.UUID, Label: "XNODE-STATE", Size: got.Size, Journal: true}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("ReadHead (-want +got):\n%s", diff)
			}
		})
	}
}

// Other programs write into it, and e2fsck still finds nothing.
func TestFilled(t *testing.T) {
	t.Parallel()
	name := makeFS(t, 300<<20)
	big := filepath.Join(t.TempDir(), "big")
	if err := os.WriteFile(big, bytes.Repeat([]byte("0123456789abcdef"), 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	for i := range 12 {
		fmt.Fprintf(&script, "mkdir dir%d\nwrite %s dir%d/big\n", i, big, i)
	}
	commands := filepath.Join(t.TempDir(), "commands")
	if err := os.WriteFile(commands, []byte(script.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.RunTool(t, "debugfs", "-w", "-f", commands, name)
	if out := testkit.RunTool(t, "e2fsck", "-f", "-n", name); !strings.Contains(out, "XNODE-STATE: 35/") {
		t.Errorf("e2fsck -f -n: %s; want 35 files", out)
	}
}

// What the tools of ext4 say of it, where e2fsck has no opinion.
func TestFeatures(t *testing.T) {
	t.Parallel()
	name := makeFS(t, 1<<30)
	out := testkit.RunTool(t, "dumpe2fs", "-h", name)
	for _, want := range []string{
		"Filesystem volume name:   XNODE-STATE", "has_journal", "extent 64bit", "metadata_csum", "Filesystem state:         clean",
		"Errors behavior:          Remount read-only", "Journal inode:            8", "Checksum type:            crc32c",
		"Total journal size:       64M", "Maximum mount count:      -1",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("dumpe2fs does not say %q:\n%s", want, out)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	t.Parallel()
	long := testOptions
	long.Label = strings.Repeat("x", 17)
	old := testOptions
	old.Time = -1
	for name, tt := range map[string]struct {
		size int64
		o    ext4.Options
	}{
		"small": {ext4.MinSize - 1, testOptions}, "large": {ext4.MaxSize + 1, testOptions}, "negative": {-1, testOptions},
		"label": {ext4.MinSize, long}, "time": {ext4.MinSize, old}, "no uuid": {ext4.MinSize, ext4.Options{}},
	} {
		if err := ext4.Write(nowhere{}, tt.size, tt.o); err == nil {
			t.Errorf("%s: Write took it", name)
		}
	}
	if err := ext4.Write(nowhere{}, ext4.MinSize, testOptions); err == nil {
		t.Error("Write hides that nothing can be written")
	}
}

type nowhere struct{}

func (nowhere) WriteAt([]byte, int64) (int, error) { return 0, io.ErrShortWrite }

// The same options give the same bytes.
func TestDeterministic(t *testing.T) {
	t.Parallel()
	var images [2][]byte
	for i := range images {
		var err error
		if images[i], err = os.ReadFile(makeFS(t, 40<<20)); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(images[0], images[1]) {
		t.Error("two file systems with the same options differ")
	}
}

func FuzzReadHead(f *testing.F) {
	name := filepath.Join(f.TempDir(), "fs")
	file, err := os.Create(name)
	if err != nil {
		f.Fatal(err)
	}
	if err := ext4.Write(file, ext4.MinSize, testOptions); err != nil {
		f.Fatal(err)
	}
	seed := make([]byte, 2048)
	if _, err := file.ReadAt(seed, 0); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add(seed[:1100])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		h, ok, err := ext4.ReadHead(bytes.NewReader(data))
		if err != nil || ok && (h.Size < 0 || len(h.Label) > 16) {
			t.Errorf("ReadHead = %+v, %v, %v", h, ok, err)
		}
	})
}
