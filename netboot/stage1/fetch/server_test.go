package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"xnodeos.org/internal/manifest"
)

// A web is a network in memory: names of hosts and the servers behind them.
type web struct {
	hosts   map[string]*pipeListener
	servers []*http.Server
	serving sync.WaitGroup
	client  *http.Client
}

func newWeb() *web {
	w := &web{hosts: map[string]*pipeListener{}}
	w.client = NewClient(ClientOptions{Dial: func(ctx context.Context, _, address string) (net.Conn, error) {
		host, _, _ := strings.Cut(address, ":")
		if l := w.hosts[host]; l != nil {
			return l.dial(ctx)
		}
		return nil, fmt.Errorf("dial %s: no route", address)
	}})
	return w
}

// serve puts a handler behind a name, which becomes a mirror.
func (w *web) serve(t testing.TB, name string, h http.Handler) Mirror {
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	w.hosts[name] = l
	s := &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, req *http.Request) {
		w.serving.Add(1)
		defer w.serving.Done()
		h.ServeHTTP(rw, req)
	}), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	w.servers = append(w.servers, s)
	w.serving.Go(func() { _ = s.Serve(l) })
	m, err := ParseMirror("http://" + name + "/files")
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (w *web) close() {
	w.client.CloseIdleConnections()
	for _, s := range w.servers {
		_ = s.Close()
	}
	w.serving.Wait()
}

type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, errors.New("connection refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "memory"} }

// release is a folder that mirrors serve.
type release struct {
	payload, manifest, signature []byte
	m                            *manifest.Manifest
}

const testChunk = 64 << 10

// newRelease makes a payload of so many bytes.
func newRelease(t testing.TB, seed uint64, size int) *release {
	t.Helper()
	data := make([]byte, size)
	fill := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1})
	_, _ = fill.Read(data)
	p, err := manifest.HashPayload(PayloadName, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	p.ChunkSize, p.Chunks = testChunk, nil
	for rest := data; len(rest) > 0; {
		n := min(testChunk, len(rest))
		sum := manifest.DigestOf(rest[:n])
		p.Chunks = append(p.Chunks, strings.TrimPrefix(sum, "sha256:"))
		rest = rest[n:]
	}
	file := manifest.File{Name: "vmlinuz", Size: 1, SHA256: p.SHA256}
	initrd := file
	initrd.Name = "initrd"
	m := &manifest.Manifest{V: manifest.Version, Label: "toy-1", Arch: "x86_64-linux",
		System:  "/nix/store/00000000000000000000000000000000-toy",
		Closure: "sha256-RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=", Handover: manifest.HandoverScript,
		Sequence: 7, Time: 1, Cmdline: "quiet", Kernel: file, Initrd: initrd, Payload: p}
	encoded, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return &release{payload: data, manifest: encoded, m: m}
}

func (r *release) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	files := map[string][]byte{PayloadName: r.payload, ManifestName: r.manifest}
	if r.signature != nil {
		files[SignatureName] = r.signature
	}
	name := strings.TrimPrefix(req.URL.Path, "/files/")
	data, ok := files[name]
	if !ok {
		http.NotFound(w, req)
		return
	}
	http.ServeContent(w, req, "", time.Time{}, bytes.NewReader(data))
}

// A mishap is what a bad server does with a request for the payload. It says
// whether it has answered; else the next one, and at last the honest server,
// does.
type mishap func(w http.ResponseWriter, req *http.Request, next http.Handler)

// badServer goes through its mishaps for each request of the payload.
type badServer struct {
	*release

	bad []mishap
}

func (b *badServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	var h http.Handler = b.release
	if strings.HasSuffix(req.URL.Path, PayloadName) {
		for _, m := range b.bad {
			next := h
			h = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { m(w, req, next) })
		}
	}
	h.ServeHTTP(w, req)
}

// Mishaps that always happen.

func wholeFile(w http.ResponseWriter, req *http.Request, next http.Handler) {
	req.Header.Del("Range")
	next.ServeHTTP(w, req)
}

func gzipped(w http.ResponseWriter, req *http.Request, next http.Handler) {
	w.Header().Set("Content-Encoding", "gzip")
	next.ServeHTTP(w, req)
}

func redirectLoop(w http.ResponseWriter, req *http.Request, _ http.Handler) {
	to := "/files/b/" + PayloadName
	if strings.Contains(req.URL.Path, "/b/") {
		to = "/files/" + PayloadName
	}
	http.Redirect(w, req, to, http.StatusFound)
}

func redirectFarther(w http.ResponseWriter, req *http.Request, _ http.Handler) {
	http.Redirect(w, req, "/files/x"+strings.TrimPrefix(req.URL.Path, "/files/"), http.StatusFound)
}

// status answers with a code.
func status(code int) mishap {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(code) }
}

func otherRange(w http.ResponseWriter, req *http.Request, next http.Handler) {
	req.Header.Set("Range", "bytes=1-4096")
	next.ServeHTTP(w, req)
}

// otherFile serves another release.
func otherFile(o *release) mishap {
	return func(w http.ResponseWriter, req *http.Request, _ http.Handler) { o.ServeHTTP(w, req) }
}

// Mishaps that happen to some of the bytes.

// dice are random numbers for handlers.
type dice struct {
	mu sync.Mutex
	r  *rand.Rand
}

func newDice(seed uint64) *dice { return &dice{r: rand.New(rand.NewPCG(seed, 4))} }

func (d *dice) n(n int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.r.IntN(n)
}

// bodyWriter passes bytes on until it has seen enough.
type bodyWriter struct {
	http.ResponseWriter

	each func(p []byte) // before each piece
}

func (b *bodyWriter) Write(p []byte) (int, error) {
	const piece = 4096
	done := 0
	for len(p) > 0 {
		n := min(piece, len(p))
		part := bytes.Clone(p[:n])
		b.each(part)
		w, err := b.ResponseWriter.Write(part)
		if done += w; err != nil {
			return done, err
		}
		p = p[n:]
	}
	return done, nil
}

// some lets a mishap happen to one of so many requests.
func some(d *dice, oneOf int, m mishap) mishap {
	return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if d.n(oneOf) > 0 {
			next.ServeHTTP(w, req)
			return
		}
		m(w, req, next)
	}
}

// every lets a mishap happen to each n-th request.
func every(n int64, m mishap) mishap {
	var count atomic.Int64
	return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if count.Add(1)%n > 0 {
			next.ServeHTTP(w, req)
			return
		}
		m(w, req, next)
	}
}

// cut breaks the connection after some bytes.
func cut(d *dice) mishap {
	return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		left := d.n(testChunk)
		next.ServeHTTP(&bodyWriter{w, func(p []byte) {
			if left -= len(p); left < 0 {
				panic(http.ErrAbortHandler)
			}
		}}, req)
	}
}

// hang stops after some bytes, until the client goes.
func hang(d *dice) mishap {
	return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		left := d.n(testChunk)
		next.ServeHTTP(&bodyWriter{w, func(p []byte) {
			if left -= len(p); left < 0 {
				<-req.Context().Done()
				panic(http.ErrAbortHandler)
			}
		}}, req)
	}
}

// flip changes a byte.
func flip(d *dice) mishap {
	return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		left := d.n(testChunk)
		next.ServeHTTP(&bodyWriter{w, func(p []byte) {
			if left >= 0 && left < len(p) {
				p[left] ^= 0x20
			}
			left -= len(p)
		}}, req)
	}
}

// slow gives a piece of 4 KiB in so much time.
func slow(each time.Duration) mishap {
	return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		next.ServeHTTP(&bodyWriter{w, func([]byte) {
			if !sleep(req.Context(), nil, each) {
				panic(http.ErrAbortHandler)
			}
		}}, req)
	}
}

// dies serves some bytes in all, and after that no connection.
func dies(server func() *http.Server, d *dice, size int) mishap {
	left := d.n(size)
	var mu sync.Mutex
	return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		next.ServeHTTP(&bodyWriter{w, func(p []byte) {
			mu.Lock()
			defer mu.Unlock()
			if left -= len(p); left < 0 {
				go func() { _ = server().Close() }()
				panic(http.ErrAbortHandler)
			}
		}}, req)
	}
}

// sheet is a sink that notices bytes which are written twice.
type sheet struct {
	mu    sync.Mutex
	data  []byte
	count []uint8
}

func newSheet(size int) *sheet { return &sheet{data: make([]byte, size), count: make([]uint8, size)} }

func (s *sheet) WriteAt(p []byte, at int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range p {
		if s.count[at+int64(i)]++; s.count[at+int64(i)] > 1 {
			return i, fmt.Errorf("byte %d is written twice", at+int64(i))
		}
	}
	return copy(s.data[at:], p), nil
}
