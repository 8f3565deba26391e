package disk_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"xnodeos.org/internal/disk"
)

func at(offset int64, f disk.File) disk.Segment { return disk.Segment{File: f, Offset: offset} }

func lying(size int64, text string) disk.File {
	f := disk.Bytes("liar", []byte(text))
	f.Size = size
	return f
}

func TestImageIsWrittenInOnePass(t *testing.T) {
	t.Parallel()
	m := disk.Image{Size: 20, Segments: []disk.Segment{at(2, disk.Bytes("a", []byte("abc"))), at(5, disk.Bytes("none", nil)), at(10, disk.Bytes("b", []byte("xyz")))}}
	var out bytes.Buffer
	var last int64
	if err := m.Write(t.Context(), &out, func(done int64) { last = done }); err != nil {
		t.Fatal(err)
	}
	want := "\x00\x00abc\x00\x00\x00\x00\x00xyz\x00\x00\x00\x00\x00\x00\x00"
	if out.String() != want || last != 20 {
		t.Errorf("wrote %q with progress %d; want %q and 20", out.String(), last, want)
	}
}

func TestImageRefuses(t *testing.T) {
	t.Parallel()
	broken := errors.New("disk broke")
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, test := range map[string]struct {
		ctx  context.Context
		segs []disk.Segment
		want string
	}{
		"overlap":       {t.Context(), []disk.Segment{at(0, lying(3, "abc")), at(2, lying(3, "abc"))}, "do not fit behind 3"},
		"outside":       {t.Context(), []disk.Segment{at(8, lying(3, "abc"))}, "in 10 bytes"},
		"short file":    {t.Context(), []disk.Segment{at(0, lying(3, "ab"))}, `"liar": got 2 of 3 bytes: unexpected EOF`},
		"empty file":    {t.Context(), []disk.Segment{at(0, lying(3, ""))}, "unexpected EOF"},
		"longer file":   {t.Context(), []disk.Segment{at(0, lying(3, "abcd"))}, "longer than the 3 bytes"},
		"cannot open":   {t.Context(), []disk.Segment{at(0, disk.File{Name: "f", Size: 1, Open: func() (io.ReadCloser, error) { return nil, broken }})}, `"f": disk broke`},
		"was cancelled": {cancelled, []disk.Segment{at(0, lying(3, "abc"))}, "context canceled"},
	} {
		err := disk.Image{Size: 10, Segments: test.segs}.Write(test.ctx, io.Discard, nil)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: Write = %v; want an error with %q", name, err, test.want)
		}
	}
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

func TestImageSaysThatTheDiskIsFull(t *testing.T) {
	t.Parallel()
	err := disk.Image{Size: 10}.Write(t.Context(), full{}, nil)
	if err == nil || err.Error() != "write image at byte 0: no space left on device" {
		t.Errorf("Write = %v", err)
	}
}

func TestOpenRuns(t *testing.T) {
	t.Parallel()
	src := strings.NewReader("0123456789")
	r := disk.OpenRuns(src, []disk.Run{{Offset: 7, Size: 3}, {Offset: 0, Size: 0}, {Offset: 1, Size: 4}})
	got, err := io.ReadAll(r)
	if err != nil || string(got) != "7891234" {
		t.Errorf("ReadAll = %q, %v; want 7891234", got, err)
	}
	b := make([]byte, 3)
	if n, err := r.ReadAt(b, 2); n != 3 || err != nil || string(b) != "912" {
		t.Errorf("ReadAt(2) = %q, %v; want 912", b, err)
	}
	if n, err := r.ReadAt(b, 6); n != 1 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt(6) = %d, %v; want 1 and io.EOF", n, err)
	}
	if n, err := disk.OpenRuns(src, []disk.Run{{Offset: 8, Size: 5}, {Offset: 0, Size: 1}}).ReadAt(make([]byte, 6), 0); err == nil {
		t.Errorf("reading beyond the end gave %d bytes and no error", n)
	}
}
