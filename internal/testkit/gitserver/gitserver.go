// Package gitserver serves real git repositories on loopback: over HTTP by git
// http-backend and over ssh by git-upload-pack and git-receive-pack, both with
// faults that a test switches on while it runs.
//
// It is for tests and for programs in test/, not for production: every
// repository below the root can be read and, by who may log in, written.
package gitserver

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"log" //nolint:depguard // net/http/cgi takes no other logger
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a server. Only Root is needed.
type Options struct {
	// Root is the folder whose repositories are served.
	Root string
	// Listen is the address, 127.0.0.1:0 if empty.
	Listen string
	// User and Password must be given by HTTP clients, if set.
	User, Password string
	// AuthorizedKey is the one public key (a line as in authorized_keys) that
	// may log in over ssh; any key may if it is empty.
	AuthorizedKey string
	// HostKey is the ssh server's private host key, a new ed25519 one if nil.
	HostKey crypto.Signer
}

// Fault is what a server does wrong. The zero value is a good server.
type Fault struct {
	// After is how many bytes a connection sends before the fault begins.
	After int64
	// Then is what happens.
	Then Misdeed
	// Redirect (HTTP only) answers every request with a redirect to this URL
	// and the request's own path and query behind it.
	Redirect string
}

// Misdeed is a kind of fault.
type Misdeed int

// The misdeeds of a connection: nothing, silence, a cut, one byte a second.
const (
	None Misdeed = iota
	Stall
	Cut
	Slow
)

// Server is a running server.
type Server struct {
	// Addr is host:port.
	Addr string
	// HostKey is an ssh server's public host key, as a line of known_hosts.
	HostKey string

	scheme string
	stop   func() error
	fault  atomic.Pointer[Fault]
	sent   atomic.Int64
	lock   sync.Mutex
	seen   []Request
	ctx    context.Context // of the server: conns end with it
}

// Request is one HTTP request that came in.
type Request struct {
	Method, Path  string
	Authorization string
}

// URL returns the address of a repository below the root.
func (s *Server) URL(repository string) string {
	if s.scheme == "ssh" {
		return "ssh://git@" + s.Addr + "/" + repository
	}
	return s.scheme + "://" + s.Addr + "/" + repository
}

// SetFault makes the server misbehave from now on, on new connections.
func (s *Server) SetFault(f Fault) { s.fault.Store(&f) }

// Sent returns the bytes that were sent so far.
func (s *Server) Sent() int64 { return s.sent.Load() }

// Requests returns the HTTP requests so far.
func (s *Server) Requests() []Request {
	s.lock.Lock()
	defer s.lock.Unlock()
	return append([]Request(nil), s.seen...)
}

// Close stops the server and waits for its connections.
func (s *Server) Close() error { return s.stop() }

// StartHTTP starts git's own HTTP server program behind a loopback port. It
// runs until ctx ends or Close.
func StartHTTP(ctx context.Context, opt Options) (*Server, error) {
	git, err := exec.LookPath("git")
	if err != nil {
		return nil, errors.New("git is not installed; run scripts/setup")
	}
	s, listener, err := listen(ctx, opt)
	if err != nil {
		return nil, err
	}
	s.scheme = "http"
	backend := &cgi.Handler{
		Path: git, Args: []string{"http-backend"}, Dir: opt.Root, Stderr: io.Discard,
		Logger: log.New(io.Discard, "", 0), // it tells of every client that went away
		Env: append(cleanEnv(), "GIT_PROJECT_ROOT="+opt.Root, "GIT_HTTP_EXPORT_ALL=1",
			"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=http.receivepack", "GIT_CONFIG_VALUE_0=true"),
	}
	server := &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.note(r)
			if f := s.fault.Load(); f.Redirect != "" {
				http.Redirect(w, r, f.Redirect+r.URL.RequestURI(), http.StatusFound)
				return
			}
			user, password, _ := r.BasicAuth()
			if opt.User != "" && (user != opt.User || password != opt.Password) {
				w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
				http.Error(w, "who are you?", http.StatusUnauthorized)
				return
			}
			backend.ServeHTTP(w, r)
		}),
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(listener) // always an error at the end
	}()
	stop := context.AfterFunc(ctx, func() { server.Close() })
	s.stop = func() error {
		stop()
		err := server.Close()
		<-done
		return err
	}
	return s, nil
}

func (s *Server) note(r *http.Request) {
	s.lock.Lock()
	defer s.lock.Unlock()
	s.seen = append(s.seen, Request{r.Method, r.URL.Path, r.Header.Get("Authorization")})
}

func listen(ctx context.Context, opt Options) (*Server, net.Listener, error) {
	if _, err := os.Stat(opt.Root); err != nil {
		return nil, nil, fmt.Errorf("root of the git server: %w", err)
	}
	address := opt.Listen
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, nil, fmt.Errorf("start git server: %w", err)
	}
	s := &Server{Addr: listener.Addr().String(), ctx: ctx}
	s.SetFault(Fault{})
	return s, &faultyListener{listener, s}, nil
}

// faultyListener hands out connections that misbehave as the server says.
type faultyListener struct {
	net.Listener
	s *Server
}

func (l *faultyListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &faultyConn{Conn: c, s: l.s, fault: *l.s.fault.Load(), closed: make(chan struct{})}, nil
}

type faultyConn struct {
	net.Conn
	s      *Server
	fault  Fault
	sent   int64
	once   sync.Once
	closed chan struct{}
}

func (c *faultyConn) Write(p []byte) (int, error) {
	total := 0
	for len(p) > 0 {
		n := int64(len(p))
		if c.fault.Then != None {
			if n = min(n, c.fault.After-c.sent); n <= 0 {
				var err error
				if n, err = c.misbehave(); err != nil {
					return total, err
				}
			}
		}
		wrote, err := c.Conn.Write(p[:n])
		total += wrote
		c.sent += int64(wrote)
		c.s.sent.Add(int64(wrote))
		p = p[wrote:]
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// misbehave does what the fault says and returns how much may be sent next.
func (c *faultyConn) misbehave() (int64, error) {
	var pause <-chan time.Time
	switch c.fault.Then {
	case Cut:
		c.Close()
		return 0, net.ErrClosed
	case Slow:
		pause = time.After(time.Second)
	}
	select {
	case <-pause: // for ever, if it stands still
		return 1, nil
	case <-c.closed:
		return 0, net.ErrClosed
	case <-c.s.ctx.Done():
		return 0, net.ErrClosed
	}
}

func (c *faultyConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// cleanEnv is an environment in which git does the same on every machine.
func cleanEnv() []string {
	return []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "LC_ALL=C", "TZ=UTC",
		"GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_TERMINAL_PROMPT=0",
	}
}
