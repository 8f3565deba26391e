package stage1

import (
	"bytes"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

// buffer is a console that can be read while it is written.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// stuck is a console that takes nothing until it is let go.
type stuck struct{ release chan struct{} }

func (s stuck) Write([]byte) (int, error) {
	<-s.release
	return 0, errors.New("still no cable")
}

func fixedClock() time.Duration { return 6123 * time.Millisecond }

func TestConsoleLines(t *testing.T) {
	t.Parallel()
	c := NewConsole(fixedClock)
	c.Sayf("before any console: %d", 1)
	var out buffer
	c.Attach(&out)
	c.Debugf("hidden")
	c.Sayf("evil \x1b[2J label\nsecond line\n")
	c.Verbose()
	c.Debugf("shown")
	c.Flush(time.Minute)
	want := "[  6.123] xnode-init: before any console: 1\n" +
		"[  6.123] xnode-init: evil ?[2J label\n" +
		"[  6.123] xnode-init: second line\n" +
		"[  6.123] xnode-init: shown\n"
	if out.String() != want {
		t.Errorf("console got %q; want %q", out.String(), want)
	}
	if c.Kept() != want {
		t.Errorf("Kept() = %q; want %q", c.Kept(), want)
	}
}

func TestConsoleStuck(t *testing.T) {
	t.Parallel()
	c := NewConsole(fixedClock)
	s := stuck{make(chan struct{})}
	defer close(s.release)
	var out buffer
	c.Attach(s)
	c.Attach(&out)
	for range 3 * sinkDepth {
		c.Sayf("line")
		if len(c.sinks[1].lines) > sinkDepth/2 {
			c.sinks[1].mu.Lock()
			for c.sinks[1].open > 0 {
				c.sinks[1].idle.Wait()
			}
			c.sinks[1].mu.Unlock()
		}
	}
	c.Flush(time.Millisecond) // the stuck console must not hold it up
	if got := strings.Count(out.String(), "line\n"); got < 2*sinkDepth {
		t.Errorf("the working console got %d of %d lines", got, 3*sinkDepth)
	}
}
