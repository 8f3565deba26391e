package squashfs_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"xnodeos.org/imagebuild/squashfs"
)

var errFull = errors.New("no space left")

// check fails the test unless err says all of the words.
func check(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", words)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("error %q does not say %q", err, word)
		}
	}
}

func TestUnsuitableSource(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "file", []byte("x"), 0o444)
	special := filepath.Join(dir, "special")
	if err := os.Mkdir(special, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(special, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		name  string
		src   squashfs.Source
		opt   squashfs.Options
		words []string
	}{
		{"fifo", squashfs.Source{{Name: "x", Path: special}}, squashfs.Options{}, []string{filepath.Join(special, "pipe"), "fifo"}},
		{"socket", squashfs.Source{{Name: "x", Path: socket}}, squashfs.Options{}, []string{socket, "socket"}},
		{"device", squashfs.Source{{Name: "x", Path: "/dev/null"}}, squashfs.Options{}, []string{"/dev/null", "character device"}},
		{"missing", squashfs.Source{{Name: "x", Path: dir + "/none"}}, squashfs.Options{}, []string{dir + "/none", "no such file"}},
		{"two of a name", squashfs.Source{{Name: "x"}, {Name: "x"}}, squashfs.Options{}, []string{`"x"`, "two entries"}},
		{"no name", squashfs.Source{{Path: dir}}, squashfs.Options{}, []string{"one path component"}},
		{"slash", squashfs.Source{{Name: "a/b"}}, squashfs.Options{}, []string{`"a/b"`, "one path component"}},
		{"dots", squashfs.Source{{Name: ".."}}, squashfs.Options{}, []string{`".."`}},
		{"long name", squashfs.Source{{Name: strings.Repeat("n", 256)}}, squashfs.Options{}, []string{"256 bytes", "255"}},
		{"block size", nil, squashfs.Options{BlockSize: 5000}, []string{"5000", "power of two"}},
		{"small blocks", nil, squashfs.Options{BlockSize: 2048}, []string{"2048", "4096"}},
		{"level", nil, squashfs.Options{Level: 9}, []string{"9", "best"}},
		{"workers", nil, squashfs.Options{Workers: -1}, []string{"-1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var sink memory
			_, err := squashfs.Write(t.Context(), &sink, c.src, c.opt)
			check(t, err, c.words...)
			if len(sink.data) > 0 {
				t.Errorf("%d bytes were written before the error", len(sink.data))
			}
		})
	}
}

// TestChangingSource changes a file after the walk and before it is read:
// Progress is first called between the two, and a file that comes after
// 80 others is not read ahead by then.
func TestChangingSource(t *testing.T) {
	for _, size := range []int{1000, 3 << 20} {
		for _, c := range []struct {
			name   string
			change func(path string) error
			word   string
		}{
			{"vanishes", os.Remove, "no such file"},
			{"shrinks", func(path string) error { return os.Truncate(path, int64(size)-1) }, "shorter"},
			{"grows", func(path string) error { return os.Truncate(path, int64(size)+1) }, "grew"},
			{"becomes a fifo", func(path string) error {
				return errors.Join(os.Remove(path), syscall.Mkfifo(path, 0o600))
			}, "shorter"},
			{"becomes a folder", func(path string) error {
				return errors.Join(os.Remove(path), os.Mkdir(path, 0o700))
			}, "is a directory"},
			{"becomes a link", func(path string) error {
				return errors.Join(os.Remove(path), os.Symlink("f0000", path))
			}, "symbolic links"},
		} {
			t.Run(fmt.Sprintf("%s/%d", c.name, size), func(t *testing.T) {
				dir := t.TempDir()
				for i := range 80 {
					put(t, dir, fmt.Sprintf("f%04d", i), fmt.Append(nil, i), 0o644)
				}
				victim := filepath.Join(dir, "victim")
				put(t, dir, "victim", noise(uint64(size), size), 0o644)
				var failed error
				changed := false
				_, err := squashfs.Write(t.Context(), &memory{}, tree(t, dir), squashfs.Options{Workers: 1, Progress: func(int64, int64) {
					if !changed {
						changed, failed = true, c.change(victim)
					}
				}})
				if failed != nil {
					t.Fatal(failed)
				}
				check(t, err, victim, c.word)
			})
		}
	}
}

func TestSinkFails(t *testing.T) {
	src := squashfs.Source{{Name: "noise", Data: noise(5, 3<<20)}}
	for _, limit := range []int{100, 1 << 20, 3 << 20} {
		_, err := squashfs.Write(t.Context(), &memory{limit: limit}, src, squashfs.Options{})
		check(t, err, "write image")
		if !errors.Is(err, errFull) {
			t.Errorf("limit %d: error %v hides the sink's own", limit, err)
		}
	}
}

func TestCancel(t *testing.T) {
	dir := t.TempDir()
	populate(t, dir, 5, 120)
	put(t, dir, "zz-large", noise(6, 8<<20), 0o644)
	before := runtime.NumGoroutine()
	for percent := int64(0); percent < 100; percent += 20 {
		ctx, cancel := context.WithCancel(t.Context())
		_, err := squashfs.Write(ctx, &memory{}, tree(t, dir), squashfs.Options{Progress: func(done, total int64) {
			if done*100 >= total*percent {
				cancel()
			}
		}})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled at %d %%: error is %v", percent, err)
		}
	}
	// A goroutine that has done its last step is counted until it is gone.
	after := runtime.NumGoroutine()
	for wait := 0; after > before && wait < 200; wait++ {
		time.Sleep(10 * time.Millisecond)
		after = runtime.NumGoroutine()
	}
	if after > before {
		t.Errorf("%d goroutines are left, %d were there before", after, before)
	}
}

func TestProgress(t *testing.T) {
	dir := t.TempDir()
	populate(t, dir, 8, 200)
	put(t, dir, "zz-large", noise(6, 3<<20), 0o644)
	put(t, dir, "zz-large-again", noise(6, 3<<20), 0o644)
	var last, total int64 = -1, 0
	_, stats := write(t, tree(t, dir), squashfs.Options{Progress: func(done, of int64) {
		if done < last {
			t.Errorf("progress goes back from %d to %d", last, done)
		}
		last, total = done, of
	}})
	if last != total || total != stats.ContentBytes {
		t.Errorf("progress ended with %d of %d; want %d", last, total, stats.ContentBytes)
	}
}
