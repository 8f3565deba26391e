package main

import (
	"errors"
	"io"
	"testing"
	"time"
)

// TestBarsEnd runs stages that stop short of their total, go beyond it, or know
// none: whatever they did, the program must not wait for them once they ended.
func TestBarsEnd(t *testing.T) {
	p, wait := newBars(io.Discard)
	for _, stage := range []struct {
		total, done int64
		err         error
	}{
		{total: 100, done: 60}, {total: 100, done: 100}, {total: 100, done: 140}, {total: 100},
		{}, {done: 7}, {total: 100, done: 60, err: errors.New("failed")},
	} {
		s := p.Start("stage", stage.total)
		s.Set(stage.done)
		s.End(stage.err)
	}
	ended := make(chan struct{})
	go func() {
		wait()
		wait() // once before the result is printed, once when the command returns
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the bars are still waited for after all stages ended")
	}
}
