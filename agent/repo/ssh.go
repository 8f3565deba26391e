package repo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/knownhosts"
)

const (
	maxKeyFile    = 64 << 10
	maxKnownHosts = 4 << 20
	maxSaid       = 4 << 10 // bytes of what the server writes to standard error
)

// sshSession speaks the protocol with git-upload-pack at the other end of an
// ssh connection.
type sshSession struct {
	client  *ssh.Client
	session *ssh.Session
	in      io.WriteCloser
	out     io.Reader
	said    *said
	ended   bool // the end of the program has been waited for
}

// checkSSH finds out at start what would fail at the first fetch.
func checkSSH(opt Options, rem *remote) error {
	for _, file := range []struct{ option, path, remedy string }{
		{"known_hosts", opt.KnownHosts, "make the file with: ssh-keyscan -t ed25519 " + rem.url.Hostname() + ", and compare the fingerprint"},
		{"ssh_key", opt.SSHKey, "make a deploy key with: ssh-keygen -t ed25519 -N ''"},
	} {
		if file.path == "" {
			return fmt.Errorf("remote %q needs %s in agent.toml [git]; %s", rem.name, file.option, file.remedy)
		}
	}
	return nil
}

func newSSH(ctx context.Context, m *meter, opt Options, rem *remote) (*wire, error) {
	config, err := sshConfig(opt, rem)
	if err != nil {
		return nil, err
	}
	port := rem.url.Port()
	if port == "" {
		port = "22"
	}
	address := net.JoinHostPort(rem.url.Hostname(), port)
	raw, err := m.dial(ctx, ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c, channels, requests, err := ssh.NewClientConn(raw, address, config)
	if err != nil {
		raw.Close()
		return nil, explainHostKey(err, opt.KnownHosts)
	}
	s := &sshSession{client: ssh.NewClient(c, channels, requests), said: &said{}}
	if err := s.start(rem.path); err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", service, err), s.client.Close())
	}
	return &wire{session: s}, nil
}

func (s *sshSession) start(path string) (err error) {
	if s.session, err = s.client.NewSession(); err != nil {
		return err
	}
	s.session.Stderr = s.said
	if s.in, err = s.session.StdinPipe(); err != nil {
		return err
	}
	if s.out, err = s.session.StdoutPipe(); err != nil {
		return err
	}
	return s.session.Start(service + " '" + strings.ReplaceAll(strings.ReplaceAll(path, "'", `'\''`), "!", `'\!'`) + "'")
}

func sshConfig(opt Options, rem *remote) (*ssh.ClientConfig, error) {
	key, err := readBounded(opt.SSHKey, maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read the deploy key: %w", err)
	}
	signer, err := ssh.ParsePrivateKey(key)
	var locked *ssh.PassphraseMissingError
	switch {
	case errors.As(err, &locked):
		return nil, fmt.Errorf("deploy key %q has a passphrase, and nobody is there to type it; take it away with: ssh-keygen -p -f", opt.SSHKey)
	case err != nil:
		return nil, fmt.Errorf("deploy key %q is no private key that ssh-keygen made", opt.SSHKey)
	}
	known, err := readBounded(opt.KnownHosts, maxKnownHosts)
	if err != nil {
		return nil, fmt.Errorf("read known_hosts: %w", err)
	}
	if len(bytes.TrimSpace(known)) == 0 {
		return nil, fmt.Errorf("%q is empty; fill it with: ssh-keyscan -t ed25519 %s", opt.KnownHosts, rem.url.Hostname())
	}
	check, err := knownhosts.New(opt.KnownHosts)
	if err != nil {
		return nil, fmt.Errorf("read known_hosts: %w", err)
	}
	return &ssh.ClientConfig{
		User:              rem.url.User.Username(),
		Auth:              []ssh.AuthMethod{ssh.PublicKeys(signer)},
		HostKeyCallback:   check,
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
		ClientVersion:     "SSH-2.0-xnode",
	}, nil
}

// explainHostKey says what to do about a host key that is not the known one.
func explainHostKey(err error, file string) error {
	var wrong *knownhosts.KeyError
	var revoked *knownhosts.RevokedError
	var unlike *ssh.AlgorithmNegotiationError
	switch {
	case errors.As(err, &unlike) && unlike.What == "host key":
		return fmt.Errorf("the server has no ed25519 host key: %w; make one there with: ssh-keygen -A", err)
	case errors.As(err, &revoked):
		return fmt.Errorf("the server's host key is revoked in %q: %w", file, err)
	case errors.As(err, &wrong) && len(wrong.Want) == 0:
		return fmt.Errorf("the server's host key is not in %q: %w; add it with ssh-keyscan -t ed25519 and compare the fingerprint", file, err)
	case errors.As(err, &wrong):
		return fmt.Errorf("the server's host key is another one than in %q: %w; somebody is in between, or the server has a new key", file, err)
	}
	return err
}

func (s *sshSession) advertisement(context.Context) (io.Reader, error) { return &explained{s}, nil }

func (s *sshSession) request(_ context.Context, body []byte) (io.Reader, error) {
	if _, err := s.in.Write(body); err != nil {
		return nil, fmt.Errorf("send the request: %w", err)
	}
	return &explained{s}, nil
}

func (s *sshSession) Close() error {
	return s.client.Close() // ends its sessions too
}

// explained reads what the server sends; where that ends before it should,
// the error carries what the server wrote to standard error.
type explained struct{ s *sshSession }

func (e *explained) Read(p []byte) (int, error) {
	n, err := e.s.out.Read(p)
	if n == 0 && errors.Is(err, io.EOF) && !e.s.ended {
		// The program has ended; only after Wait is all of its standard error here.
		e.s.ended = true
		if waited := e.s.session.Wait(); waited != nil {
			if text := e.s.said.String(); text != "" {
				return 0, fmt.Errorf("the server said %.300q", text)
			}
		}
	}
	return n, err
}

// said keeps the beginning of what the server writes to standard error.
type said struct{ buf bytes.Buffer }

func (s *said) Write(p []byte) (int, error) {
	s.buf.Write(p[:min(len(p), maxSaid-s.buf.Len())])
	return len(p), nil
}

func (s *said) String() string { return strings.TrimSpace(s.buf.String()) }

func readBounded(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(data)) > most {
		err = fmt.Errorf("%q has more than %d bytes", path, most)
	}
	return data, err
}
