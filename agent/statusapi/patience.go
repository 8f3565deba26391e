package statusapi

import (
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	// patience is how long a reader may take for one answer. It is more than
	// asking DNS again may take.
	patience = 90 * time.Second
	// maxConns bounds the connections of each listener: every local user may
	// open the page, and what a connection holds is memory of the agent.
	maxConns = 64
)

// bounded gives out at most as many connections at a time as it has slots.
type bounded struct {
	net.Listener
	slots chan struct{}
}

func newBounded(l net.Listener) *bounded { return &bounded{l, make(chan struct{}, maxConns)} }

// Accept implements net.Listener. It waits for a slot while it is full.
func (b *bounded) Accept() (net.Conn, error) {
	b.slots <- struct{}{}
	conn, err := b.Listener.Accept()
	if err != nil {
		<-b.slots
		return nil, err //nolint:wrapcheck // of a net.Listener, for net/http
	}
	return &slot{Conn: conn, free: sync.OnceFunc(func() { <-b.slots })}, nil
}

// slot is a connection that gives its place back.
type slot struct {
	net.Conn
	free func()
}

// Close implements net.Conn.
func (s *slot) Close() error {
	defer s.free()
	return s.Conn.Close() //nolint:wrapcheck // of a net.Conn, for net/http
}

// extend gives the reader of a stream time for what is written next.
func (s *Server) extend(flush *http.ResponseController) error {
	return flush.SetWriteDeadline(time.Now().Add(s.patience)) //nolint:forbidigo,wrapcheck // deadlines of connections are the machine's time
}
