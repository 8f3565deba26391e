package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"

	"xnodeos.org/internal/sshsign"
)

// openSigner opens what --sign names: a private key file, or a public one
// whose private half is in the user's ssh-agent. It is called before long
// work, so that a passphrase is asked for while the user still looks.
func openSigner(ctx context.Context, path string) (*sshsign.Signer, error) {
	return sshsign.Open(ctx, sshsign.OpenOptions{
		Path:        path,
		AgentSocket: os.Getenv("SSH_AUTH_SOCK"),
		Passphrase:  func(path string) ([]byte, error) { return askPassphrase(ctx, path) },
	})
}

// askPassphrase asks on the terminal itself: stdin and stdout may be pipes.
func askPassphrase(ctx context.Context, path string) ([]byte, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, errors.New("there is no terminal; load the key into an ssh-agent with ssh-add")
	}
	defer tty.Close()
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return nil, fmt.Errorf("read the terminal's settings: %w", err)
	}
	fmt.Fprintf(tty, "Passphrase of %s: ", path)
	defer fmt.Fprintln(tty)
	var passphrase []byte
	done := make(chan error, 1)
	go func() {
		var err error
		passphrase, err = term.ReadPassword(fd)
		done <- err
	}()
	select {
	case err := <-done:
		return passphrase, err
	case <-ctx.Done():
		// The read cannot be woken up and is left to the end of the process;
		// the echo must come back.
		return nil, errors.Join(context.Cause(ctx), term.Restore(fd, before))
	}
}
