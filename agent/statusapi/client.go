package statusapi

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"syscall"
	"time"
)

// maxAnswer bounds one answer of the agent in bytes.
const maxAnswer = 4 << 20

// Client asks the agent over its unix socket.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the socket at path. It connects when asked.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", path)
	}
	return &Client{socket: path, http: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Status returns the agent's status.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	var s Status
	return &s, c.ask(ctx, http.MethodGet, "status", &s)
}

// Poll has the agent ask for the record now.
func (c *Client) Poll(ctx context.Context) error { return c.ask(ctx, http.MethodPost, "poll", nil) }

// Reread has the agent ask for the record now and returns what came.
func (c *Client) Reread(ctx context.Context) (Reread, error) {
	var got Reread
	return got, c.ask(ctx, http.MethodPost, "reread", &got)
}

// Watch calls show with the status now and at each change, until ctx ends, the
// agent goes away or show returns an error.
func (c *Client) Watch(ctx context.Context, show func(*Status) error) error {
	body, err := c.open(ctx, http.MethodGet, "watch")
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxAnswer)
	for lines.Scan() {
		var s Status
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return fmt.Errorf("read the agent's status: %w", err)
		}
		if err := show(&s); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(errors.New("the agent has gone"), lines.Err())
}

func (c *Client) ask(ctx context.Context, method, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	body, err := c.open(ctx, method, path)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if into == nil {
		return nil
	}
	if err := json.NewDecoder(io.LimitReader(body, maxAnswer)).Decode(into); err != nil {
		return fmt.Errorf("read the agent's answer: %w", err)
	}
	return nil
}

func (c *Client) open(ctx context.Context, method, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://localhost/"+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	resp, err := c.http.Do(req)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("the agent does not run (nothing listens at %s); see: systemctl status xnode-follow", c.socket)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("no right to ask the agent at %s; be root or in group xnode", c.socket)
	default:
		return nil, fmt.Errorf("ask the agent: %w", err)
	}
	if resp.StatusCode/100 != 2 {
		defer func() { _ = resp.Body.Close() }()
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 4<<10))
		return nil, fmt.Errorf("the agent refuses: %s", oneLine(string(text)))
	}
	return resp.Body, nil
}
