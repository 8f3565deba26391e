package gitserver

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"

	"xnodeos.org/internal/command"
)

// StartSSH starts an ssh server. It runs until ctx
// ends or Close.
func StartSSH(ctx context.Context, opt Options) (*Server, error) {
	if opt.HostKey == nil {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		opt.HostKey = key
	}
	host, err := ssh.NewSignerFromSigner(opt.HostKey)
	if err != nil {
		return nil, err
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if opt.AuthorizedKey == "" {
			return nil, nil
		}
		want, _, _, _, err := ssh.ParseAuthorizedKey([]byte(opt.AuthorizedKey))
		if err != nil || !bytes.Equal(want.Marshal(), key.Marshal()) {
			return nil, errors.New("not this key")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	s, listener, err := listen(ctx, opt)
	if err != nil {
		return nil, err
	}
	s.scheme = "ssh"
	name, port, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return nil, err
	}
	s.HostKey = fmt.Sprintf("[%s]:%s %s", name, port, bytes.TrimSpace(ssh.MarshalAuthorizedKey(host.PublicKey())))
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			all.Go(func() { serveSSH(ctx, c, config, opt.Root) })
		}
	})
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	s.stop = func() error {
		cancel()
		stop()
		err := listener.Close()
		if errors.Is(err, net.ErrClosed) {
			err = nil
		}
		all.Wait()
		return err
	}
	return s, nil
}

// serveSSH serves one connection to its end.
func serveSSH(ctx context.Context, c net.Conn, config *ssh.ServerConfig, root string) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	_, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return // the client's business
	}
	go ssh.DiscardRequests(requests)
	var all sync.WaitGroup
	defer all.Wait()
	for offered := range channels {
		if offered.ChannelType() != "session" {
			_ = offered.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		channel, requests, err := offered.Accept()
		if err != nil {
			return
		}
		all.Go(func() { serveSession(ctx, channel, requests, root) })
	}
}

func serveSession(ctx context.Context, channel ssh.Channel, requests <-chan *ssh.Request, root string) {
	defer channel.Close()
	for request := range requests {
		if request.Type != "exec" {
			_ = request.Reply(request.Type == "env", nil)
			continue
		}
		var exec struct{ Command string }
		if err := ssh.Unmarshal(request.Payload, &exec); err != nil {
			return
		}
		_ = request.Reply(true, nil)
		go ssh.DiscardRequests(requests)
		code := struct{ Status uint32 }{run(ctx, channel, exec.Command, root)}
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(code))
		return
	}
}

// run runs one of git's two programs on a repository below the root.
func run(ctx context.Context, channel ssh.Channel, line, root string) (status uint32) {
	program, quoted, _ := strings.Cut(line, " ")
	path := strings.Trim(strings.ReplaceAll(strings.ReplaceAll(quoted, `'\''`, "'"), `'\!'`, "!"), "'")
	dir := filepath.Join(root, filepath.Join("/", path))
	if program != "git-upload-pack" && program != "git-receive-pack" {
		fmt.Fprintf(channel.Stderr(), "only git here, not %q\n", program)
		return 127
	}
	// A pipe of the kernel, so that the end of git does not wait for the
	// client to close its side.
	stdin, feed, err := os.Pipe()
	if err != nil {
		return 1
	}
	defer stdin.Close()
	go func() {
		defer feed.Close()
		_, _ = io.Copy(feed, channel) // ends with git or with the client
	}()
	err = command.Run(ctx, command.Cmd{
		Name: "git", Args: []string{strings.TrimPrefix(program, "git-"), dir}, Env: cleanEnv(),
		Stdin: stdin, Stdout: channel, Stderr: channel.Stderr(), Package: "git",
	})
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return uint32(max(exit.ExitCode(), 1))
	case err != nil:
		return 1
	}
	return 0
}
