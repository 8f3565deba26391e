package cpio

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// entry is what the tests compare: a header and its body.
type entry struct {
	Header
	Body string
}

// sample writes one entry of every kind that Writer knows.
func sample(tb testing.TB, w *Writer) {
	tb.Helper()
	for _, err := range []error{
		w.Dir("dev", 0o755),
		w.Device("dev/console", TypeChar|0o600, 5, 1),
		w.Device("dev/loop0", TypeBlock|0o660, 7, 0),
		w.File("init", 0o755, 5, strings.NewReader("hello")),
		w.Symlink("bin/sh", "/init"),
		w.File("lib/modules/6.1/empty.ko", 0o644, 0, strings.NewReader("")),
		w.Dir("tmp", 0o1777),
		w.File("lib/name with ä and \xff", 0o600, 4, strings.NewReader("0707")),
		w.Close(),
	} {
		if err != nil {
			tb.Fatal(err)
		}
	}
}

func readAll(r *Reader) ([]entry, error) {
	var all []entry
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		body, err := io.ReadAll(r)
		if err != nil {
			return all, err
		}
		all = append(all, entry{*h, string(body)})
	}
}

func TestWriteRead(t *testing.T) {
	t.Parallel()
	var buf bytes.Buffer
	sample(t, NewWriter(&buf))
	if buf.Len()%4 != 0 {
		t.Errorf("archive of %d bytes is not padded to a multiple of 4", buf.Len())
	}
	rest := strings.NewReader(buf.String() + "next")
	got, err := readAll(NewReader(rest))
	if err != nil {
		t.Fatal(err)
	}
	if rest.Len() != len("next") {
		t.Errorf("Reader left %d bytes behind the archive; want %d", rest.Len(), len("next"))
	}
	want := []entry{
		{Header{Name: "dev", Mode: TypeDir | 0o755, Ino: 1}, ""},
		{Header{Name: "dev/console", Mode: TypeChar | 0o600, Major: 5, Minor: 1, Ino: 2}, ""},
		{Header{Name: "dev/loop0", Mode: TypeBlock | 0o660, Major: 7, Ino: 3}, ""},
		{Header{Name: "init", Mode: TypeFile | 0o755, Size: 5, Ino: 4}, "hello"},
		{Header{Name: "bin", Mode: TypeDir | 0o755, Ino: 5}, ""},
		{Header{Name: "bin/sh", Mode: TypeSymlink | 0o777, Size: 5, Ino: 6}, "/init"},
		{Header{Name: "lib", Mode: TypeDir | 0o755, Ino: 7}, ""},
		{Header{Name: "lib/modules", Mode: TypeDir | 0o755, Ino: 8}, ""},
		{Header{Name: "lib/modules/6.1", Mode: TypeDir | 0o755, Ino: 9}, ""},
		{Header{Name: "lib/modules/6.1/empty.ko", Mode: TypeFile | 0o644, Ino: 10}, ""},
		{Header{Name: "tmp", Mode: TypeDir | 0o1777, Ino: 11}, ""},
		{Header{Name: "lib/name with ä and \xff", Mode: TypeFile | 0o600, Size: 4, Ino: 12}, "0707"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("archive read back (-want +got):\n%s", diff)
	}
}

func TestWriterIsDeterministic(t *testing.T) {
	t.Parallel()
	var a, b bytes.Buffer
	sample(t, NewWriter(&a))
	sample(t, NewWriter(&b))
	if !bytes.Equal(a.Bytes(), b.Bytes()) {
		t.Error("two archives of the same entries differ")
	}
}

type failing struct{ after int }

func (f *failing) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, errors.New("disk full")
	}
	return len(p), nil
}

func TestWriterRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxName)
	tests := []struct {
		name string
		do   func(w *Writer) error
		want string
	}{
		{"absolute", func(w *Writer) error { return w.Dir("/dev", 0o755) }, "relative path"},
		{"dot dot", func(w *Writer) error { return w.Symlink("a/../b", "c") }, "relative path"},
		{"dot", func(w *Writer) error { return w.Dir("./a", 0o755) }, "relative path"},
		{"empty part", func(w *Writer) error { return w.Dir("a//b", 0o755) }, "relative path"},
		{"empty", func(w *Writer) error { return w.Dir("", 0o755) }, "name of 0 bytes"},
		{"long", func(w *Writer) error { return w.Dir(long, 0o755) }, "name of 4096 bytes"},
		{"NUL", func(w *Writer) error { return w.Dir("a\x00b", 0o755) }, "NUL"},
		{"trailer", func(w *Writer) error { return w.Dir("TRAILER!!!", 0o755) }, "end of an archive"},
		{"short body", func(w *Writer) error { return w.File("a", 0o644, 3, strings.NewReader("ab")) }, "ended after 2 of 3"},
		{"long body", func(w *Writer) error { return w.File("a", 0o644, 1, strings.NewReader("ab")) }, "longer than the announced 1"},
		{"over 4 GiB", func(w *Writer) error { return w.File("a", 0o644, 1<<32, strings.NewReader("")) }, "at most 4294967295"},
		{"negative", func(w *Writer) error { return w.File("a", 0o644, -1, strings.NewReader("")) }, "size -1"},
		{"device mode", func(w *Writer) error { return w.Device("a", TypeFile|0o600, 1, 1) }, "neither a character nor a block"},
		{"empty target", func(w *Writer) error { return w.Symlink("a", "") }, "not a path"},
		{"twice", func(w *Writer) error {
			return errors.Join(w.Symlink("a", "b"), w.Symlink("a", "b"))
		}, "already written"},
		{"folder over file", func(w *Writer) error {
			return errors.Join(w.Symlink("a", "b"), w.Dir("a", 0o755))
		}, "already written as something else"},
		{"below a file", func(w *Writer) error {
			return errors.Join(w.Symlink("a", "b"), w.Dir("a/b", 0o755))
		}, "is not a folder"},
		{"after close", func(w *Writer) error { return errors.Join(w.Close(), w.Dir("a", 0o755)) }, "closed"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := NewWriter(io.Discard)
			err := test.do(w)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("got error %v; want one with %q", err, test.want)
			}
			if err := w.Close(); err == nil {
				t.Error("Close forgets the error of the archive")
			}
		})
	}
}

func TestWriterPassesErrorsOn(t *testing.T) {
	t.Parallel()
	var size failing
	size.after = 1 << 20
	sample(t, NewWriter(&size))
	total := 1<<20 - size.after
	for n := range total {
		w := NewWriter(&failing{after: n})
		w.Device("dev/console", TypeChar|0o600, 5, 1)
		w.File("init", 0o755, 5, strings.NewReader("hello"))
		w.Symlink("bin/sh", "/init")
		w.File("lib/modules/6.1/empty.ko", 0o644, 400, strings.NewReader(strings.Repeat("x", 400)))
		w.Dir("tmp", 0o1777)
		w.Dir("tmp2", 0o1777)
		if err := w.Close(); err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Fatalf("disk full after %d bytes: Close() = %v", n, err)
		}
	}
}
