package xzhead

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"

	"github.com/ulikunitz/xz"
)

func TestDictionaryOfOurWriter(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1 << 16, 1 << 20, 8 << 20, 64 << 20} {
		var buf bytes.Buffer
		w, err := xz.WriterConfig{DictCap: size}.NewWriter(&buf)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("text")); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := Dictionary(buf.Bytes())
		if err != nil || got != int64(size) {
			t.Errorf("Dictionary = %d, %v; want %d", got, err, size)
		}
		for n := range 24 {
			if _, err := Dictionary(buf.Bytes()[:n]); err == nil {
				t.Errorf("Dictionary of the first %d bytes = %d, nil", n, got)
			}
		}
	}
}

// TestDictionaryOfXZ uses the real program, also with sizes in the header and
// with a filter in front of LZMA2.
func TestDictionaryOfXZ(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]int64{
		"--lzma2=dict=1MiB --check=crc32":         1 << 20,
		"--x86 --lzma2=dict=2MiB":                 2 << 20,
		"--lzma2=dict=1536MiB":                    1536 << 20,
		"-T2 --block-size=4096 --lzma2=dict=6MiB": 6 << 20,
	} {
		cmd := exec.CommandContext(t.Context(), "xz", append([]string{"-c"}, strings.Fields(args)...)...)
		cmd.Stdin = strings.NewReader(strings.Repeat("text", 10_000))
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("xz %s: %v; run scripts/setup", args, err)
		}
		got, err := Dictionary(out[:min(len(out), Size)])
		if err != nil || got != want {
			t.Errorf("xz %s: Dictionary = %d, %v; want %d", args, got, err, want)
		}
		if err := Check(out, want-1); err == nil || !strings.Contains(err.Error(), "allowed are") {
			t.Errorf("xz %s: Check below its size = %v", args, err)
		}
		if err := Check(out, want); err != nil {
			t.Errorf("xz %s: Check = %v", args, err)
		}
	}
	empty, err := exec.CommandContext(t.Context(), "sh", "-c", "xz -c </dev/null").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Dictionary(empty); err != nil || got != 0 {
		t.Errorf("an empty stream: %d, %v; want 0", got, err)
	}
}

func FuzzDictionary(f *testing.F) {
	f.Add([]byte("\xfd7zXZ\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x16\x00\x00\x00\x74\x2f\xe5\xa3"))
	f.Fuzz(func(t *testing.T, head []byte) {
		if got, err := Dictionary(head); err == nil && (got < 0 || got > 1<<32) {
			t.Fatalf("Dictionary = %d", got)
		}
	})
}
