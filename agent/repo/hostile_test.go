package repo_test

import (
	"bufio"
	"compress/zlib"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"xnodeos.org/agent/repo"
	"xnodeos.org/internal/command"
	"xnodeos.org/internal/gitcommit"
	"xnodeos.org/internal/testkit/gitserver"
	"xnodeos.org/internal/trust"
)

// result is one line of the table that TestHostile prints.
type result struct{ attack, did string }

// stalled are limits under which a standing connection is found out soon.
func stalled() repo.Limits {
	return repo.Limits{Stall: 500 * time.Millisecond, StallBytes: 64}
}

// hostile is one attack on one remote.
type hostile struct {
	name    string
	limits  repo.Limits
	prepare func(t *testing.T, w *world) (remote, commit string)
	want    func(t *testing.T, err error)
}

func wantLimit(limit string) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		t.Helper()
		var got *repo.LimitError
		if !errors.As(err, &got) || got.Limit != limit {
			t.Errorf("Fetch = %v; want the limit %q", err, limit)
		}
	}
}

func wantText(text string) func(*testing.T, error) {
	return func(t *testing.T, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("Fetch = %v; want %q", err, text)
		}
	}
}

func wantRef(t *testing.T, err error) {
	t.Helper()
	var got *repo.RefError
	if !errors.As(err, &got) {
		t.Errorf("Fetch = %v; want a *RefError", err)
	}
}

func hostiles() []hostile {
	return append([]hostile{
		{"force-push of the tag", repo.Limits{}, func(t *testing.T, w *world) (string, string) {
			w.release(t, 7, map[string]string{"release.json": "evil"})
			other, err := w.git.Commit(t.Context(), map[string]string{"release.json": "good"}, "")
			if err != nil {
				t.Fatal(err)
			}
			return w.http.URL("fleet.git"), other
		}, wantRef},
		{"tag not there", repo.Limits{}, func(_ *testing.T, w *world) (string, string) {
			return w.http.URL("fleet.git"), strings.Repeat("ab", 20)
		}, wantRef},
		{"annotated tag", repo.Limits{}, func(t *testing.T, w *world) (string, string) {
			commit := w.release(t, 6, map[string]string{"release.json": "x"})
			if _, err := gitserver.Git(t.Context(), w.git.Work, "tag", "-a", "-m", "m", "annotated"); err != nil {
				t.Fatal(err)
			}
			if err := w.git.Push(t.Context(), "refs/tags/annotated", "refs/tags/xnode/7"); err != nil {
				t.Fatal(err)
			}
			return w.http.URL("fleet.git"), commit
		}, wantText("annotated tag")},
		{"500 MB repository", repo.Limits{}, made500MB(), wantLimit("bytes")},
		{"24 MB repository, limit of 8", repo.Limits{Bytes: 8 << 20}, huge(24, 1<<20), wantLimit("bytes")},
		{"one file of 40 MB", repo.Limits{}, huge(1, 40<<20), wantLimit("object size")},
		{"20000 objects", repo.Limits{Objects: 1000}, huge(20000, 10), wantLimit("objects")},
		{"zeros that inflate a thousandfold", repo.Limits{Inflated: 16 << 20}, zeros(40), wantLimit("inflated bytes")},
		{"1 byte a second", stalled(), fault(gitserver.Fault{After: 300, Then: gitserver.Slow}), wantLimit("stall")},
		{"silence", stalled(), fault(gitserver.Fault{Then: gitserver.Stall}), wantLimit("stall")},
		{"1 byte a second, no stall limit", repo.Limits{Time: time.Second}, fault(gitserver.Fault{Then: gitserver.Slow}), wantLimit("time")},
		{"connection cut in the pack", repo.Limits{}, func(t *testing.T, w *world) (string, string) {
			remote, commit := huge(10, 20000)(t, w)
			w.http.SetFault(gitserver.Fault{After: 100_000, Then: gitserver.Cut})
			return remote, commit
		}, wantText("unexpected EOF")},
		{"redirect loop", repo.Limits{}, func(t *testing.T, w *world) (string, string) {
			commit := w.release(t, 7, map[string]string{"release.json": "x"})
			w.http.SetFault(gitserver.Fault{Redirect: "http://" + w.http.Addr})
			return w.http.URL("fleet.git"), commit
		}, wantText("more than 5 redirects")},
	}, hostileServers()...)
}

// hostileServers are those that speak no git, or another host's ssh.
func hostileServers() []hostile {
	return []hostile{
		{"redirect to a file", repo.Limits{}, redirect("file:///etc/info/refs"), wantText("refusing the redirect")},
		{"redirect out of git", repo.Limits{}, redirect("http://127.0.0.1:1/admin"), wantText("no git repository")},
		{"web page", repo.Limits{}, page("text/html", "<html>"), wantText("text/html")},
		{"page of 500 MB", repo.Limits{Bytes: 1 << 20, Objects: 10}, endless(), wantLimit("bytes")},
		{"dumb http", repo.Limits{}, page("application/x-git-upload-pack-advertisement", "1234 refs/heads/main\n"), wantText("is this a git repository")},
		{"wrong host key", repo.Limits{}, func(t *testing.T, w *world) (string, string) {
			commit := w.release(t, 7, map[string]string{"release.json": "x"})
			public, _, err := ed25519.GenerateKey(nil)
			if err != nil {
				t.Fatal(err)
			}
			key, err := ssh.NewPublicKey(public)
			if err != nil {
				t.Fatal(err)
			}
			host, _, _ := strings.Cut(w.ssh.HostKey, " ")
			write(t, w.opt.KnownHosts, host+" "+string(ssh.MarshalAuthorizedKey(key)), 0o644)
			return w.ssh.URL("fleet.git"), commit
		}, wantText("another one than in")},
		{"unknown host", repo.Limits{}, func(t *testing.T, w *world) (string, string) {
			commit := w.release(t, 7, map[string]string{"release.json": "x"})
			_, key, _ := strings.Cut(w.ssh.HostKey, " ")
			write(t, w.opt.KnownHosts, "other.example.org "+key+"\n", 0o644)
			return w.ssh.URL("fleet.git"), commit
		}, wantText("is not in")},
		{"host key of another type", repo.Limits{}, func(t *testing.T, w *world) (string, string) {
			commit := w.release(t, 7, map[string]string{"release.json": "x"})
			key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			server, err := gitserver.StartSSH(t.Context(), gitserver.Options{Root: w.root, HostKey: key})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { server.Close() })
			write(t, w.opt.KnownHosts, server.HostKey+"\n", 0o644)
			return server.URL("fleet.git"), commit
		}, wantText("no ed25519 host key")},
		{"deploy key taken away", repo.Limits{}, func(t *testing.T, w *world) (string, string) {
			commit := w.release(t, 7, map[string]string{"release.json": "x"})
			w.opt.SSHKey = newKey(t, "another")
			return w.ssh.URL("fleet.git"), commit
		}, wantText("unable to authenticate")},
		{"ssh: no such repository", repo.Limits{}, func(_ *testing.T, w *world) (string, string) {
			return w.ssh.URL("no'such.git"), strings.Repeat("ab", 20)
		}, wantText("does not appear to be a git repository")},
	}
}

// TestHostile: whatever a remote does, the attempt ends with an error that
// names it, nothing stays on disk, and the next remote is used.
func TestHostile(t *testing.T) {
	table := make([]result, len(hostiles()))
	t.Run("all", func(t *testing.T) {
		for i, tt := range hostiles() {
			t.Run(strings.ReplaceAll(tt.name, " ", "-"), func(t *testing.T) {
				t.Parallel()
				table[i] = result{tt.name, attack(t, tt)}
			})
		}
	})
	t.Log("\n" + format(table))
}

func attack(t *testing.T, tt hostile) (did string) {
	w := newWorld(t)
	remote, commit := tt.prepare(t, w)
	w.opt.Limits = tt.limits
	_, err := w.open(t, remote).Fetch(t.Context(), 7, commit)
	tt.want(t, err)
	var failed *repo.RemoteError
	if !errors.As(err, &failed) || failed.Remote != remote {
		t.Errorf("Fetch = %v; want the remote's name in the error", err)
		return "?"
	}
	if entries, _ := usage(t, w.opt.Dir); entries != 0 {
		t.Errorf("%d entries were left on disk; want none", entries)
	}
	// The honest remote comes second, and the release is there.
	honest, err := gitserver.NewRepository(t.Context(), t.TempDir(), "honest")
	if err != nil {
		t.Fatal(err)
	}
	good, err := honest.Release(t.Context(), 7, map[string]string{"release.json": "good"}, "")
	if err != nil {
		t.Fatal(err)
	}
	w.opt.Limits.Bytes = 1 << 20 // the hostile one is asked for a commit that it does not have
	s, err := w.open(t, remote, honest.Bare).Fetch(t.Context(), 7, good)
	if err != nil {
		t.Fatalf("with an honest remote behind: %v", err)
	}
	if got, err := s.ReadFile("release.json", 10); err != nil || string(got) != "good" {
		t.Errorf("release.json = %q, %v", got, err)
	}
	text := failed.Err.Error()
	if cut := strings.IndexAny(text, ";\n"); cut > 0 {
		text = text[:cut]
	}
	return "refused: " + text
}

func format(table []result) string {
	var b strings.Builder
	for _, r := range table {
		fmt.Fprintf(&b, "  %-36s %.140s\n", r.attack, r.did)
	}
	return b.String()
}

func fault(f gitserver.Fault) func(*testing.T, *world) (string, string) {
	return func(t *testing.T, w *world) (string, string) {
		commit := w.release(t, 7, map[string]string{"release.json": bigText("x")})
		w.http.SetFault(f)
		return w.http.URL("fleet.git"), commit
	}
}

// huge makes a repository of noise by git fast-import, without compressing it.
func huge(files, size int) func(*testing.T, *world) (string, string) {
	return importing(files, size, 0, func(i int, buf []byte) {
		rand.NewChaCha8([32]byte{byte(i), byte(i >> 8), 1}).Read(buf[:min(len(buf), 1<<20)])
	})
}

// zeros makes files that compress a thousandfold.
func zeros(files int) func(*testing.T, *world) (string, string) {
	return importing(files, 1<<20, 6, func(i int, buf []byte) { buf[0] = byte(i) })
}

func importing(files, size, compression int, fill func(int, []byte)) func(*testing.T, *world) (string, string) {
	return func(t *testing.T, w *world) (string, string) {
		t.Helper()
		pipe, feed, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			defer feed.Close()
			out := bufio.NewWriterSize(feed, 1<<20)
			defer out.Flush()
			fmt.Fprintf(out, "commit refs/tags/xnode/7\ncommitter A <a@b> 1795180800 +0000\ndata 1\nx\n")
			buf := make([]byte, size)
			for i := range files {
				fill(i, buf)
				fmt.Fprintf(out, "M 100644 inline f/%d/%d\ndata %d\n", i%100, i, size)
				out.Write(buf)
				out.WriteByte('\n')
			}
		}()
		err = command.Run(t.Context(), command.Cmd{
			Name: "git", Package: "git", Dir: w.git.Bare, Stdin: pipe,
			Args: []string{"-c", fmt.Sprintf("core.compression=%d", compression), "fast-import", "--quiet"},
		})
		if err != nil {
			t.Fatal(err)
		}
		for key, value := range map[string]string{"pack.window": "0", "core.compression": fmt.Sprint(compression), "core.bigFileThreshold": "2m"} {
			if _, err := gitserver.Git(t.Context(), w.git.Bare, "config", key, value); err != nil {
				t.Fatal(err)
			}
		}
		commit, err := gitserver.Git(t.Context(), w.git.Bare, "rev-parse", "refs/tags/xnode/7")
		if err != nil {
			t.Fatal(err)
		}
		return w.http.URL("fleet.git"), commit
	}
}

// serve is a web server of a test's own.
func serve(t *testing.T, handler http.HandlerFunc) (remote, commit string) {
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL + "/fleet.git", strings.Repeat("ab", 20)
}

func redirect(to string) func(*testing.T, *world) (string, string) {
	return func(t *testing.T, _ *world) (string, string) {
		return serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", to)
			w.WriteHeader(http.StatusFound)
		})
	}
}

func page(kind, text string) func(*testing.T, *world) (string, string) {
	return func(t *testing.T, _ *world) (string, string) {
		return serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			fmt.Fprint(w, text)
		})
	}
}

// endless is a list of refs without end.
func endless() func(*testing.T, *world) (string, string) {
	return func(t *testing.T, _ *world) (string, string) {
		return serve(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
			id := strings.Repeat("12", 20)
			first := id + " refs/heads/main\x00shallow side-band-64k\n"
			fmt.Fprintf(w, "001e# service=git-upload-pack\n0000%04x%s", len(first)+4, first)
			for i := range 10 << 20 {
				line := fmt.Sprintf("%s refs/heads/%d\n", id, i)
				if _, err := fmt.Fprintf(w, "%04x%s", len(line)+4, line); err != nil {
					return
				}
			}
		})
	}
}

// made500MB sends a pack of 500 MB that no disk holds.
func made500MB() func(*testing.T, *world) (string, string) {
	return func(t *testing.T, _ *world) (string, string) {
		id := strings.Repeat("ab", 20)
		line := func(w io.Writer, text string) { fmt.Fprintf(w, "%04x%s", len(text)+4, text) }
		return serve(t, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodGet {
				w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
				fmt.Fprint(w, "001e# service=git-upload-pack\n0000")
				line(w, id+" refs/tags/xnode/7\x00shallow\n")
				fmt.Fprint(w, "0000")
				return
			}
			w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
			fmt.Fprint(w, "0000")
			line(w, "NAK\n")
			fmt.Fprint(w, "PACK\x00\x00\x00\x02\x00\x00\x01\xf4")
			block := make([]byte, 1<<20)
			for range 500 {
				// A blob of 1<<20 bytes: type 3 with the size's lowest 4 bits, then 7 bits a byte.
				if _, err := w.Write([]byte{0xb0, 0x80, 0x80, 0x04}); err != nil {
					return
				}
				z, err := zlib.NewWriterLevel(w, zlib.NoCompression)
				if err != nil {
					return
				}
				z.Write(block)
				z.Close()
			}
		})
	}
}

// TestBadPushIsForgotten: a moved tag stops nothing once it is right again.
func TestBadPushIsForgotten(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.release(t, 1, map[string]string{"release.json": "1"})
	second := w.release(t, 2, map[string]string{"release.json": "2"})
	r := w.open(t, w.http.URL("fleet.git"))
	if _, err := r.Fetch(t.Context(), 1, first); err != nil {
		t.Fatal(err)
	}
	if err := w.git.Push(t.Context(), first, "refs/tags/xnode/2"); err != nil {
		t.Fatal(err)
	}
	_, err := r.Fetch(t.Context(), 2, second)
	wantRef(t, err)
	if s, err := r.Fetch(t.Context(), 1, first); err != nil || s.Remote != "" {
		t.Errorf("the release before = %v, %v; want it untouched", s, err)
	}
	if err := w.git.Push(t.Context(), second, "refs/tags/xnode/2"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Fetch(t.Context(), 2, second); err != nil {
		t.Errorf("the honest push = %v; want it taken at once", err)
	}
}

// TestSigners: the tip's signature is no matter for a fetch, which the record
// binds, and decides for a local build.
func TestSigners(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := newKey(t, "ops@example.org")
	line, err := os.ReadFile(key + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	listed, err := trust.Parse([]byte(`ops namespaces="git" ` + string(line)))
	if err != nil {
		t.Fatal(err)
	}
	other, err := os.ReadFile(newKey(t, "new@example.org") + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	removed, err := trust.Parse([]byte(`new namespaces="git" ` + string(other)))
	if err != nil {
		t.Fatal(err)
	}
	var unknown *trust.UnknownKeyError
	var table []result
	for i, tt := range []struct {
		name    string
		key     string
		signers *trust.Signers
		ok      func(error) bool
	}{
		{"signed tip", key, listed, func(err error) bool { return err == nil }},
		{"unsigned tip", "", listed, func(err error) bool { return errors.Is(err, gitcommit.ErrUnsigned) }},
		{"tip of a removed key", key, removed, func(err error) bool { return errors.As(err, &unknown) }},
	} {
		seq := uint32(i + 1)
		commit, err := w.git.Release(t.Context(), seq, map[string]string{"release.json": tt.name}, tt.key)
		if err != nil {
			t.Fatal(err)
		}
		s, err := w.open(t, w.http.URL("fleet.git")).Fetch(t.Context(), seq, commit)
		if err != nil {
			t.Fatalf("%s: Fetch = %v; want it taken, the record binds it", tt.name, err)
		}
		_, err = gitcommit.Verify(s.CommitObject(), tt.signers)
		if !tt.ok(err) {
			t.Errorf("%s: Verify = %v", tt.name, err)
		}
		did := "build accepted"
		if err != nil {
			did, _, _ = strings.Cut("build refused: "+err.Error(), ";")
		}
		table = append(table, result{tt.name, "fetched; " + did})
	}
	t.Log("\n" + format(table))
}

// TestCredentials: a password goes to the server that it is for, and never
// along with a redirect to another one.
func TestCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	commit := w.release(t, 1, map[string]string{"release.json": "1"})
	private, err := gitserver.StartHTTP(t.Context(), gitserver.Options{Root: w.root, User: "node", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { private.Close() })
	remote := strings.Replace(private.URL("fleet.git"), "http://", "http://node:secret@", 1)
	if _, err := w.open(t, remote).Fetch(t.Context(), 1, commit); err != nil {
		t.Errorf("Fetch with the password = %v", err)
	}
	if err := os.RemoveAll(w.opt.Dir); err != nil {
		t.Fatal(err)
	}
	_, err = w.open(t, private.URL("fleet.git")).Fetch(t.Context(), 1, commit)
	wantText("give a user and password")(t, err)
	// The same server moves to another port: that is another origin.
	private.SetFault(gitserver.Fault{Redirect: "http://" + w.http.Addr})
	s, err := w.open(t, remote).Fetch(t.Context(), 1, commit)
	if err != nil || strings.Contains(s.Remote, "secret") {
		t.Fatalf("Fetch by a redirect = %v, %v", s, err)
	}
	if len(w.http.Requests()) != 2 {
		t.Errorf("the new host saw %v; want two requests", w.http.Requests())
	}
	for _, r := range w.http.Requests() {
		if r.Authorization != "" {
			t.Errorf("the password went to another host: %v", r)
		}
	}
	private.SetFault(gitserver.Fault{})
	private.Close()
	_, err = w.open(t, remote).Fetch(context.WithoutCancel(t.Context()), 2, commit)
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("Fetch of a dead server = %v; want an error without the password", err)
	}
}

// TestTLS: a certificate counts by the configured authorities only, and no
// redirect leads out of TLS.
func TestTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	commit := w.release(t, 1, map[string]string{"release.json": "1"})
	plain, err := url.Parse("http://" + w.http.Addr)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(plain)
	var down atomic.Bool
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if down.Load() {
			http.Redirect(rw, r, plain.String()+r.URL.RequestURI(), http.StatusFound)
			return
		}
		proxy.ServeHTTP(rw, r)
	}))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	remote := server.URL + "/fleet.git"
	_, err = w.open(t, remote).Fetch(t.Context(), 1, commit)
	wantText("certificate")(t, err)
	w.opt.RootCAs = x509.NewCertPool()
	w.opt.RootCAs.AddCert(server.Certificate())
	down.Store(true)
	_, err = w.open(t, remote).Fetch(t.Context(), 1, commit)
	wantText("refusing the redirect from https to http")(t, err)
	down.Store(false)
	if _, err := w.open(t, remote).Fetch(t.Context(), 1, commit); err != nil {
		t.Errorf("Fetch with the authority = %v", err)
	}
}

// TestSSHFiles: key and known_hosts that cannot be used are named.
func TestSSHFiles(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	commit := w.release(t, 1, map[string]string{"release.json": "1"})
	empty := filepath.Join(t.TempDir(), "empty")
	write(t, empty, "", 0o600)
	for _, tt := range []struct{ key, known, want string }{
		{empty, w.opt.KnownHosts, "no private key"},
		{empty + "x", w.opt.KnownHosts, "no such file"},
		{w.opt.SSHKey, empty, "ssh-keyscan"},
		{w.opt.SSHKey, empty + "x", "no such file"},
	} {
		opt := w.opt
		opt.SSHKey, opt.KnownHosts, opt.Remotes = tt.key, tt.known, []string{w.ssh.URL("fleet.git")}
		r, err := repo.Open(opt)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Fetch(t.Context(), 1, commit)
		wantText(tt.want)(t, err)
	}
}
