package qemu

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/vm"
)

// hostAddress is the host's loopback, as a guest on QEMU's own network sees it.
const hostAddress = "10.0.2.2"

// mirror is an HTTP server of a netboot folder, as any would be.
type mirror struct {
	url    string
	server *http.Server
	// sent counts the bytes of the payload that went out.
	sent atomic.Int64
	// each is called for each piece of the payload on its way out, with its
	// offset in the count; it may change it, wait, or panic to break off.
	each func(m *mirror, sent int64, p []byte)
}

// startMirror serves dir on the loopback.
func startMirror(t *testing.T, dir string, each func(m *mirror, sent int64, p []byte)) *mirror {
	t.Helper()
	m := &mirror{each: each}
	m.url, m.server = startServer(t, m.count(http.FileServer(http.Dir(dir))))
	return m
}

// count lets the mirror see the payload on its way out.
func (m *mirror) count(files http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/system.squashfs") {
			w = payloadWriter{w, m}
		}
		files.ServeHTTP(w, r)
	})
}

// startServer serves on the loopback until the test ends. The URL is for a
// guest.
func startServer(t *testing.T, handler http.Handler) (url string, server *http.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	server = &http.Server{ReadHeaderTimeout: time.Minute, Handler: handler}
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(l) }()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-served
	})
	return fmt.Sprintf("http://%s/", net.JoinHostPort(hostAddress, port)), server
}

type payloadWriter struct {
	http.ResponseWriter

	m *mirror
}

func (w payloadWriter) Write(p []byte) (int, error) {
	sent := w.m.sent.Add(int64(len(p))) - int64(len(p))
	if w.m.each != nil {
		p = append([]byte(nil), p...)
		w.m.each(w.m, sent, p)
	}
	return w.ResponseWriter.Write(p)
}

// checkHTTP asserts on a node whose payload came over the network.
func (n *node) checkHTTP(t *testing.T, line vm.Line, more extra, urls ...string) map[string]string {
	t.Helper()
	facts := n.checkUp(t, line, more)
	var record struct {
		Medium  string
		Seconds struct{ Fetch, Verify float64 }
	}
	if err := json.Unmarshal([]byte(facts["record"]), &record); err != nil {
		t.Fatal(err)
	}
	if record.Medium != strings.Join(urls, " and ") || record.Seconds.Fetch <= 0 || record.Seconds.Verify != 0 {
		t.Errorf("boot record: %+v; want the payload from %q, fetched and not hashed again", record, urls)
	}
	t.Logf("fetched in %.2f s", record.Seconds.Fetch)
	return facts
}

// TestArtifactHTTPMirrorDies lets the first of two mirrors fail at a seeded
// point, in each of the ways in which servers do.
func TestArtifactHTTPMirrorDies(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	for seed, tt := range []struct {
		name string
		fail func(m *mirror, p []byte)
	}{
		{"killed", func(m *mirror, _ []byte) { go m.server.Close(); panic(http.ErrAbortHandler) }},
		{"stalled", func(*mirror, []byte) { time.Sleep(bootLimit) }},
		{"corrupt", func(_ *mirror, p []byte) { p[len(p)/2] ^= 1 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(uint64(seed), 1))
			at := r.Int64N(img.manifest.Payload.Size / 3)
			bad := startMirror(t, img.netboot, func(m *mirror, sent int64, p []byte) {
				if sent >= at {
					tt.fail(m, p)
				}
			})
			good := startMirror(t, img.netboot, nil)
			n, line := scenario{payload: []string{bad.url, good.url}}.boot(t, img, ready, stageFailed, kernelPanic)
			n.checkHTTP(t, line, extra{}, bad.url, good.url)
			if sent := bad.sent.Load(); sent <= at {
				t.Errorf("the bad mirror gave %d bytes and had to fail at %d: nothing was tested", sent, at)
			}
			n.checkPayload(t)
		})
	}
}

// checkPayload hashes what the node fetched, all of it.
func (n *node) checkPayload(t *testing.T) {
	t.Helper()
	sum, _, _ := strings.Cut(n.shell(t, "sha256sum /run/xnode/payload/system.squashfs"), " ")
	if sum != n.img.manifest.Payload.SHA256 {
		t.Errorf("the payload on the node has sha256 %q; want %s", sum, n.img.manifest.Payload.SHA256)
	}
}

// TestArtifactHTTPTampered changes a byte of what is served: the first stage
// must refuse it, and say which mirror it was.
func TestArtifactHTTPTampered(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	for _, tt := range []struct {
		name, file, want string
		at               int
	}{
		{"payload", "system.squashfs", `%s: wrong bytes .*chunk 3 \(bytes 12582912 to 16777215\) has sha256`, 3*manifest.ChunkSize + 99},
		{"manifest", manifest.FileName, `%s: bad manifest .*the command line names ` + img.digest, 30},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range []string{manifest.FileName, "system.squashfs"} {
				data, err := os.ReadFile(filepath.Join(img.netboot, name))
				if err != nil {
					t.Fatal(err)
				}
				if name == tt.file {
					data[tt.at] ^= 1
				}
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			m := startMirror(t, dir, nil)
			_, line := scenario{payload: []string{m.url}}.boot(t, img, stageFailed, ready, kernelPanic)
			want := regexp.MustCompile(`xnode-init: error: find payload: .*` + fmt.Sprintf(tt.want, regexp.QuoteMeta(m.url)))
			if !want.MatchString(line.Text) {
				t.Errorf("console: %q; want /%s/", line.Text, want)
			}
		})
	}
}

// TestArtifactHTTPTooLittleMemory: that the payload does not fit is said before
// a byte of it is fetched.
func TestArtifactHTTPTooLittleMemory(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	m := startMirror(t, img.netboot, nil)
	_, line := scenario{payload: []string{m.url}, memory: 264}.boot(t, img, stageFailed, ready, kernelPanic)
	want := regexp.MustCompile(`check memory: [0-9]+ MB are free of [0-9]+ MB, [0-9]+ MB are needed: [0-9]+ for the payload, 128 to start the system; give the machine`)
	if !want.MatchString(line.Text) {
		t.Errorf("console: %q; want /%s/", line.Text, want)
	}
	if sent := m.sent.Load(); sent > 0 {
		t.Errorf("%d bytes of the payload were sent all the same", sent)
	}
}
