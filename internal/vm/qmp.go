package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
)

// errQMPClosed says that QEMU has gone before it answered.
var errQMPClosed = errors.New("QEMU closed its control connection")

// qmp speaks QEMU's machine protocol: one JSON object a message.
type qmp struct {
	conn net.Conn
	done chan struct{} // closed when nothing more comes

	mu      sync.Mutex
	lastID  int
	pending map[string]chan qmpMessage
	reason  string // of the last SHUTDOWN event
}

type qmpMessage struct {
	Event  string          `json:"event"`
	Data   json.RawMessage `json:"data"`
	ID     string          `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// newQMP begins to read; QEMU needs not run yet. run must be started by the
// caller, who waits for done.
func newQMP(conn net.Conn) (*qmp, error) {
	q := &qmp{conn: conn, done: make(chan struct{}), pending: map[string]chan qmpMessage{}}
	// Commands are taken only after this one; it may lie in the socket before
	// QEMU reads it.
	if _, err := io.WriteString(conn, `{"execute":"qmp_capabilities"}`+"\n"); err != nil {
		return nil, fmt.Errorf("write to QEMU's control connection: %w", err)
	}
	return q, nil
}

// run reads until QEMU closes its end.
func (q *qmp) run() {
	defer close(q.done)
	dec := json.NewDecoder(q.conn)
	for {
		var m qmpMessage
		if err := dec.Decode(&m); err != nil {
			return
		}
		q.take(m)
	}
}

func (q *qmp) take(m qmpMessage) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if m.Event == "SHUTDOWN" {
		var data struct {
			Reason string `json:"reason"`
		}
		if json.Unmarshal(m.Data, &data) == nil {
			q.reason = data.Reason
		}
	}
	if ch := q.pending[m.ID]; m.ID != "" && ch != nil {
		delete(q.pending, m.ID)
		ch <- m
	}
}

func (q *qmp) shutdownReason() string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.reason
}

// command runs one command and decodes what it returns into result, which may
// be nil.
func (q *qmp) command(ctx context.Context, name string, args, result any) error {
	answer := make(chan qmpMessage, 1)
	q.mu.Lock()
	q.lastID++
	id := strconv.Itoa(q.lastID)
	q.pending[id] = answer
	q.mu.Unlock()

	msg := map[string]any{"execute": name, "id": id}
	if args != nil {
		msg["arguments"] = args
	}
	line, err := json.Marshal(msg)
	if err != nil {
		return fmt.Errorf("QMP %s: %w", name, err)
	}
	if _, err := q.conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("QMP %s: %w", name, err)
	}
	select {
	case <-ctx.Done():
		return fmt.Errorf("QMP %s: %w", name, ctx.Err())
	case <-q.done:
		return fmt.Errorf("QMP %s: %w", name, errQMPClosed)
	case m := <-answer:
		if m.Error != nil {
			return fmt.Errorf("QMP %s: %s: %s", name, m.Error.Class, m.Error.Desc)
		}
		if result == nil {
			return nil
		}
		if err := json.Unmarshal(m.Return, result); err != nil {
			return fmt.Errorf("QMP %s: answer: %w", name, err)
		}
		return nil
	}
}
