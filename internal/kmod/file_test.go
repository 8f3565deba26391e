package kmod

import (
	"bytes"
	"compress/gzip"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

func compressed(tb testing.TB, ext string, data []byte) []byte {
	tb.Helper()
	var buf bytes.Buffer
	var w io.WriteCloser
	var err error
	switch ext {
	case ".ko":
		return data
	case ".ko.gz":
		w = gzip.NewWriter(&buf)
	case ".ko.xz":
		w, err = xz.NewWriter(&buf)
	case ".ko.zst":
		w, err = zstd.NewWriter(&buf)
	}
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.Bytes()
}

func TestDecompress(t *testing.T) {
	t.Parallel()
	want := module(t, "license=GPL", strings.Repeat("x", 100_000))
	for _, ext := range []string{".ko", ".ko.gz", ".ko.xz", ".ko.zst"} {
		packed := compressed(t, ext, want)
		got, err := Decompress("kernel/fs/a"+ext, packed)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("Decompress(%s) = %d bytes, %v; want %d", ext, len(got), err, len(want))
		}
		if ext == ".ko" {
			continue
		}
		for _, n := range []int{0, 3, len(packed) / 2, len(packed) - 1} {
			if got, err := Decompress("a"+ext, packed[:n]); err == nil {
				t.Errorf("Decompress(%s) cut after %d of %d bytes = %d bytes", ext, n, len(packed), len(got))
			}
		}
	}
}

func TestDecompressRefuses(t *testing.T) {
	t.Parallel()
	bomb := make([]byte, MaxModuleSize+1)
	copy(bomb, "\x7fELF")
	tests := []struct {
		name, path string
		data       []byte
		want       string
	}{
		{"no module", "a.ko", []byte("text"), "not an ELF file"},
		{"compressed text", "a.ko.zst", compressed(t, ".ko.zst", []byte("text")), "not an ELF file"},
		{"other suffix", "a.ko.lz4", module(t), `suffix ".lz4"; known are .ko`},
		{"too large", "a.ko", bomb, "more than the allowed 67108864 bytes"},
		{"bomb gz", "a.ko.gz", compressed(t, ".ko.gz", bomb), "more than the allowed"},
		{"bomb zst", "a.ko.zst", compressed(t, ".ko.zst", bomb), "more than the allowed"},
		{"bomb xz", "a.ko.xz", compressed(t, ".ko.xz", bomb), "more than the allowed"},
	}
	for _, test := range tests {
		got, err := Decompress(test.path, test.data)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), test.path) {
			t.Errorf("%s: Decompress = %d bytes, %v; want an error with %q", test.name, len(got), err, test.want)
		}
	}
}

func TestFirmware(t *testing.T) {
	t.Parallel()
	got, err := Firmware(module(t, "license=GPL", "firmware=tigon/tg3.bin", "parm=firmware=x", "firmware=", "firmware=tigon/tg357766.bin"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"tigon/tg3.bin", "tigon/tg357766.bin"}, got); diff != "" {
		t.Errorf("Firmware (-want +got):\n%s", diff)
	}
	if got, err := Firmware(module(t)); err != nil || len(got) != 0 {
		t.Errorf("Firmware of a module without = %q, %v", got, err)
	}
	for _, data := range [][]byte{nil, []byte("text"), module(t)[:70]} {
		if got, err := Firmware(data); err == nil {
			t.Errorf("Firmware of %d bytes of nonsense = %q", len(data), got)
		}
	}
}

func TestParams(t *testing.T) {
	t.Parallel()
	words := []string{"quiet", "mlx4_core.a=1", "mlx4-core.b", "mlx4_core.=x", "nvme.a=2", "mlx4_core.c=a b", "mlx4_core=3", "panic=-1"}
	if got, want := Params(words, "mlx4-core"), `a=1 b c="a b"`; got != want {
		t.Errorf("Params = %q; want %q", got, want)
	}
	if got := Params(words, "loop"); got != "" {
		t.Errorf("Params of a module that is not named = %q", got)
	}
}

func FuzzFirmware(f *testing.F) {
	f.Add(module(f, "firmware=a/b.bin", "license=GPL"))
	f.Fuzz(func(t *testing.T, data []byte) {
		names, err := Firmware(data)
		if err == nil && len(names) > len(data) {
			t.Fatalf("%d names in %d bytes", len(names), len(data))
		}
	})
}
