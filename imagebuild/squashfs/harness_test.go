package squashfs_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/imagebuild/squashfs"
)

// full reports whether the test run was asked to take its time.
func full() bool { return os.Getenv("XNODE_FULL") == "1" }

// unsquashfs runs the tool that all proofs rest on: an implementation of the
// format that shares nothing with ours.
func unsquashfs(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "unsquashfs", args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("unsquashfs %v: %v; %s%s(if it is missing: run scripts/setup)", args, err, out, &stderr)
	}
	return out
}

// write writes src to a new file and returns its name.
func write(t *testing.T, src squashfs.Source, opt squashfs.Options) (string, squashfs.Stats) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "image.squashfs")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	stats, err := squashfs.Write(t.Context(), f, src, opt)
	if err != nil {
		t.Fatalf("Write: %v", err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != stats.Size || stats.Size%4096 != 0 {
		t.Errorf("image has %d bytes, Stats says %d; want the same multiple of 4096", info.Size(), stats.Size)
	}
	return name, stats
}

// extract unpacks an image into a new folder.
func extract(t *testing.T, image string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "root")
	unsquashfs(t, "-no-progress", "-quiet", "-dest", dir, image)
	t.Cleanup(func() { makeRemovable(dir) })
	return dir
}

// makeRemovable gives the owner of the folders below dir what removing needs.
func makeRemovable(dir string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(path, 0o755)
		}
		return nil
	})
}

func tree(t *testing.T, dir string) squashfs.Source {
	t.Helper()
	src, err := squashfs.Tree(dir)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// snapshot describes all that is below dir: type, permissions and content, by
// quoted path.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode := info.Mode()
		if os.Geteuid() != 0 {
			mode &^= fs.ModeSetuid // unsquashfs leaves it out; TestListing sees it
		}
		text := fmt.Sprintf("%v %v", mode, info.ModTime().Unix())
		switch {
		case info.Mode().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			text += fmt.Sprintf(" %d %x", len(data), sha256.Sum256(data))
		case info.Mode()&fs.ModeSymlink != 0:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			text = "link to " + target // a link's time is the extractor's business
		}
		found[fmt.Sprintf("%q", path[len(dir)+1:])] = text
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// withTime returns what snapshot says of the same tree once every file and
// folder has the image's time.
func withTime(t *testing.T, dir string, seconds int64) map[string]string {
	t.Helper()
	found := snapshot(t, dir)
	for name, text := range found {
		var mode, rest string
		var old int64
		if n, _ := fmt.Sscanf(text, "%s %d", &mode, &old); n == 2 {
			rest = text[len(mode)+1+len(fmt.Sprint(old)):]
			found[name] = fmt.Sprintf("%s %d%s", mode, seconds, rest)
		}
	}
	return found
}

// checkExtracted fails the test unless the image holds what dir does.
func checkExtracted(t *testing.T, image, dir string) {
	t.Helper()
	if diff := cmp.Diff(withTime(t, dir, squashfs.DefaultMTime), snapshot(t, extract(t, image))); diff != "" {
		t.Errorf("extracted tree differs (-source +image):\n%s", diff)
	}
}

// hashOf returns the hash of the image that Write makes of src.
func hashOf(ctx context.Context, t *testing.T, src squashfs.Source, opt squashfs.Options) [32]byte {
	t.Helper()
	var sink memory
	if _, err := squashfs.Write(ctx, &sink, src, opt); err != nil {
		t.Fatalf("Write: %v", err)
	}
	return sha256.Sum256(sink.data)
}

// memory is a sink that remembers what it got, and fails once it holds limit
// bytes if limit is not 0.
type memory struct {
	data  []byte
	limit int
}

func (m *memory) WriteAt(p []byte, at int64) (int, error) {
	end := int(at) + len(p)
	if m.limit > 0 && end > m.limit {
		return 0, errFull
	}
	if end > len(m.data) {
		m.data = append(m.data, make([]byte, end-len(m.data))...)
	}
	return copy(m.data[at:], p), nil
}

// put writes a file below dir, with the folders above it.
func put(t *testing.T, dir, name string, data []byte, perm fs.FileMode) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, perm); err != nil {
		t.Fatal(err)
	}
}
