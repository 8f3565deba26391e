package apply

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/agent"
)

// Server answers on the applier's socket.
type Server struct {
	Applier *Applier
	// Follower is the user id of the unprivileged half.
	Follower uint32
	// Idle is after how long without work and requests Serve returns.
	Idle time.Duration
	// Patience bounds how long a peer may take to ask and to listen.
	Patience time.Duration
}

// maxPeers is how many connections are served at once: what a peer sends is
// held in memory.
const maxPeers = 4

// Serve answers until ctx ends or the applier is idle. It closes the listener's
// connections, not the listener, which systemd keeps.
func (s *Server) Serve(ctx context.Context, l *net.UnixListener) error {
	var peers sync.WaitGroup
	defer peers.Wait()
	accepting, stop := context.WithCancel(ctx)
	defer stop()
	unblock := context.AfterFunc(accepting, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	defer unblock()
	peers.Go(func() { s.watch(accepting, stop) })

	slots := make(chan struct{}, maxPeers)
	for {
		select {
		case slots <- struct{}{}:
		case <-accepting.Done():
			return nil
		}
		conn, err := l.AcceptUnix()
		if err != nil {
			if accepting.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept on %s: %w", l.Addr(), err)
		}
		s.Applier.stirred()
		peers.Go(func() {
			defer func() { <-slots }()
			s.answer(ctx, conn)
			s.Applier.stirred()
		})
	}
}

// watch ends the server when nothing happened for a while.
func (s *Server) watch(ctx context.Context, stop func()) {
	timer := time.NewTimer(s.Idle)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Applier.quiet:
		case <-timer.C:
			if !s.Applier.Working() {
				stop()
				return
			}
		}
		timer.Reset(s.Idle)
	}
}

// Working says whether effects are being carried out.
func (a *Applier) Working() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.working
}

func (s *Server) answer(ctx context.Context, conn *net.UnixConn) {
	log := s.Applier.opt.Log
	defer func() { _ = conn.Close() }()                                      // the answer is whole or was not
	if err := conn.SetReadDeadline(time.Now().Add(s.Patience)); err != nil { //nolint:forbidigo // deadlines of connections are the machine's time
		log.Warn("socket", "err", err)
		return
	}
	uid, err := peer(conn)
	if err != nil {
		log.Warn("peer of the socket", "err", err)
		return
	}
	if uid != 0 && uid != s.Follower {
		log.Warn("refused a stranger at the socket", "uid", uid)
		s.reply(conn, agent.Response{Refused: &agent.Reason{Code: agent.CodeForbidden, Text: fmt.Sprintf("user id %d may not ask", uid)}})
		return
	}
	req, err := read(conn)
	if err != nil {
		log.Warn("request", "uid", uid, "err", err)
		s.reply(conn, agent.Response{Refused: &agent.Reason{Code: agent.CodeInvalid, Text: clamp(err.Error())}})
		return
	}
	if uid != 0 && !req.Op.ForFollower() {
		log.Warn("refused an operation", "uid", uid, "op", clamp(string(req.Op)))
		s.reply(conn, agent.Response{Refused: &agent.Reason{Code: agent.CodeForbidden, Text: fmt.Sprintf("%q is for root", clamp(string(req.Op)))}})
		return
	}
	s.reply(conn, s.Applier.Handle(ctx, req))
}

func (s *Server) reply(conn *net.UnixConn, resp agent.Response) {
	data, err := json.Marshal(resp)
	if err == nil && len(data) >= agent.MaxResponse {
		err = fmt.Errorf("the answer has %d bytes, at most %d", len(data), agent.MaxResponse)
		data, _ = json.Marshal(agent.Response{Error: err.Error()}) // a string: cannot fail
	}
	if dead := conn.SetWriteDeadline(time.Now().Add(s.Patience)); dead != nil { //nolint:forbidigo // deadlines of connections are the machine's time
		err = errors.Join(err, dead)
	}
	_, writeErr := conn.Write(append(data, '\n'))
	if err = errors.Join(err, writeErr); err != nil {
		s.Applier.opt.Log.Warn("answer", "err", err)
	}
}

// read takes one request, a line of bounded length.
func read(r io.Reader) (agent.Request, error) {
	var req agent.Request
	line, err := bufio.NewReader(io.LimitReader(r, agent.MaxRequest+1)).ReadBytes('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return req, fmt.Errorf("read request: %w", err)
	}
	if len(line) > agent.MaxRequest {
		return req, fmt.Errorf("read request: more than %d bytes", agent.MaxRequest)
	}
	return Decode(line)
}

// Decode reads a request.
func Decode(line []byte) (agent.Request, error) {
	var req agent.Request
	if err := json.Unmarshal(line, &req); err != nil {
		return req, fmt.Errorf("read request: %w", err)
	}
	return req, nil
}

// peer asks the kernel who connected (unix(7), SO_PEERCRED).
func peer(conn *net.UnixConn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("peer credentials: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, fmt.Errorf("peer credentials: %w", err)
	}
	if credErr != nil {
		return 0, fmt.Errorf("peer credentials: %w", credErr)
	}
	return cred.Uid, nil
}
