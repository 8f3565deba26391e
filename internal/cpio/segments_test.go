package cpio

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

func archive(tb testing.TB, names ...string) string {
	tb.Helper()
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for _, name := range names {
		if err := w.File(name, 0o644, int64(len(name)), strings.NewReader(name)); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.String()
}

func compress(tb testing.TB, format, in string) string {
	tb.Helper()
	var buf bytes.Buffer
	var w io.WriteCloser
	var err error
	switch format {
	case "zstd":
		w, err = zstd.NewWriter(&buf, zstd.WithEncoderCRC(len(in)%2 == 0))
	case "gzip":
		w = gzip.NewWriter(&buf)
	case "xz":
		w, err = xz.NewWriter(&buf)
	}
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := io.WriteString(w, in); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return buf.String()
}

func zeros(n int) string { return strings.Repeat("\x00", n) }

// aligned adds zeros up to a multiple of 4, as the builder of an initrd does.
func aligned(s string) string { return s + zeros(int(pad4(int64(len(s))))) }

// outline reads an initrd and says what is in it, one line an archive.
func outline(in string, skip bool) ([]string, error) {
	i := NewInitrd(strings.NewReader(in))
	var lines []string
	var segments []*Segment
	for {
		s, r, err := i.Next()
		if errors.Is(err, io.EOF) {
			for n, s := range segments {
				lines[n] = fmt.Sprintf("%d+%d %s%s", s.Offset, s.Size, s.Compression, lines[n])
			}
			return lines, nil
		}
		if err != nil {
			return lines, err
		}
		segments = append(segments, s)
		line := ""
		if !skip {
			entries, err := readAll(r)
			if err != nil {
				return lines, err
			}
			for _, e := range entries {
				if e.Name != e.Body {
					return lines, fmt.Errorf("%q holds %q", e.Name, e.Body)
				}
				line += " " + e.Name
			}
		}
		lines = append(lines, line)
	}
}

func TestInitrd(t *testing.T) {
	t.Parallel()
	a, b, c := archive(t, "a"), archive(t, "b", "bb"), archive(t, "c", strings.Repeat("c", 300))
	cc := " c " + strings.Repeat("c", 300)
	for _, format := range []string{"zstd", "gzip", "xz"} {
		za, zab := compress(t, format, a), compress(t, format, a+zeros(512)+b)
		tests := []struct {
			name, in string
			want     []string
		}{
			{"plain", a, []string{fmt.Sprintf("0+%d  a", len(a))}},
			{"two plain", a + zeros(4) + b, []string{fmt.Sprintf("0+%d  a", len(a)), fmt.Sprintf("%d+%d  b bb", len(a)+4, len(b))}},
			{"compressed", za, []string{fmt.Sprintf("0+%d %s a", len(za), format)}},
			{"compressed and plain", aligned(za) + c + zeros(508),
				[]string{fmt.Sprintf("0+%d %s a", len(za), format), fmt.Sprintf("%d+%d %s", len(aligned(za)), len(c), cc)}},
			{"plain and compressed", a + zeros(3) + za, []string{fmt.Sprintf("0+%d  a", len(a)), fmt.Sprintf("%d+%d %s a", len(a)+3, len(za), format)}},
			{"two in one stream", aligned(zab) + c, []string{fmt.Sprintf("0+%d %s a", len(zab), format),
				fmt.Sprintf("0+%d %s b bb", len(zab), format), fmt.Sprintf("%d+%d %s", len(aligned(zab)), len(c), cc)}},
			{"compressed twice, nothing between", za + za, []string{fmt.Sprintf("0+%d %s a", len(za), format),
				fmt.Sprintf("%d+%d %s a", len(za), len(za), format)}},
			{"nothing", "", nil},
			{"zeros", zeros(100), nil},
		}
		for _, test := range tests {
			t.Run(format+" "+test.name, func(t *testing.T) {
				t.Parallel()
				got, err := outline(test.in, false)
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				skipped, err := outline(test.in, true)
				if err != nil || len(skipped) != len(test.want) {
					t.Errorf("without reading the bodies: %q, %v; want %d archives", skipped, err, len(test.want))
				}
			})
		}
	}
}

func TestInitrdRefuses(t *testing.T) {
	t.Parallel()
	a := archive(t, "a")
	za, gz, xzA := compress(t, "zstd", a), compress(t, "gzip", a), compress(t, "xz", a)
	damaged := []byte(compress(t, "gzip", a))
	damaged[len(damaged)-6] ^= 1
	tests := []struct{ name, in, want string }{
		{"plain not aligned", a + "\x00" + a, "multiple of 4"},
		{"junk after", a + "junkjunk", `magic "junkju"`},
		{"junk after compressed", za + "junkjunk", "magic"},
		{"junk within", compress(t, "zstd", a+"junk"), "junk after an archive"},
		{"not aligned within", compress(t, "xz", a+"\x00"+a), "junk after an archive"},
		{"empty stream", compress(t, "gzip", ""), "holds no archive"},
		{"no cpio within", compress(t, "gzip", "squashfs"), "junk"},
		{"cut", za[:len(za)-3], "unexpected EOF"},
		{"cut gzip", gz[:len(gz)-3], "unexpected EOF"},
		{"cut gzip between", gz[:len(gz)-8], "unexpected EOF"},
		{"cut xz", xzA[:len(xzA)-3], "unexpected EOF"},
		{"cut xz between", xzA[:len(xzA)-12], "unexpected EOF"},
		{"wrong checksum", string(damaged), "checksum"},
		{"lz4", "\x02\x21\x4c\x18" + a, "lz4 stream at byte 0: this format is not read here"},
		{"window too large", "\x28\xb5\x2f\xfd\x00\xa0\x01\x00\x00", "window size"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := outline(test.in, false)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %q and error %v; want an error with %q", got, err, test.want)
			}
		})
	}
}

func FuzzInitrd(f *testing.F) {
	a := archive(f, "a")
	for _, format := range []string{"zstd", "gzip", "xz"} {
		f.Add([]byte(aligned(compress(f, format, a)) + a))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		i := NewInitrd(bytes.NewReader(data))
		end := int64(0)
		for range 1000 {
			s, _, err := i.Next()
			if err != nil {
				break
			}
			if s.Offset < 0 || s.Offset > int64(len(data)) || s.Offset < end {
				t.Fatalf("segment at %d of a file of %d bytes, after %d", s.Offset, len(data), end)
			}
			end = s.Offset
		}
	})
}
