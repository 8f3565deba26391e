package statusapi

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// startImpatient serves a socket whose readers have little time.
func startImpatient(t *testing.T, patience time.Duration) (*Server, string) {
	t.Helper()
	s := New(Options{Commands: &asked{}, Log: slog.New(slog.DiscardHandler)})
	s.patience = patience
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.ServeSocket(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, socket
}

// A watcher of a node at which nothing happens stays, however long.
func TestWatchOutlivesItsPatience(t *testing.T) {
	t.Parallel()
	s, socket := startImpatient(t, 200*time.Millisecond)
	s.Set(example())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	timer := time.AfterFunc(time.Second, func() {
		last := example()
		last.Phase = "LATER"
		s.Set(last)
	})
	defer timer.Stop()
	err := NewClient(socket).Watch(ctx, func(got *Status) error {
		if got.Phase == "LATER" {
			cancel()
		}
		return nil
	})
	if ctx.Err() == nil {
		t.Errorf("the watch ended: %v", err)
	}
}

// Who asks and does not read is cut off: what waits for him is memory.
func TestReaderWhoDoesNotReadIsCutOff(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/status", "/watch"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			s, socket := startImpatient(t, 200*time.Millisecond)
			huge := example()
			huge.Reason = strings.Repeat("x", 8<<20)
			s.Set(huge)
			conn, err := net.Dial("unix", socket)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", path); err != nil {
				t.Fatal(err)
			}
			// Only the writer's time is over, so what comes is not all.
			cut := make(chan int64)
			go func() {
				time.Sleep(2 * time.Second)
				n, _ := io.Copy(io.Discard, conn) // ends with the connection
				cut <- n
			}()
			select {
			case n := <-cut:
				if n >= 8<<20 {
					t.Errorf("%d bytes came; want the connection cut before", n)
				}
			case <-time.After(time.Minute):
				t.Error("the connection is still open")
			}
		})
	}
}

// Every local user may open the page; together they must not use up the agent.
func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	_, socket := startImpatient(t, time.Minute)
	var conns []net.Conn
	for range maxConns {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET /watch HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, 15)); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
	}
	client := NewClient(socket)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, err := client.Status(ctx); err == nil {
		t.Errorf("connection %d is served", maxConns+1)
	}
	if err := conns[0].Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Status(t.Context()); err != nil {
		t.Errorf("after one of %d left: %v", maxConns, err)
	}
}

// Two requests in one, or one in two, get no further than the parser.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	for _, head := range []string{
		"POST /poll HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
		"POST /poll HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
		"GET /status HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET /status HTTP/1.1\r\n Host: a\r\n\r\n",
		"GET /status HTTP/1.1\r\nHost : a\r\n\r\n",
	} {
		_, a, socket, _ := start(t)
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, head); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 12)
		if _, err := io.ReadFull(conn, answer); err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 4")) && !bytes.HasPrefix(answer, []byte("HTTP/1.1 501")) {
			t.Errorf("%q is answered with %q, %v", head, answer, err)
		}
		if n := a.polls.Load(); n != 0 {
			t.Errorf("%q polled", head)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A page of the web that has its name point here must not read anything,
// whatever it makes of the name.
func TestRebinding(t *testing.T) {
	t.Parallel()
	s, _, _, page := start(t)
	s.Set(example())
	for host, want := range map[string]int{
		"localhost": 200, "localhost:9780": 200, "127.0.0.1:1": 200, "[::1]:9780": 200,
		"evil.example": 403, "127.0.0.1.evil.example": 403, "localhost.evil.example": 403, "localhost.": 403,
		"192.0.2.1": 403, "[::ffff:192.0.2.1]": 403, "0.0.0.0:9780": 403, "localhost:9780:1": 403,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, page+"/status", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if resp.StatusCode != want || want == 403 && bytes.Contains(body, []byte("SHA256")) {
			t.Errorf("as %q it answers %d; want %d", host, resp.StatusCode, want)
		}
	}
}

// What a server, a probe or a broken follower says must not reach the terminal
// of whoever asks, who may be root.
func TestTextSpeaksNoEscapes(t *testing.T) {
	t.Parallel()
	s := example()
	const evil = "x\x1b]0;owned\a\x1b[2J\u009b31m\u202e\r\ny"
	s.Reason, s.Phase, s.Poll.Error, s.Problems, s.Node.Hostname = evil, evil, evil, []string{evil}, evil
	s.Systems.Current, s.Record.Source, s.Probes[0].Observed = "/nix/store/a-"+evil, evil, evil
	s.History[0].Detail, s.History[0].Event = evil, evil
	var out bytes.Buffer
	if err := s.WriteText(&out, 0); err != nil {
		t.Fatal(err)
	}
	if err := WriteHistory(&out, s.History); err != nil {
		t.Fatal(err)
	}
	out.WriteString(s.Oneline())
	if strings.ContainsAny(out.String(), "\x1b\a\u009b\u202e\r") {
		t.Errorf("control characters in %q", out.String())
	}
}
