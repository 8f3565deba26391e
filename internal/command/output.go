package command

import (
	"bytes"
	"errors"
	"strings"
	"sync"
)

const lineLimit = 64 << 10

// tail keeps the last bytes that were written to it.
type tail struct {
	limit int
	data  []byte
	cut   bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.data = append(t.data, p...)
	if over := len(t.data) - t.limit; over > 0 {
		t.data = append(t.data[:0], t.data[over:]...)
		t.cut = true
	}
	return len(p), nil
}

// String returns the kept text as valid UTF-8, beginning at a line's start if
// an earlier part was dropped.
func (t *tail) String() string {
	text := t.data
	if t.cut {
		if i := bytes.IndexByte(text, '\n'); i >= 0 && i+1 < len(text) {
			text = text[i+1:]
		}
	}
	return strings.ToValidUTF8(string(text), "\uFFFD")
}

var errTooLong = errors.New("output is too long")

// limited collects output up to a limit and fails past it, which ends the
// program by a broken pipe instead of filling the memory.
type limited struct {
	limit int
	data  []byte
	over  bool
}

func (l *limited) Write(p []byte) (int, error) {
	if len(l.data)+len(p) > l.limit {
		l.over = true
		return 0, errTooLong
	}
	l.data = append(l.data, p...)
	return len(p), nil
}

// lineWriter cuts a stream into lines.
type lineWriter struct {
	lock *sync.Mutex // shared by both streams of a program
	line func(string)
	rest []byte
}

func (l *lineWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		if end < 0 {
			end = len(p)
		}
		l.rest = append(l.rest, p[:end]...)
		for len(l.rest) > lineLimit {
			l.emit(l.rest[:lineLimit])
			l.rest = append(l.rest[:0], l.rest[lineLimit:]...)
		}
		if end == len(p) {
			break
		}
		l.emit(bytes.TrimSuffix(l.rest, []byte("\r")))
		l.rest = l.rest[:0]
		p = p[end+1:]
	}
	return n, nil
}

func (l *lineWriter) flush() {
	if len(l.rest) > 0 {
		l.emit(l.rest)
		l.rest = nil
	}
}

func (l *lineWriter) emit(line []byte) {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.line(string(line))
}
