package stage1

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/netboot/stage1/fetch"
)

// diskFile is a ramFile on a disk.
type diskFile struct {
	*os.File

	released *atomic.Int32
}

func (d diskFile) Path() string  { return d.Name() }
func (d diskFile) Finish() error { return d.Close() }
func (d diskFile) Release()      { d.released.Add(1); _ = os.Remove(d.Name()) }

// httpFrom is a source whose network is up, and what counts its releases.
func httpFrom(t *testing.T, want wantedManifest, urls ...string) (*httpSource, *atomic.Int32) {
	t.Helper()
	mirrors, notes := parsePayloadWords(urls)
	if len(notes) > 0 {
		t.Fatal(notes)
	}
	begun, released := time.Now(), &atomic.Int32{}
	clock := func() time.Duration { return time.Since(begun) }
	client := fetch.NewClient(fetch.ClientOptions{})
	t.Cleanup(client.CloseIdleConnections)
	return &httpSource{
		mirrors: mirrors, check: want.Check, watch: NewStopwatch(clock), con: NewConsole(clock),
		options: fetch.Options{Client: client, Clock: clock, GiveUp: 5 * time.Second, StallTimeout: time.Second},
		more:    func(context.Context) []fetch.Mirror { return mirrors },
		floor:   func() uint32 { return 0 },
		online:  func(context.Context) error { return nil },
		room: func(size int64) (ramFile, error) {
			f, err := os.Create(filepath.Join(t.TempDir(), fetch.PayloadName))
			if err != nil {
				return nil, err
			}
			return diskFile{f, released}, f.Truncate(size)
		},
	}, released
}

func TestHTTPSource(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := writePayload(t, dir, 9<<20)
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	h, _ := httpFrom(t, want, server.URL)
	s := &search{sources: []payloadSource{h}, watch: h.watch, con: h.con, limit: 10 * time.Second}
	c, err := s.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, fetch.PayloadName))
	if err != nil || string(got) != string(whole) {
		t.Errorf("what was fetched differs from what was served (%v)", err)
	}
	if !c.Checked || c.Digest != want.Digest || c.Medium != server.URL+"/" {
		t.Errorf("candidate = %+v", c)
	}
	if h.watch.Times().Verify != 0 {
		t.Error("it was verified again")
	}
}

func TestHTTPSourceSaysWhatMirrorsDid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := writePayload(t, dir, 5<<20)
	if err := os.WriteFile(filepath.Join(dir, fetch.PayloadName), make([]byte, 5<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer bad.Close()
	empty := httptest.NewServer(http.NotFoundHandler())
	defer empty.Close()
	h, released := httpFrom(t, want, bad.URL, empty.URL)
	s := &search{sources: []payloadSource{h}, watch: h.watch, con: h.con, limit: time.Second}
	_, err := s.run(t.Context())
	for _, text := range []string{"payload over the network", bad.URL + "/: wrong bytes", empty.URL + "/: refused", "404"} {
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v; want %q", err, text)
		}
	}
	if released.Load() != 1 {
		t.Errorf("the file was released %d times; want once", released.Load())
	}
}

func TestHTTPSourceNeedsRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := writePayload(t, dir, 5<<20)
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if strings.HasSuffix(req.URL.Path, fetch.PayloadName) {
			asked.Add(1)
		}
		http.FileServer(http.Dir(dir)).ServeHTTP(w, req)
	}))
	defer server.Close()
	h, _ := httpFrom(t, want, server.URL)
	h.room = func(size int64) (ramFile, error) {
		return nil, Memory{Total: 200 << 20, Available: 100 << 20}.CheckPayload(size)
	}
	_, err := h.Next(t.Context(), nil)
	const text = "check memory: 100 MB are free of 200 MB, 133 MB are needed: 5 for the payload, 128 to start the system; give the machine at least 33 MB more memory"
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%v; want %q", err, text)
	}
	if asked.Load() > 0 {
		t.Error("the payload was asked for although there is no room")
	}
	if err := (Memory{Total: 1 << 30, Available: 133 << 20}).CheckPayload(5 << 20); err != nil {
		t.Errorf("just enough: %v", err)
	}
}

// TestHTTPWinsOverSlowMedium: what is fetched does not wait for a medium that is
// still being read, and the other way round the fetch is given up.
func TestHTTPWinsOverSlowMedium(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := writePayload(t, dir, 5<<20)
	m, _, err := want.read(dir)
	if err != nil {
		t.Fatal(err)
	}
	slow := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(slow, 0o600); err != nil {
		t.Fatal(err)
	}
	released := 0
	shelf := &shelf{offers: []*Candidate{{Manifest: m, Medium: "cd /dev/sr0", Path: slow, Release: func() { released++ }}}}
	server := httptest.NewServer(http.FileServer(http.Dir(dir)))
	defer server.Close()
	h, _ := httpFrom(t, want, server.URL)
	s := &search{sources: []payloadSource{shelf, h}, watch: h.watch, con: h.con, limit: 10 * time.Second}
	c, err := s.run(t.Context())
	if err != nil || !c.Checked {
		t.Fatalf("%+v, %v; want the fetched payload", c, err)
	}
	writer, err := os.OpenFile(slow, os.O_RDWR, 0) // so that the reader can end
	if err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
}

func TestMediumWinsOverSlowHTTP(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	want := writePayload(t, dir, 5<<20)
	released := 0
	local := candidate(t, dir, want, "cd /dev/sr0", &released)
	hang := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, req *http.Request) {
		select {
		case <-req.Context().Done():
		case <-hang:
		}
	}))
	defer server.Close()
	defer close(hang)
	h, _ := httpFrom(t, want, server.URL)
	s := &search{sources: []payloadSource{h, &shelf{offers: []*Candidate{local}}}, watch: h.watch, con: h.con, limit: 10 * time.Second}
	if c, err := s.run(t.Context()); err != nil || c != local {
		t.Errorf("%+v, %v; want the medium", c, err)
	}
}

func TestHTTPSourceWaitsForNetwork(t *testing.T) {
	t.Parallel()
	h, _ := httpFrom(t, wantedManifest{fetch.Check{Digest: "sha256:0"}}, "http://192.0.2.1/")
	h.online = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	s := &search{sources: []payloadSource{h}, watch: h.watch, con: h.con, limit: 100 * time.Millisecond}
	if _, err := s.run(t.Context()); err == nil || !strings.Contains(err.Error(), "http://192.0.2.1/: no network card has an address yet") {
		t.Error(err)
	}
	if h.watch.Times().DHCP == 0 {
		t.Error("the wait for the network is not counted")
	}
	none, _ := httpFrom(t, wantedManifest{})
	if _, err := none.Next(t.Context(), nil); !errors.Is(err, errNoMore) || none.Report() != nil {
		t.Errorf("without a URL: %v, %v", err, none.Report())
	}
}

func TestResolvConf(t *testing.T) {
	t.Parallel()
	lease := func(servers ...string) *Lease {
		l := &Lease{}
		for _, s := range servers {
			l.DNS = append(l.DNS, netip.MustParseAddr(s))
		}
		return l
	}
	got := resolvConf([]LinkResult{{Lease: lease("192.0.2.1", "2001:db8::1")}, {}, {Lease: lease("192.0.2.1", "192.0.2.2")}})
	want := "nameserver 192.0.2.1\nnameserver 2001:db8::1\nnameserver 192.0.2.2\noptions timeout:2 attempts:2\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("resolv.conf, -want +got:\n%s", diff)
	}
	if hasLease([]LinkResult{{}}) || !hasLease([]LinkResult{{}, {Lease: lease()}}) {
		t.Error("hasLease does not tell")
	}
}

func TestPayloadWords(t *testing.T) {
	t.Parallel()
	o, notes := ParseOptions(ParseCmdline("xnode.payload=http://192.0.2.1/a xnode.payload=${cwduri} xnode.payload=https://boot.example.org/b/"))
	var got []string
	for _, m := range o.Payload {
		got = append(got, m.String())
	}
	if diff := cmp.Diff([]string{"http://192.0.2.1/a/", "https://boot.example.org/b/"}, got); diff != "" {
		t.Errorf("mirrors, -want +got:\n%s", diff)
	}
	if len(notes) != 1 || !strings.Contains(notes[0], `"${cwduri}"`) {
		t.Errorf("notes = %q", notes)
	}
	if mirrors, notes := parsePayloadWords(strings.Fields(strings.Repeat("http://a/ ", fetch.MaxMirrors+1))); len(mirrors) != fetch.MaxMirrors || len(notes) != 1 {
		t.Errorf("%d mirrors, notes %q", len(mirrors), notes)
	}
}

func TestWanted(t *testing.T) {
	t.Parallel()
	pinned := "sha256:" + strings.Repeat("0a", 32)
	if w, err := wanted(pinned, fetch.Check{Arch: "x86_64-linux"}); err != nil || w.Digest != pinned || w.Arch == "" {
		t.Errorf("%+v, %v", w, err)
	}
	for _, word := range []string{"", "sha256:", "md5:" + pinned, strings.ToUpper(pinned), pinned + "0"} {
		_, err := wanted(word, fetch.Check{})
		var step *StepError
		if !errors.As(err, &step) || step.Step != "find payload" || !strings.Contains(step.Remedy, "xnode.manifest=sha256:HEX") {
			t.Errorf("xnode.manifest=%q: %v; want a refusal with the remedy", word, err)
		}
	}
}

// TestNamedServersFail: where the servers that somebody named are of no use,
// media have less time, and are still waited for.
func TestNamedServersFail(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		s := newSearch(nil, &shelf{err: fmt.Errorf("%w: nothing", errNamed)}, &shelf{})
		_, err := s.run(t.Context())
		if took := time.Since(begun); took != afterFailure || err == nil || !strings.Contains(err.Error(), "payload over the network: nothing") {
			t.Errorf("after %v: %v; want it after %v", took, err, afterFailure)
		}
	})
}
