package cpio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// raw writes one entry as it stands, right or wrong.
func raw(name string, mode uint32, body string) string {
	return rawSized(name, mode, body, len(name)+1)
}

func rawSized(name string, mode uint32, body string, nameSize int) string {
	s := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		1, mode, 0, 0, 1, 0, len(body), 0, 0, 0, 0, nameSize, 0, name)
	s += strings.Repeat("\x00", int(pad4(int64(len(s)))))
	s += body
	return s + strings.Repeat("\x00", int(pad4(int64(len(s)))))
}

func end() string { return raw(trailer, 0, "") }

func TestReaderTakes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, in string
		want     []string
	}{
		{"nothing", end(), nil},
		{"root and dot slash", raw(".", TypeDir|0o755, "") + raw("./a", TypeFile, "x") + end(), []string{".", "a"}},
		{"upper-case hex", strings.ToUpper(raw("a", TypeFile, strings.Repeat("x", 0xAB)))[:110] +
			raw("a", TypeFile, strings.Repeat("x", 0xAB))[110:] + end(), []string{"a"}},
		{"with checksum", strings.Replace(raw("a", TypeFile, "x"), "070701", "070702", 1) + end(), []string{"a"}},
		{"hidden", raw("..a/...", TypeFile, "") + end(), []string{"..a/..."}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := readAll(NewReader(iotest.OneByteReader(strings.NewReader(test.in))))
			var names []string
			for _, e := range got {
				names = append(names, e.Name)
			}
			if err != nil || fmt.Sprint(names) != fmt.Sprint(test.want) {
				t.Errorf("got %q, %v; want %q", names, err, test.want)
			}
		})
	}
}

func TestReaderRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, in, want string }{
		{"empty", "", "no trailer"},
		{"no trailer", raw("a", TypeFile, "x"), "no trailer"},
		{"cut in the header", raw("a", TypeFile, "x")[:60], "no trailer"},
		{"cut in the body", raw("a", TypeFile, "xxxxxxxx")[:116], "unexpected EOF"},
		{"absolute", raw("/etc/passwd", TypeFile, "") + end(), "relative path"},
		{"parent", raw("a/../../b", TypeFile, "") + end(), "relative path"},
		{"parent alone", raw("..", TypeDir, "") + end(), "relative path"},
		{"twice dot slash", raw("././a", TypeFile, "") + end(), "relative path"},
		{"trailing slash", raw("a/", TypeDir, "") + end(), "relative path"},
		{"NUL within", rawSized("a\x00b", TypeFile, "", 4) + end(), "only NUL"},
		{"no NUL", rawSized("ab", TypeFile, "", 2) + end(), "only NUL"},
		{"empty name", raw("", TypeFile, "") + end(), "name of 1 bytes"},
		{"endless name", rawSized("a", TypeFile, "", 1<<30) + end(), "name of 1073741824 bytes"},
		{"folder with a body", raw("a", TypeDir, "x") + end(), "has a body"},
		{"no type", raw("a", 0o644, "") + end(), "no known file type"},
		{"empty link", raw("a", TypeSymlink, "") + end(), "symlink target of 0 bytes"},
		{"endless link", raw("a", TypeSymlink, strings.Repeat("x", 5000)) + end(), "symlink target of 5000 bytes"},
		{"trailer with a body", raw(trailer, 0, "x"), "trailer has a body"},
		{"old format", "070707" + end()[6:], "old portable"},
		{"no cpio", strings.Repeat("squashfs", 20), `magic "squash"`},
		{"signed number", "070701-0000001" + end()[14:], "not eight hex digits"},
		{"no number", "070701zzzzzzzz" + end()[14:], "not eight hex digits"},
		{"gzip", "\x1f\x8b\x08\x00\x00\x00\x00\x00", "compressed with gzip"},
		{"xz", "\xfd7zXZ\x00\x00\x04", "compressed with xz"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := NewReader(strings.NewReader(test.in))
			_, err := readAll(r)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got error %v; want one with %q", err, test.want)
			}
			if _, again := r.Next(); again == nil || errors.Is(again, io.EOF) {
				t.Errorf("Next after an error = %v", again)
			}
		})
	}
}

func TestReaderSaysCompressed(t *testing.T) {
	t.Parallel()
	_, err := NewReader(strings.NewReader("\x28\xb5\x2f\xfd\x00\x00\x00")).Next()
	if !errors.Is(err, ErrCompressed) || !strings.Contains(err.Error(), "zstd") {
		t.Errorf("Next on a zstd stream = %v; want ErrCompressed", err)
	}
	var format *FormatError
	_, err = NewReader(strings.NewReader(raw("/a", TypeFile, "") + end())).Next()
	if !errors.As(err, &format) || format.Name != "/a" || format.Offset != 0 {
		t.Errorf("Next on a bad name = %#v; want a FormatError that names it", err)
	}
}

func FuzzReader(f *testing.F) {
	var buf bytes.Buffer
	sample(f, NewWriter(&buf))
	f.Add(buf.Bytes())
	f.Add([]byte(raw("/etc/passwd", TypeFile, "x") + end()))
	f.Add([]byte(raw(".", TypeDir, "") + raw("./a", TypeFile, "body") + end()))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := readAll(NewReader(bytes.NewReader(data)))
		if err != nil {
			return
		}
		seen := map[string]bool{}
		var out bytes.Buffer
		w := NewWriter(&out)
		for _, e := range entries {
			if e.Name == "." || seen[e.Name] {
				continue
			}
			seen[e.Name] = true
			if e.Name[0] == '/' || strings.Contains("/"+e.Name+"/", "/../") {
				t.Fatalf("Reader lets %q through", e.Name)
			}
			if e.IsRegular() {
				if err := w.File(e.Name, e.Mode, e.Size, strings.NewReader(e.Body)); err != nil && !strings.Contains(err.Error(), "already") &&
					!strings.Contains(err.Error(), "is not a folder") {
					t.Fatalf("Writer refuses what Reader took: %v", err)
				} else if err != nil {
					return
				}
			}
		}
	})
}
