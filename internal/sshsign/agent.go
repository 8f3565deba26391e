package sshsign

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// errNoAgent says that no agent was named.
var errNoAgent = errors.New("no ssh-agent runs (SSH_AUTH_SOCK is not set)")

// fromAgent makes a signer of a key that the agent holds.
func fromAgent(ctx context.Context, socket string, key PublicKey) (*Signer, error) {
	err := withAgent(ctx, socket, func(client agent.Agent) error {
		held, err := client.List()
		if err != nil {
			return fmt.Errorf("list the keys of the ssh-agent: %w", err)
		}
		for _, k := range held {
			if bytes.Equal(k.Marshal(), key.ssh().Marshal()) {
				return nil
			}
		}
		return errors.New("the ssh-agent does not hold it")
	})
	if err != nil {
		return nil, err
	}
	return &Signer{key: key, origin: "ssh-agent", sign: func(ctx context.Context, data []byte) (sig *ssh.Signature, err error) {
		err = withAgent(ctx, socket, func(client agent.Agent) error {
			sig, err = client.Sign(key.ssh(), data)
			return err
		})
		return sig, err
	}}, nil
}

// withAgent talks to the agent once. There is no time limit but ctx: the
// agent may ask its user to confirm.
func withAgent(ctx context.Context, socket string, do func(agent.Agent) error) error {
	if socket == "" {
		return errNoAgent
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("reach the ssh-agent (SSH_AUTH_SOCK): %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	err = do(agent.NewClient(conn))
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}
