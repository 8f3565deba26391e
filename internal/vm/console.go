package vm

import (
	"io"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// keepLines is how many lines of a console stay in memory.
const keepLines = 50_000

// Line is one line of the serial console, without control sequences.
type Line struct {
	N    int           // counted from 0
	At   time.Duration // since QEMU was started
	Text string
}

// Pattern says which line somebody waits for.
type Pattern struct {
	name  string
	match func(string) bool
}

// Text matches a line that contains s.
func Text(s string) Pattern {
	return Pattern{strconv.Quote(s), func(line string) bool { return strings.Contains(line, s) }}
}

// Regexp matches a line in which re is found.
func Regexp(re *regexp.Regexp) Pattern {
	return Pattern{"/" + re.String() + "/", re.MatchString}
}

func (p Pattern) String() string { return p.name }

// console keeps what the guest wrote on its serial port.
type console struct {
	raw    io.Writer // every byte as it came; may be nil
	onLine func(Line)
	since  func() time.Duration

	mu      sync.Mutex
	filter  filter
	lines   []Line
	next    int // number of the next line
	rawErr  error
	changed chan struct{} // closed at every change, then replaced
}

func newConsole(raw io.Writer, onLine func(Line), since func() time.Duration) *console {
	return &console{raw: raw, onLine: onLine, since: since, changed: make(chan struct{})}
}

// Write takes the guest's bytes. It never fails: a full disk under the log
// must not stop the guest, so that fault is kept for logError.
func (c *console) Write(p []byte) (int, error) {
	at := c.since()
	c.mu.Lock()
	if c.raw != nil && c.rawErr == nil {
		_, c.rawErr = c.raw.Write(p)
	}
	first := c.next
	for _, b := range p {
		if text, ok := c.filter.feed(b); ok {
			c.add(Line{N: c.next, At: at, Text: text})
		}
	}
	fresh := c.fromLocked(first)
	close(c.changed)
	c.changed = make(chan struct{})
	c.mu.Unlock()

	if c.onLine != nil {
		for _, l := range fresh {
			c.onLine(l)
		}
	}
	return len(p), nil
}

func (c *console) add(l Line) {
	if len(c.lines) >= keepLines {
		c.lines = append(c.lines[:0:0], c.lines[keepLines/10:]...)
	}
	c.lines = append(c.lines, l)
	c.next++
}

// finish turns an unfinished last line into a line.
func (c *console) finish() {
	c.mu.Lock()
	empty := c.filter.partial() == ""
	c.mu.Unlock()
	if !empty {
		_, _ = c.Write([]byte{'\n'})
	}
}

// fromLocked copies the lines from number n on that are still kept.
func (c *console) fromLocked(n int) []Line {
	i := max(0, n-(c.next-len(c.lines)))
	if i >= len(c.lines) {
		return nil
	}
	return append([]Line(nil), c.lines[i:]...)
}

// look returns the first line from n on that matches one of the patterns and
// that pattern's index; where none does, the unfinished line and a channel
// that closes at the next change.
func (c *console) look(n int, patterns []Pattern) (which int, found Line, partial Line, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, l := range c.fromLocked(n) {
		for i, p := range patterns {
			if p.match(l.Text) {
				return i, l, Line{}, nil
			}
		}
	}
	return -1, Line{}, Line{N: c.next, Text: c.filter.partial()}, c.changed
}

func (c *console) from(n int) []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.fromLocked(n)
}

func (c *console) logError() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rawErr
}
