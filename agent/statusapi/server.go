package statusapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Commands are what the unix socket may ask of the follower.
type Commands interface {
	// Poll asks for the record now; it returns at once and its effect shows in
	// the status.
	Poll(ctx context.Context) error
	// Reread asks DNS now and returns what came, for the probe that a new
	// system has to pass.
	Reread(ctx context.Context) (Reread, error)
}

// Reread is DNS's answer as it was just received. It is not judged: who asked
// does.
type Reread struct {
	Texts  []string `json:"texts"`
	Source string   `json:"source"`
}

// Options say how a Server behaves.
type Options struct {
	Commands Commands
	Log      *slog.Logger
	// Program names the running program to metrics: its label or version.
	Program string
}

// Server serves the newest status that Set was given.
type Server struct {
	opt      Options
	patience time.Duration // for a reader of one answer

	mu      sync.Mutex
	status  Status
	changed chan struct{} // closed at each Set
}

// New returns a server that shows an empty status.
func New(opt Options) *Server {
	return &Server{opt: opt, patience: patience, status: Status{V: Version, Health: Degraded, Phase: "STARTING"}, changed: make(chan struct{})}
}

// Set shows a new status and wakes who watches.
func (s *Server) Set(status Status) {
	status.V = Version
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status = status
	close(s.changed)
	s.changed = make(chan struct{})
}

// get returns the status and a channel that closes at the next change.
func (s *Server) get() (Status, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status, s.changed
}

// ServeSocket serves the unix socket, commands included, until ctx ends.
func (s *Server) ServeSocket(ctx context.Context, l net.Listener) error {
	mux := s.readOnly()
	mux.HandleFunc("POST /poll", func(w http.ResponseWriter, r *http.Request) {
		if err := s.opt.Commands.Poll(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("POST /reread", func(w http.ResponseWriter, r *http.Request) {
		got, err := s.opt.Commands.Reread(r.Context())
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		s.writeJSON(w, got)
	})
	return s.serve(ctx, l, mux)
}

// ServePage serves the loopback port until ctx ends: reading only.
func (s *Server) ServePage(ctx context.Context, l net.Listener) error {
	return s.serve(ctx, l, loopbackOnly(s.readOnly()))
}

func (s *Server) serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      s.patience,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(s.opt.Log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() {
		// Watchers' requests end with ctx; a moment for the others.
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			_ = srv.Close() // what is left are readers that do not read
		}
	})
	defer stop()
	if err := srv.Serve(newBounded(l)); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve status on %s: %w", l.Addr(), err)
	}
	return nil
}

// readOnly is what both listeners serve.
func (s *Server) readOnly() *http.ServeMux {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) {
		status, _ := s.get()
		s.writeJSON(w, status)
	})
	mux.HandleFunc("GET /watch", s.watch)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "alive") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if status, _ := s.get(); status.Phase == "STARTING" {
			http.Error(w, "starting", http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ready")
	})
	mux.HandleFunc("GET /metrics", s.serveMetrics)
	mux.HandleFunc("GET /{$}", s.page)
	return mux
}

// watch sends the status as a line of JSON now and at each change.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	flush := http.NewResponseController(w)
	for {
		status, changed := s.get()
		if s.extend(flush) != nil || json.NewEncoder(w).Encode(status) != nil || flush.Flush() != nil {
			return // the reader has gone, or does not read
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
	}
}

func (s *Server) writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		s.opt.Log.Debug("a reader of the status went away", "error", err)
	}
}

// loopbackOnly refuses requests under any other name than a loopback one: a web
// page that points its own name at 127.0.0.1 (DNS rebinding) must read nothing.
func loopbackOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		addr, err := netip.ParseAddr(strings.Trim(host, "[]"))
		if host != "localhost" && (err != nil || !addr.IsLoopback()) {
			http.Error(w, "this page is served to localhost only", http.StatusForbidden)
			return
		}
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}
