package squashfs_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"xnodeos.org/imagebuild/squashfs"
)

// TestFileOver4GiB writes a file whose size needs the long inode. It is mostly
// a hole, so the image is tiny, and is read back through unsquashfs.
func TestFileOver4GiB(t *testing.T) {
	t.Parallel()
	const size = 4100<<20 + 12345
	marks := map[int64]string{0: "begin", 2<<30 + 7: "middle", 4<<30 - 3: "border", size - 3: "end"}
	name := filepath.Join(t.TempDir(), "big")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for at, text := range marks {
		if _, err := f.WriteAt([]byte(text), at); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil { // "end" is cut short: no block after it
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	image, stats := write(t, squashfs.Source{{Name: "big", Path: name}}, squashfs.Options{})
	if stats.Size > 64<<10 || stats.Blocks != 5 {
		t.Errorf("image has %d bytes and %d blocks; want at most 64 KiB and 5 blocks", stats.Size, stats.Blocks)
	}
	checkStream(t, image, "big", size, marks)
}

// checkStream fails the test unless unsquashfs -cat prints size bytes that are
// zeros except for the marks.
func checkStream(t *testing.T, image, name string, size int64, marks map[int64]string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "unsquashfs", "-cat", image, name)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v; run scripts/setup", err)
	}
	got, want := make([]byte, 1<<20), make([]byte, 1<<20)
	at := int64(0)
	for {
		n, err := io.ReadFull(out, got)
		clear(want)
		for mark, text := range marks {
			for i := range len(text) {
				if k := mark + int64(i) - at; k >= 0 && k < int64(len(want)) {
					want[k] = text[i]
				}
			}
		}
		if !bytes.Equal(got[:n], want[:n]) {
			t.Errorf("%s differs in the MiB at offset %d", name, at)
		}
		at += int64(n)
		if err != nil {
			break
		}
	}
	if err := cmd.Wait(); err != nil || at != size {
		t.Errorf("unsquashfs -cat %s: %d bytes, %v; want %d", name, at, err, size)
	}
}

// TestManyEntries writes 100,000 names into one folder: several metadata
// blocks of listing, an index, and inodes that lie in hundreds of blocks.
func TestManyEntries(t *testing.T) {
	t.Parallel()
	const count = 100_000
	nth := func(i int) (name, text string) {
		return fmt.Sprintf("%x-entry-%d", i*7919%count, i), fmt.Sprint(i % 1000)
	}
	var src squashfs.Source
	var want []string
	for i := range count {
		name, text := nth(i)
		want = append(want, "/"+name)
		src = append(src, squashfs.Entry{Name: name, Data: []byte(text)})
	}
	checkMany(t, src, want, nth)
}

// TestManyFilesOnDisk does the same with files of the host.
func TestManyFilesOnDisk(t *testing.T) {
	t.Parallel()
	count := 3_000
	if full() {
		count = 100_000
	}
	nth := func(i int) (name, text string) {
		return fmt.Sprintf("many/%x-entry-%d", i*7919%count, i), fmt.Sprint(i % 1000)
	}
	dir := t.TempDir()
	want := []string{"/many"}
	for i := range count {
		name, text := nth(i)
		want = append(want, "/"+name)
		put(t, dir, name, []byte(text), 0o444)
	}
	checkMany(t, tree(t, dir), want, nth)
}

// checkMany writes src, whose paths in the image are want, and looks for them
// and for some of the texts that nth gives.
func checkMany(t *testing.T, src squashfs.Source, want []string, nth func(int) (name, text string)) {
	t.Helper()
	image, stats := write(t, src, squashfs.Options{})
	if stats.Duplicates != stats.Files-1000 {
		t.Errorf("%d of %d files are duplicates; want all but 1000", stats.Duplicates, stats.Files)
	}
	var got []string
	lines := bufio.NewScanner(bytes.NewReader(unsquashfs(t, "-ls", "-dest", "", image)))
	for lines.Scan() {
		if lines.Text() != "" { // the root
			got = append(got, lines.Text())
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("listing has %d entries that are not the %d written ones", len(got), len(want))
	}
	for i := 0; i < stats.Files; i += stats.Files / 7 {
		name, text := nth(i)
		if data := unsquashfs(t, "-cat", image, name); string(data) != text {
			t.Errorf("%s reads %q, want %q", name, data, text)
		}
	}
}
