package main

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	"xnodeos.org/agent/statusapi"
)

// screen keeps the newest status in one place of a terminal.
type screen struct {
	out io.Writer

	mu   sync.Mutex
	last *statusapi.Status
}

func (s *screen) show(status *statusapi.Status) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = status
	return s.draw()
}

// tick draws again each second, because "10 s ago" is true for a second only.
// The caller ends it.
func (s *screen) tick(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		every := time.NewTicker(time.Second)
		defer every.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-every.C:
			}
			s.mu.Lock()
			if s.last != nil {
				_ = s.draw() // the next change will fail as well, and tell
			}
			s.mu.Unlock()
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}

// draw writes over what stands there, line by line, so that nothing flickers,
// and leaves out what has no row.
func (s *screen) draw() error {
	columns, rows := terminal(s.out)
	status := *s.last
	status.Time = time.Now()
	var text bytes.Buffer
	if err := status.WriteText(&text, columns); err != nil {
		return err
	}
	lines := bytes.Split(bytes.TrimRight(text.Bytes(), "\n"), []byte("\n"))
	if rows > 1 && len(lines) > rows-1 {
		lines = append(lines[:rows-2:rows-2], []byte("... xnode status shows all"))
	}
	const home, toEndOfLine, toEnd = "\x1b[H", "\x1b[K", "\x1b[J"
	_, err := s.out.Write([]byte(home + string(bytes.Join(lines, []byte(toEndOfLine+"\n"))) + toEndOfLine + "\n" + toEnd))
	return err
}
