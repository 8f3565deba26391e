package applier

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/agent"
	"xnodeos.org/agent/apply"
	"xnodeos.org/agent/apply/client"
	"xnodeos.org/agent/journal"
	"xnodeos.org/internal/announce"
)

// site is a served applier on a machine of which B is good.
type site struct {
	*machine
	e      *envelope
	socket string
	a      *apply.Applier
}

// serve answers at a socket as if the given user were the follower's.
func serve(t *testing.T, follower uint32, p plan) *site {
	t.Helper()
	s := &site{machine: newMachine(t, p), e: testEnvelope(t, p.medium), socket: filepath.Join(t.TempDir(), "s")}
	ctx, cancel := context.WithCancel(t.Context())
	s.process = &process{cancel: cancel}
	s.a = apply.New(s.options(s.e))
	if err := s.a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: s.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	server := &apply.Server{Applier: s.a, Follower: follower, Idle: time.Hour, Patience: 10 * time.Second}
	go func() { done <- server.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		l.Close()
		s.a.Wait()
	})
	return s
}

// handle asks past the socket, as the follower does once it was let in.
func (s *site) handle(t *testing.T, req agent.Request) agent.Response {
	t.Helper()
	return s.a.Handle(t.Context(), req)
}

func (s *site) refusedWith(t *testing.T, what string, req agent.Request, want agent.Code) {
	t.Helper()
	before := s.a.Status()
	resp := s.handle(t, req)
	if resp.Refused == nil || resp.Refused.Code != want {
		t.Errorf("%s: got %+v %q; want refusal %q", what, resp.Refused, resp.Error, want)
	}
	after := s.a.Status()
	if s.current != systemA || after.Accepted != before.Accepted || len(after.Quarantine) != len(before.Quarantine) || !after.State.Equal(before.State) {
		t.Errorf("%s: it changed something: %s runs, %+v", what, s.current, after)
	}
}

// TestCompromisedFollower: whoever is user xnode can ask for everything that
// the follower asks for, with whatever bytes, and gets nothing activated that
// no record names, no quarantine cleared, and no order lowered.
func TestCompromisedFollower(t *testing.T) {
	t.Parallel()
	s := serve(t, uint32(os.Getuid()), plans[0])
	e := s.e
	rel := e.releaseOf(2, systemB, false)
	good := agent.Request{Op: agent.OpTry, Record: e.record(rel, nil, 1), Release: rel, System: systemB}
	if resp := s.handle(t, agent.Request{Op: agent.OpAccept, Record: good.Record, Release: rel}); resp.Refused != nil || resp.Error != "" {
		t.Fatalf("accept: %+v %s", resp.Refused, resp.Error)
	}
	if err := journal.OpenMemory(filepath.Join(s.dir, "applier")).AddVerdict(agent.Verdict{System: systemC}); err != nil {
		t.Fatal(err)
	}
	with := func(change func(*agent.Request)) agent.Request {
		r := good
		change(&r)
		return r
	}
	other := e.releaseOf(2, systemC, false)
	old := e.releaseOf(1, systemC, false)
	third := e.releaseOf(3, systemC, false)
	newer := func(rel []byte, sequence uint32, change func(*announce.Record)) string {
		return e.record(rel, func(r *announce.Record) {
			r.Sequence = sequence
			if change != nil {
				change(r)
			}
		}, 1)
	}
	for _, tt := range []struct {
		what string
		req  agent.Request
		want agent.Code
	}{
		{"another system than the release names", with(func(r *agent.Request) { r.System = systemC }), agent.CodeInvalid},
		{"another release under the record", with(func(r *agent.Request) { r.Release, r.System = other, systemC }), agent.CodeInvalid},
		{"a record by a key that is not trusted", with(func(r *agent.Request) { r.Record = e.record(rel, nil, 9) }), agent.CodeInvalid},
		{"a changed signature", with(func(r *agent.Request) { r.Record = strings.Replace(r.Record, "sig=", "sig=A", 1) }), agent.CodeInvalid},
		{"an older sequence", agent.Request{Op: agent.OpTry, Record: newer(old, 1, nil), Release: old, System: systemC}, agent.CodeReplay},
		{"an older time of the same sequence", with(func(r *agent.Request) {
			r.Record = e.record(rel, func(x *announce.Record) { x.Published-- }, 1)
		}), agent.CodeReplay},
		{"another release of the same order", agent.Request{Op: agent.OpAccept, Record: e.record(other, nil, 1), Release: other}, agent.CodeReplay},
		{"a jump", agent.Request{Op: agent.OpAccept, Record: newer(third, 3<<20, nil), Release: third}, agent.CodeReplay},
		{"an expired record", agent.Request{Op: agent.OpAccept, Release: third, Record: newer(third, 3, func(x *announce.Record) {
			x.Published, x.Expires = published-1000, published
		})}, agent.CodeInvalid},
		{"no record at all", agent.Request{Op: agent.OpTry, System: systemB}, agent.CodeInvalid},
		{"staging on a live node", with(func(r *agent.Request) { r.Op, r.Window = agent.OpStage, true }), agent.HeldNeedsArtifact},
		{"a trust document of nobody", agent.Request{Op: agent.OpTrust, Trust: &agent.TrustFile{Document: []byte(`{"v":1}`)}}, agent.CodeInvalid},
		{"no trust document", agent.Request{Op: agent.OpTrust}, agent.CodeInvalid},
		{"an unknown operation", agent.Request{Op: "commit"}, agent.CodeInvalid},
	} {
		s.refusedWith(t, tt.what, tt.req, tt.want)
	}

	// A signed record for a quarantined system counts as news, and is not tried.
	resp := s.handle(t, agent.Request{Op: agent.OpTry, Record: newer(third, 3, nil), Release: third, System: systemC})
	if resp.Refused == nil || resp.Refused.Code != agent.CodeQuarantined || s.current != systemA {
		t.Errorf("quarantined system: %+v, %s runs", resp.Refused, s.current)
	}
	if st := s.a.Status(); st.Accepted.Sequence != 3 || len(st.Quarantine) != 1 {
		t.Errorf("after it: accepted %d, quarantine %v", st.Accepted.Sequence, st.Quarantine)
	}
	s.refusedWith(t, "back to the release before", good, agent.CodeReplay)
}

// TestPeers: the kernel says who asks. Root takes the credentials of others in
// a thread of its own; an ordinary user is the follower, or a stranger where
// somebody else is the follower.
func TestPeers(t *testing.T) {
	t.Parallel()
	own := uint32(os.Getuid())
	type caller struct {
		uid, follower uint32
		allowed       func(agent.Op) bool
	}
	all, none := func(agent.Op) bool { return true }, func(agent.Op) bool { return false }
	callers := []caller{{own, own, agent.Op.ForFollower}, {own, own + 1, none}}
	if own == 0 {
		callers = []caller{{0, 4711, all}, {4711, 4711, agent.Op.ForFollower}, {4712, 4711, none}}
	}
	for _, c := range callers {
		s := serve(t, c.follower, plans[0])
		for dir := filepath.Dir(s.socket); dir != os.TempDir() && len(dir) > 4; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(s.socket, 0o666); err != nil { // the file's mode is the unit's; here the peer is what counts
			t.Fatal(err)
		}
		for _, op := range agent.Ops() {
			resp := s.askAs(t, c.uid, agent.Request{Op: op, System: systemC})
			forbidden := resp.Refused != nil && resp.Refused.Code == agent.CodeForbidden
			if forbidden == c.allowed(op) {
				t.Errorf("%s as user %d, follower %d: %+v", op, c.uid, c.follower, resp.Refused)
			}
			if forbidden && resp.Status != nil {
				t.Errorf("%s as user %d: refused, but told the status", op, c.uid)
			}
		}
	}
}

// askAs asks with another user's credentials, which only root can take.
func (s *site) askAs(t *testing.T, uid uint32, req agent.Request) agent.Response {
	t.Helper()
	line, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	type answer struct {
		resp agent.Response
		err  error
	}
	got := make(chan answer, 1)
	go func() {
		var a answer
		defer func() { got <- a }()
		runtime.LockOSThread() // never unlocked: the thread ends with its credentials
		if uid != uint32(os.Getuid()) {
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
				a.err = errno
				return
			}
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		if err != nil {
			a.err = err
			return
		}
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		if a.err = unix.Connect(fd, &unix.SockaddrUnix{Name: s.socket}); a.err != nil {
			return
		}
		if _, a.err = f.Write(append(line, '\n')); a.err == nil || errors.Is(a.err, unix.EPIPE) {
			a.err = json.NewDecoder(f).Decode(&a.resp)
		}
	}()
	a := <-got
	if a.err != nil {
		t.Fatalf("ask as user %d: %v", uid, a.err)
	}
	return a.resp
}

// TestMalformed: whatever is sent, the next request is answered.
func TestMalformed(t *testing.T) {
	t.Parallel()
	s := serve(t, uint32(os.Getuid()), plans[0])
	send := func(data []byte) string {
		conn, err := net.Dial("unix", s.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		go func() {
			conn.Write(data) // the server may have had enough
			conn.(*net.UnixConn).CloseWrite()
		}()
		conn.SetReadDeadline(time.Now().Add(time.Minute))
		line, _ := bufio.NewReader(conn).ReadString('\n')
		return line
	}
	huge := append([]byte(`{"op":"status","record":"`), make([]byte, agent.MaxRequest+10)...)
	for name, data := range map[string][]byte{
		"nothing": nil, "no JSON": []byte("GET / HTTP/1.1\r\n\r\n"), "a list": []byte("[1]\n"), "cut": []byte(`{"op":"sta`),
		"wrong type": []byte("{\"op\":7}\n"), "deep": []byte(strings.Repeat("[", 100000) + "\n"), "too long": huge,
		"record of zeros": append([]byte(`{"op":"try","record":"`), append(make([]byte, 1000), "\"}\n"...)...),
	} {
		var resp agent.Response
		if line := send(data); line == "" && name == "too long" {
			// the connection may break before the answer is read
		} else if err := json.Unmarshal([]byte(line), &resp); err != nil || resp.Refused == nil {
			t.Errorf("%s: answer %.200q, %v; want a refusal", name, line, err)
		}
		if _, err := client.New(s.socket).Do(t.Context(), agent.Request{Op: agent.OpStatus}); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
	if s.current != systemA || !s.a.State().Phase.AtRest() {
		t.Errorf("it changed something: %s runs", s.current)
	}
}
