package stage1

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Console writes the lines of the first stage to every console of the kernel. A
// console that blocks or fails holds up neither the boot nor the others: each
// has its own queue, and lines that do not fit are dropped there.
type Console struct {
	clock func() time.Duration
	debug bool

	mu    sync.Mutex
	sinks []*sink
	kept  []string
}

// sinkDepth bounds the lines that wait for one slow console; keptLines bounds
// the copy that the system gets.
const (
	sinkDepth = 256
	keptLines = 2000
)

type sink struct {
	w     io.Writer
	lines chan string
	idle  *sync.Cond
	mu    *sync.Mutex
	open  int // lines not yet written
}

// NewConsole returns a console that writes nowhere yet. The clock is the time
// since the kernel started.
func NewConsole(clock func() time.Duration) *Console {
	return &Console{clock: clock}
}

// Attach adds a writer, which first gets all lines said so far.
func (c *Console) Attach(w io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &sink{w: w, lines: make(chan string, sinkDepth), mu: &sync.Mutex{}}
	s.idle = sync.NewCond(s.mu)
	go s.write()
	for _, line := range c.kept {
		s.put(line)
	}
	c.sinks = append(c.sinks, s)
}

func (s *sink) write() {
	for line := range s.lines {
		// A console that cannot be written to has nowhere to say so.
		_, _ = io.WriteString(s.w, line)
		s.mu.Lock()
		s.open--
		s.mu.Unlock()
		s.idle.Broadcast()
	}
}

func (s *sink) put(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.lines <- line:
		s.open++
	default:
	}
}

// Verbose turns Debugf on.
func (c *Console) Verbose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.debug = true
}

// Sayf writes one line per line of the text.
func (c *Console) Sayf(format string, args ...any) {
	c.say(fmt.Sprintf(format, args...))
}

// Debugf is Sayf under xnode.debug.
func (c *Console) Debugf(format string, args ...any) {
	c.mu.Lock()
	on := c.debug
	c.mu.Unlock()
	if on {
		c.say(fmt.Sprintf(format, args...))
	}
}

func (c *Console) say(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	stamp := c.clock().Seconds()
	for part := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		line := fmt.Sprintf("[%7.3f] xnode-init: %s\n", stamp, printable(part))
		if len(c.kept) < keptLines {
			c.kept = append(c.kept, line)
		}
		for _, s := range c.sinks {
			s.put(line)
		}
	}
}

// printable replaces control bytes: parts of a line come from disks, cables and
// the command line, and a terminal obeys them.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// Kept returns what was said, for a file that the system can read.
func (c *Console) Kept() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.kept, "")
}

// Flush waits until every line is written, at most for the given time.
func (c *Console) Flush(limit time.Duration) {
	c.mu.Lock()
	sinks := append([]*sink(nil), c.sinks...)
	c.mu.Unlock()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for _, s := range sinks {
			s.mu.Lock()
			for s.open > 0 {
				s.idle.Wait()
			}
			s.mu.Unlock()
		}
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
