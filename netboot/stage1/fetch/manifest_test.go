package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/mirror"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/trust"
)

func newSigner(t testing.TB) *sshsign.Signer {
	t.Helper()
	pair, err := sshsign.GenerateKey("test")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, pair.PrivateFile(), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := sshsign.Open(context.Background(), sshsign.OpenOptions{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// signers trusts a key in a role.
func signers(t testing.TB, s *sshsign.Signer, namespace string) *trust.Signers {
	t.Helper()
	list, err := trust.Parse([]byte(trust.Line(s.PublicKey(), "ops", namespace)))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func sign(t testing.TB, s *sshsign.Signer, namespace string, data []byte) []byte {
	t.Helper()
	armored, err := s.Sign(context.Background(), namespace, data)
	if err != nil {
		t.Fatal(err)
	}
	return armored
}

func TestAccept(t *testing.T) {
	t.Parallel()
	key, stranger := newSigner(t), newSigner(t)
	r := newRelease(t, 1, 3*testChunk)
	good := sign(t, key, trust.NamespaceManifest, r.manifest)
	trusted := Check{Signers: signers(t, key, trust.NamespaceManifest), Arch: "x86_64-linux"}
	with := func(c Check, change func(*Check)) Check { change(&c); return c }
	other := newRelease(t, 2, testChunk)
	elsewhere := bytes.Replace(r.manifest, []byte(`"`+PayloadName+`"`), []byte(`"../../etc/passwd"`), 1)
	for name, tt := range map[string]struct {
		check           Check
		data, signature []byte
		want            string // of the error; "" if it is accepted
	}{
		"pinned":                 {Check{Digest: manifest.DigestOf(r.manifest)}, r.manifest, nil, ""},
		"another one":            {Check{Digest: manifest.DigestOf(r.manifest)}, other.manifest, nil, "belongs to another kernel and initrd"},
		"signed":                 {trusted, r.manifest, good, ""},
		"not signed":             {trusted, r.manifest, nil, "is not signed"},
		"changed after that":     {trusted, append(bytes.Clone(r.manifest), ' '), good, "signature"},
		"by a stranger":          {trusted, r.manifest, sign(t, stranger, trust.NamespaceManifest, r.manifest), "does not list"},
		"by a key without role":  {Check{Signers: signers(t, key, trust.NamespaceGit)}, r.manifest, good, "no key is listed for xnode-manifest"},
		"for another purpose":    {trusted, r.manifest, sign(t, key, trust.NamespaceGit, r.manifest), "xnode-manifest"},
		"pinned, another signed": {with(trusted, func(c *Check) { c.Digest = manifest.DigestOf(other.manifest) }), r.manifest, good, "command line names"},
		"old":                    {with(trusted, func(c *Check) { c.Floor = 8 }), r.manifest, good, "older than the 8"},
		"just new enough":        {with(trusted, func(c *Check) { c.Floor = 7 }), r.manifest, good, ""},
		"of another machine":     {with(trusted, func(c *Check) { c.Arch = "aarch64-linux" }), r.manifest, good, "this machine is aarch64-linux"},
		"pinned nonsense":        {Check{Digest: manifest.DigestOf([]byte("{"))}, []byte("{"), nil, "read manifest"},
		"nothing trusted":        {Check{}, r.manifest, good, "no manifest can be trusted"},
		"cut off":                {trusted, r.manifest[:len(r.manifest)/2], good, "signature"},
		"signed while cut off":   {trusted, r.manifest[:len(r.manifest)/2], sign(t, key, trust.NamespaceManifest, r.manifest[:len(r.manifest)/2]), "read manifest"},
		"signed path traversal":  {trusted, elsewhere, sign(t, key, trust.NamespaceManifest, elsewhere), `"../../etc/passwd"`},
		"oversized":              {trusted, make([]byte, manifest.MaxSize+1), good, "longer than the allowed"},
	} {
		m, err := tt.check.Accept(tt.data, tt.signature)
		switch {
		case tt.want == "" && (err != nil || m.Label != "toy-1"):
			t.Errorf("%s: %v; want it to be accepted", name, err)
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v; want %q", name, err, tt.want)
		}
	}
}

// fetchManifest asks servers, in a bubble of its own.
func fetchManifest(t *testing.T, check Check, inspect func(m *manifest.Manifest, err error), servers ...http.Handler) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		web := newWeb()
		var mirrors []Mirror
		for i, s := range servers {
			mirrors = append(mirrors, web.serve(t, fmt.Sprintf("host%d", i), s))
		}
		m, _, err := Manifest(t.Context(), mirrors, check, Options{Client: web.client, Clock: stopwatch()})
		web.close()
		inspect(m, err)
	})
}

type handler func(w http.ResponseWriter, req *http.Request)

func (h handler) ServeHTTP(w http.ResponseWriter, req *http.Request) { h(w, req) }

func TestManifest(t *testing.T) {
	t.Parallel()
	key := newSigner(t)
	r := newRelease(t, 1, 3*testChunk)
	r.signature = sign(t, key, trust.NamespaceManifest, r.manifest)
	unsigned := *r
	unsigned.signature = nil
	pinned, signed := Check{Digest: manifest.DigestOf(r.manifest)}, Check{Signers: signers(t, key, trust.NamespaceManifest)}
	other := newRelease(t, 2, testChunk)
	failures := 0
	later := handler(func(w http.ResponseWriter, req *http.Request) {
		if failures++; failures < 5 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		r.ServeHTTP(w, req)
	})
	silent := handler(func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() })
	huge := handler(func(w http.ResponseWriter, _ *http.Request) {
		for range manifest.MaxSize >> 16 {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
		_, _ = w.Write([]byte("x"))
	})
	announced := handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(manifest.MaxSize+1))
		w.WriteHeader(http.StatusOK)
	})
	short := handler(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte("{"))
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	for name, tt := range map[string]struct {
		check   Check
		servers []http.Handler
		want    []string // in the error
	}{
		"pinned":             {pinned, []http.Handler{&unsigned}, nil},
		"signed":             {signed, []http.Handler{r}, nil},
		"third time":         {pinned, []http.Handler{later}, nil},
		"second of three":    {pinned, []http.Handler{silent, r, other}, nil},
		"not signed":         {signed, []http.Handler{&unsigned, other}, []string{"http://host0/files/: refused 3 times", `"404 Not Found" (not asked again)`, "http://host1/files/: refused"}},
		"another":            {pinned, []http.Handler{other}, []string{"bad manifest 3 times", "belongs to another", ErrNoMirror.Error()}},
		"huge":               {pinned, []http.Handler{huge}, []string{"more than the allowed 16777216 bytes"}},
		"announced as huge":  {pinned, []http.Handler{announced}, []string{"has 16777217 bytes"}},
		"cut off and silent": {pinned, []http.Handler{short, silent}, []string{"cut off", "at byte 1", "host1/files/: stalled", ErrNoProgress.Error()}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fetchManifest(t, tt.check, func(m *manifest.Manifest, err error) {
				if tt.want == nil && (err != nil || m.Label != "toy-1") {
					t.Errorf("%v; want the manifest", err)
				}
				for _, w := range tt.want {
					if err == nil || !strings.Contains(err.Error(), w) {
						t.Errorf("%v; want %q", err, w)
					}
				}
			}, tt.servers...)
		})
	}
}

func TestManifestNeedsTrust(t *testing.T) {
	t.Parallel()
	asked := handler(func(http.ResponseWriter, *http.Request) { t.Error("a server was asked") })
	fetchManifest(t, Check{}, func(_ *manifest.Manifest, err error) {
		if err == nil || !strings.Contains(err.Error(), "no manifest can be trusted") {
			t.Error(err)
		}
	}, asked)
}

func TestManifestIsCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		web := newWeb()
		m := web.serve(t, "a", handler(func(_ http.ResponseWriter, req *http.Request) { <-req.Context().Done() }))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := Manifest(ctx, []Mirror{m}, Check{Digest: "sha256:0"}, Options{Client: web.client, Clock: stopwatch()})
		web.close()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
	})
}

func TestParseMirror(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"http://192.0.2.1/netboot":           "http://192.0.2.1/netboot/",
		"http://192.0.2.1:8080/a%20b/":       "http://192.0.2.1:8080/a%20b/",
		"https://[2001:db8::1]/":             "https://[2001:db8::1]/",
		"http://boot.example.org":            "http://boot.example.org/",
		"http://boot.example.org/x/../y":     "http://boot.example.org/y/",
		"http://boot.example.org/boot.ipxe":  "http://boot.example.org/",
		"http://192.0.2.1/a%20b/boot.ipxe":   "http://192.0.2.1/a%20b/",
		"http://192.0.2.1/boot.ipxe/":        "http://192.0.2.1/boot.ipxe/",
		"ftp://boot.example.org/":            "",
		"boot.example.org/netboot":           "",
		"http:///netboot":                    "",
		"http:boot":                          "",
		"${cwduri}":                          "",
		"http://ops:secret@boot.example.org": "",
		"http://boot.example.org/?token=1":   "",
		"http://boot.example.org/#x":         "",
		"http://boot.example.org/%zz":        "",
		"":                                   "",
	} {
		m, err := ParseMirror(text)
		if want == "" {
			if err == nil || strings.Contains(err.Error(), "secret") {
				t.Errorf("ParseMirror(%q) = %v, %v; want an error without a password", text, m, err)
			}
		} else if err != nil || m.String() != want {
			t.Errorf("ParseMirror(%q) = %q, %v; want %q", text, m, err, want)
		}
	}
	m, _ := ParseMirror("http://a/b%2Fc")
	if got := m.file(PayloadName); got != "http://a/b%2Fc/system.squashfs" {
		t.Errorf("file = %q", got)
	}
}

func FuzzParseMirror(f *testing.F) {
	f.Add("http://192.0.2.1/netboot")
	f.Add("https://[2001:db8::1%25eth0]:8/a%20b/../c?x#y")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMirror(text)
		if err != nil {
			return
		}
		again, err := ParseMirror(m.String())
		if err != nil || again.String() != m.String() || !strings.HasSuffix(m.String(), "/") {
			t.Fatalf("%q: %q, again %q, %v", text, m, again, err)
		}
		if _, err := http.NewRequest(http.MethodGet, m.file(PayloadName), nil); err != nil {
			t.Fatalf("%q: %v", text, err)
		}
	})
}

// canned answers every request with one response.
type canned http.Response

func (c *canned) RoundTrip(req *http.Request) (*http.Response, error) {
	resp := http.Response(*c)
	resp.Request, resp.Body = req, http.NoBody
	return &resp, nil
}

// FuzzGet holds the reader of headers to what it promises: an answer never
// covers other bytes than were asked for, nor those of a file of another length.
func FuzzGet(f *testing.F) {
	f.Add(206, "bytes 10-19/100", int64(10), "")
	f.Add(206, "bytes 10-12/*", int64(-1), "identity")
	f.Add(206, "bytes 10-12/101", int64(3), "")
	f.Add(200, "", int64(100), "gzip")
	f.Add(206, "bytes -1-9223372036854775807/100", int64(0), "")
	f.Fuzz(func(t *testing.T, code int, contentRange string, length int64, encoding string) {
		resp := canned{StatusCode: code, Status: "x", ContentLength: length,
			Header: http.Header{"Content-Range": {contentRange}, "Content-Encoding": {encoding}}}
		a, err := get(t.Context(), &http.Client{Transport: &resp}, mirror.Request{URL: "http://192.0.2.1/x", From: 10, To: 20}, 100)
		if err != nil {
			return
		}
		a.Body.Close()
		switch {
		case a.Size >= 0 && a.Size != 100:
			t.Fatalf("%d %q, length %d: a file of %d bytes is taken", code, contentRange, length, a.Size)
		case a.Whole && (code != 200 || length >= 0 && length != 100):
			t.Fatalf("%d, length %d is taken for the whole", code, length)
		case !a.Whole && (code != 206 || a.From != 10 || a.Length < 1 || a.Length > 10):
			t.Fatalf("%d %q, length %d: %+v", code, contentRange, length, a)
		}
	})
}
