package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"xnodeos.org/internal/mirror"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/narinfo"
)

// memory is a cache of one file, which may stop for a while at a byte or break
// off there a number of times.
type memory struct {
	data    []byte
	breaks  int // answers that end too early
	every   int // after so many bytes
	silence time.Duration
	asked   *int
}

func (m memory) open(ctx context.Context, _ string, from int64) (*answer, error) {
	*m.asked++
	part := m.data[min(from, int64(len(m.data))):]
	var r io.Reader = bytes.NewReader(part)
	if *m.asked <= m.breaks {
		r = io.MultiReader(bytes.NewReader(part[:min(m.every, len(part))]), &silent{ctx, m.silence})
	}
	return &answer{body: io.NopCloser(r), from: from, size: int64(len(m.data))}, nil
}

// silent says nothing for a time, then breaks.
type silent struct {
	ctx   context.Context
	quiet time.Duration
}

func (s *silent) Read([]byte) (int, error) {
	if sleep(s.ctx, s.quiet) {
		return 0, io.ErrUnexpectedEOF
	}
	return 0, context.Cause(s.ctx)
}

func setOf(m memory, o Options) (*Set, *member) {
	if o.Clock == nil {
		begun := time.Now()
		o.Clock = func() time.Duration { return time.Since(begun) }
	}
	o.Jitter = func() float64 { return 0.5 }
	s := NewSet([]*Cache{{name: "memory", source: m}}, o)
	return s, s.members[0]
}

func pattern(n int) []byte {
	data := make([]byte, n)
	for i := range data {
		data[i] = byte(i * i >> 8)
	}
	return data
}

// TestStreamGoesOn: breaks and silence at any byte cost a request each, and
// nothing else; the pauses grow.
func TestStreamGoesOn(t *testing.T) {
	t.Parallel()
	data := pattern(200_000)
	for _, every := range []int{1, 4095, 4096, 70_001, 199_999} {
		synctest.Test(t, func(t *testing.T) {
			asked := 0
			s, m := setOf(memory{data: data, breaks: 4, every: every, silence: time.Hour, asked: &asked}, Options{StallTimeout: 10 * time.Second})
			begun := time.Now()
			got, err := s.file(t.Context(), m, "x", 1<<20)
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("cut every %d bytes: %d bytes, %v", every, len(got), err)
			}
			report := s.Reports()[0]
			if asked != 5 && every < 100_000 || report.Dropped || len(report.Faults) == 0 || report.Faults[0].Kind != mirror.Stalled {
				t.Errorf("cut every %d bytes: %d requests, %v", every, asked, report)
			}
			if took := time.Since(begun); took < 10*time.Second || took > 2*time.Minute {
				t.Errorf("cut every %d bytes: it took %v", every, took)
			}
		})
	}
}

// TestStreamGivesUp: a cache that never brings more is dropped after so many tries.
func TestStreamGivesUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s, m := setOf(memory{data: pattern(1000), breaks: 1 << 30, every: 1, asked: &asked}, Options{Tries: 5})
		_, err := s.file(t.Context(), m, "x", 1<<20)
		var fault *mirror.Fault
		if !errors.As(err, &fault) || fault.Kind != mirror.CutOff || asked != 5 || !s.Reports()[0].Dropped {
			t.Errorf("after %d requests: %v, %v", asked, err, s.Reports())
		}
		if text := s.Reports()[0].String(); !strings.Contains(text, "memory: cut off 5 times") || !strings.Contains(text, "not asked again") {
			t.Errorf("the report is %q", text)
		}
	})
}

// TestSlowReaderIsNoStall: whoever takes the bytes may take his time.
func TestSlowReaderIsNoStall(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		s, m := setOf(memory{data: pattern(100), asked: &asked}, Options{StallTimeout: time.Second})
		r := s.stream(t.Context(), m, "x", 1000)
		defer r.Close()
		var p [1]byte
		for {
			if _, err := r.Read(p[:]); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Minute)
		}
		if len(s.Reports()[0].Faults) > 0 {
			t.Error(s.Reports())
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "ftp://192.0.2.1/", "http://", "http://user:secret@192.0.2.1/", "https://192.0.2.1/?token=x", "file://host/x", "file:///x#y", "http:// x/",
	} {
		if c, err := Open(text, nil); err == nil {
			t.Errorf("Open(%q) = %v", text, c)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q): the error shows the password: %v", text, err)
		}
	}
	for _, text := range []string{"http://192.0.2.1", "https://cache.example.org/sub/", "file:///srv/cache", "relative/folder"} {
		if _, err := Open(text, nil); err != nil {
			t.Errorf("Open(%q): %v", text, err)
		}
	}
}

// canned answers every request with one response.
type canned http.Response

func (c *canned) RoundTrip(req *http.Request) (*http.Response, error) {
	resp := http.Response(*c)
	resp.Request, resp.Body = req, http.NoBody
	return &resp, nil
}

// TestServer: what a server does not have is told from what it does wrong, and
// one that ignores Range gives the file from its first byte.
func TestServer(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status int
		header string // Content-Range
		from   int64
		want   string // kind of fault, "missing", or first byte and size
	}{
		{200, "", 0, "0 7"},
		{200, "", 5, "0 7"},
		{206, "bytes 5-6/7", 5, "5 7"},
		{206, "bytes 5-6/*", 5, "5 -1"},
		{206, "bytes 4-6/7", 5, "wrong range"},
		{404, "", 0, "missing"}, {403, "", 0, "missing"}, {410, "", 0, "missing"}, {404, "", 5, "missing"},
		{416, "", 5, "wrong file"}, {503, "", 0, "busy"}, {401, "", 0, "refused"},
	} {
		resp := canned{StatusCode: c.status, Header: http.Header{"Content-Range": {c.header}}, ContentLength: 7 - c.from}
		if c.status == http.StatusOK {
			resp.ContentLength = 7
		}
		cache, err := Open("http://192.0.2.1/", &http.Client{Transport: &resp})
		if err != nil {
			t.Fatal(err)
		}
		a, err := cache.source.open(t.Context(), "nar/x", c.from)
		got := ""
		var fault *mirror.Fault
		switch {
		case errors.Is(err, ErrNotFound):
			got = "missing"
		case errors.As(err, &fault):
			got = string(fault.Kind)
		case err == nil:
			a.body.Close()
			got = fmt.Sprint(a.from, " ", a.size)
		}
		if got != c.want {
			t.Errorf("status %d, %q, from %d: %s (%v); want %s", c.status, c.header, c.from, got, err, c.want)
		}
	}
}

// TestKeepsTLS: whoever wrote https:// is not led to http://.
func TestKeepsTLS(t *testing.T) {
	t.Parallel()
	plain, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://192.0.2.1/", nil)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://192.0.2.1/", nil)
	if err != nil {
		t.Fatal(err)
	}
	follow := NewClient(ClientOptions{}).CheckRedirect
	if err := follow(plain, []*http.Request{secret}); err == nil {
		t.Error("a redirect from https:// to http:// is followed")
	}
	if err := follow(secret, []*http.Request{plain}); err != nil {
		t.Errorf("a redirect from http:// to https:// is refused: %v", err)
	}
}

// readNAR reads a file as the NAR of a path with so many bytes.
func readNAR(t testing.TB, data []byte, kind narinfo.Compression, size int64) ([]byte, error) {
	asked := 0
	s, m := setOf(memory{data: data, asked: &asked}, Options{DecodeMemory: 8 << 20})
	offer := &Offer{Info: &narinfo.Info{URL: "nar/x", Compression: kind, NarSize: size}, from: m}
	var d Decoder
	defer d.Close()
	in := s.Open(t.Context(), offer, &d, nil)
	defer in.Close()
	return io.ReadAll(in)
}

func compressed(t testing.TB, data []byte) map[narinfo.Compression][]byte {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return map[narinfo.Compression][]byte{narinfo.None: data, narinfo.Zstd: enc.EncodeAll(data, nil), narinfo.XZ: b.Bytes()}
}

func TestNARSizes(t *testing.T) {
	t.Parallel()
	data := pattern(300_000)
	for kind, file := range compressed(t, data) {
		if got, err := readNAR(t, file, kind, int64(len(data))); err != nil || !bytes.Equal(got, data) {
			t.Errorf("%s: %d bytes, %v", kind, len(got), err)
		}
		for _, off := range []int64{-100_000, -1, 1, 100_000} {
			got, err := readNAR(t, file, kind, int64(len(data))+off)
			var fault *mirror.Fault
			if !errors.As(err, &fault) || fault.Kind.Passing() || int64(len(got)) > int64(len(data))+off {
				t.Errorf("%s, NarSize %+d: %d bytes, %v", kind, off, len(got), err)
			}
		}
		if _, err := readNAR(t, append(bytes.Clone(file), "tail"...), kind, int64(len(data))); err == nil {
			t.Errorf("%s: bytes behind its end were taken", kind)
		}
	}
}

// TestXZBlocks: a stream of several blocks is read, and one whose later block
// wants a larger dictionary than the first is refused before it gets it.
func TestXZBlocks(t *testing.T) {
	t.Parallel()
	data := pattern(600_000)
	var b bytes.Buffer
	w, err := xz.WriterConfig{BlockSize: 100_001, DictCap: 1 << 16}.NewWriter(&b)
	if err == nil {
		_, err = w.Write(data)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readNAR(t, b.Bytes(), narinfo.XZ, int64(len(data))); err != nil || !bytes.Equal(got, data) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	first := bytes.Index(b.Bytes(), []byte{0x21, 0x01})
	second := first + 2 + bytes.Index(b.Bytes()[first+2:], b.Bytes()[first-2:first+3])
	evil := bytes.Clone(b.Bytes())
	evil[second+4] = 38 // 2 GiB
	got, err := readNAR(t, evil, narinfo.XZ, int64(len(data)))
	var fault *mirror.Fault
	if !errors.As(err, &fault) || fault.Kind != TooLarge || !strings.Contains(err.Error(), "later block") {
		t.Errorf("%d bytes, %v; want a refusal of the second block", len(got), err)
	}
}

func FuzzNAR(f *testing.F) {
	for kind, file := range compressed(f, pattern(2000)) {
		f.Add(file, string(kind), int64(2000))
		f.Add(file[:len(file)/2], string(kind), int64(2000))
		f.Add(append(bytes.Clone(file), file...), string(kind), int64(4000))
	}
	f.Fuzz(func(t *testing.T, file []byte, kind string, size int64) {
		size &= 1<<20 - 1
		got, err := readNAR(t, file, narinfo.Compression(kind), size)
		if int64(len(got)) > size || err == nil && int64(len(got)) != size {
			t.Fatalf("%d bytes of %d, %v", len(got), size, err)
		}
	})
}

func FuzzCacheInfo(f *testing.F) {
	f.Add([]byte(infoText))
	f.Add([]byte("StoreDir: /gnu/store\nPriority 5\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if info, err := parseInfo(data); err == nil && info.StoreDir != nix.StoreDir && !bytes.Contains(data, []byte("StoreDir")) {
			t.Fatalf("%q", info.StoreDir)
		}
	})
}
