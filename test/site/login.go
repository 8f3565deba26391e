package site

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Login is a way into a booted node by ssh.
type Login struct {
	Addr string // "127.0.0.1:port"
	Key  ssh.Signer
	// HostKey is the one that the node config brought; nil takes any, as on a
	// machine that nobody else can reach.
	HostKey ssh.PublicKey
}

// LoadLogin is a Login by a private key file.
func LoadLogin(addr, keyFile string) (Login, error) {
	data, err := os.ReadFile(keyFile)
	if err != nil {
		return Login{}, err
	}
	key, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return Login{}, fmt.Errorf("read key %s: %w", keyFile, err)
	}
	return Login{Addr: addr, Key: key}, nil
}

// Run runs a script as root and writes what it prints to stdout as it comes.
// The error carries the end of its standard error.
func (l Login) Run(ctx context.Context, script string, stdout io.Writer) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", l.Addr)
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends whatever waits
	defer stop()
	config := &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(l.Key)}, Timeout: time.Minute,
		HostKeyCallback: ssh.InsecureIgnoreHostKey(), //nolint:gosec // loopback; see HostKey
	}
	if l.HostKey != nil {
		config.HostKeyCallback = ssh.FixedHostKey(l.HostKey)
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, l.Addr, config)
	if err != nil {
		return errors.Join(fmt.Errorf("log in: %w", err), conn.Close(), context.Cause(ctx))
	}
	client := ssh.NewClient(c, chans, reqs)
	defer func() { _ = client.Close() }() // the session's end is what counts
	session, err := client.NewSession()
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	var stderr bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = strings.NewReader(script), stdout, &stderr
	if err := session.Run("sh -s"); err != nil {
		return errors.Join(fmt.Errorf("on the node: %w: %s", err, strings.TrimSpace(stderr.String())), context.Cause(ctx))
	}
	return nil
}

// Output runs a script and returns what it printed.
func (l Login) Output(ctx context.Context, script string) (string, error) {
	var out bytes.Buffer
	err := l.Run(ctx, script, &out)
	return strings.TrimSpace(out.String()), err
}
