package nixstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/command"
)

// Daemon starts a nix-daemon of the store on a socket of its own, which every
// user may enter, and returns the socket's path. The context's end ends it; wait
// then waits for that.
func (s *Store) Daemon(ctx context.Context) (socket string, wait func(), err error) {
	// The first who opens a store makes it, and two at a time stumble over one another.
	if _, err := s.Run(ctx, "nix-store", "--init"); err != nil {
		return "", nil, err
	}
	socket = filepath.Join(s.Dir, "socket")
	p, err := command.Start(ctx, command.Cmd{
		Name: "nix-daemon", Package: "nix-bin", AddEnv: append(s.Env, "NIX_REMOTE="+s.URL(), "NIX_DAEMON_SOCKET_PATH="+socket),
	})
	if err != nil {
		return "", nil, err
	}
	wait = func() { _ = p.Wait() } // it ends by our signal
	for range 500 {
		var conn net.Conn
		var d net.Dialer
		if conn, err = d.DialContext(ctx, "unix", socket); err == nil {
			conn.Close()
			return socket, wait, nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return "", nil, fmt.Errorf("nix-daemon does not listen: %w", err)
}

// Nobody is the user id of a client without rights.
const Nobody = 65534

// DialAs connects to a socket as another user, if we are root; another user than
// root is one without rights already. The rest of the process stays what it is.
func DialAs(ctx context.Context, socket string, uid int) (net.Conn, error) {
	if os.Geteuid() != 0 {
		return dial(ctx, socket)
	}
	var conn net.Conn
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its user id
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		if errno != 0 {
			done <- errno
			return
		}
		var err error
		conn, err = dial(ctx, socket)
		done <- err
	}()
	return conn, <-done
}

// dial connects on the calling thread.
func dial(_ context.Context, socket string) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: socket}); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	f := os.NewFile(uintptr(fd), socket)
	defer f.Close() // FileConn works on a copy
	return net.FileConn(f)
}

// Stdio starts `nix-daemon --stdio` on the store: what it is asked there it does
// for a user that it trusts. Closing the connection ends it.
func (s *Store) Stdio(ctx context.Context) (io.ReadWriteCloser, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, inR.Close(), inW.Close())
	}
	p, err := command.Start(ctx, command.Cmd{
		Name: "nix-daemon", Args: []string{"--stdio", "--store", s.URL()}, AddEnv: s.Env, Package: "nix-bin", Stdin: inR, Stdout: outW,
	})
	inR.Close()
	outW.Close()
	if err != nil {
		return nil, errors.Join(err, inW.Close(), outR.Close())
	}
	return &stdio{p, inW, outR}, nil
}

type stdio struct {
	p       *command.Process
	in, out *os.File
}

func (s *stdio) Read(p []byte) (int, error)  { return s.out.Read(p) }
func (s *stdio) Write(p []byte) (int, error) { return s.in.Write(p) }

func (s *stdio) Close() error {
	err := errors.Join(s.in.Close(), s.out.Close())
	_ = s.p.Wait() // it may end badly when it is cut off: that is meant
	return err
}
