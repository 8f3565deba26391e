// Package client asks the applier over its socket. It is for the follower and
// for the node's own program; it knows the protocol of package agent and
// nothing of what the applier does.
package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"time"

	"xnodeos.org/agent"
)

// patience bounds one request: the applier answers before a trial begins, but
// may have to be started first and to check a whole closure.
const patience = 5 * time.Minute

// Client asks at one socket. It connects anew for each request, since the
// applier is there only while it works.
type Client struct{ socket string }

// New returns a client of the socket at path.
func New(path string) *Client { return &Client{path} }

// Do asks for one operation and returns the applier's status after it. Where
// the node says no, the error is an *agent.Refusal, and the status is good as
// well.
func (c *Client) Do(ctx context.Context, request agent.Request) (agent.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	response, err := c.exchange(ctx, request)
	if err != nil {
		return agent.Status{}, err
	}
	var status agent.Status
	if response.Status != nil {
		status = *response.Status
	}
	switch {
	case response.Refused != nil:
		return status, &agent.Refusal{Reason: *response.Refused}
	case response.Error != "":
		return status, fmt.Errorf("the applier could not %s: %s", request.Op, response.Error)
	}
	return status, nil
}

func (c *Client) exchange(ctx context.Context, request agent.Request) (*agent.Response, error) {
	message, err := json.Marshal(request)
	if err != nil {
		return nil, fmt.Errorf("ask the applier: %w", err)
	}
	if len(message) >= agent.MaxRequest {
		return nil, fmt.Errorf("ask the applier: the request has %d bytes; at most %d", len(message), agent.MaxRequest)
	}
	var dial net.Dialer
	conn, err := dial.DialContext(ctx, "unix", c.socket)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("nothing listens at %s; see: systemctl status xnode-apply.socket", c.socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("no right to ask the applier at %s; be root", c.socket)
	default:
		return nil, fmt.Errorf("ask the applier: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) }) // ends what waits
	defer func() {
		stop()
		_ = conn.Close() // the answer is whole or was not
	}()
	if _, err := conn.Write(append(message, '\n')); err != nil {
		return nil, errors.Join(fmt.Errorf("ask the applier: %w", err), context.Cause(ctx))
	}
	var response agent.Response
	answer := bufio.NewReader(io.LimitReader(conn, agent.MaxResponse))
	if err := json.NewDecoder(answer).Decode(&response); err != nil {
		return nil, errors.Join(fmt.Errorf("read the applier's answer: %w", err), context.Cause(ctx))
	}
	return &response, nil
}
