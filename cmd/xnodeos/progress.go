package main

import (
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
	"golang.org/x/term"

	"xnodeos.org/imagebuild"
)

// Rules of the terminal: results go to stdout, progress and errors to stderr.
// Bars only where stderr is a terminal; elsewhere one plain line when a stage
// is over, so that a log stays readable. Nothing at all with --json or --quiet.

// newProgress picks the printer for stderr.
func newProgress(stderr io.Writer, silent bool) (p imagebuild.Progress, wait func()) {
	if silent {
		return imagebuild.NoProgress{}, func() {}
	}
	if f, ok := stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		return newBars(f)
	}
	return &lineProgress{w: stderr}, func() {}
}

func newBars(w io.Writer) (imagebuild.Progress, func()) {
	bars := mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
	return &barProgress{bars}, bars.Wait
}

type barProgress struct{ bars *mpb.Progress }

func (p *barProgress) Start(stage string, total int64) imagebuild.Stage {
	// A bar that is made with a total ends only when it reaches it, and an
	// estimate is never reached. Made without one, it ends when End says so.
	bar := p.bars.AddBar(0,
		mpb.PrependDecorators(decor.Name(stage, decor.WC{W: 22, C: decor.DindentRight})),
		mpb.AppendDecorators(
			decor.CountersKiloByte("% .1f / % .1f"),
			decor.OnComplete(decor.Elapsed(decor.ET_STYLE_GO, decor.WC{W: 5}), " done"),
		))
	bar.SetTotal(max(total, 1), false)
	return &barStage{bar, total}
}

type barStage struct {
	bar   *mpb.Bar
	total int64
}

func (s *barStage) Set(done int64) { s.bar.SetCurrent(done) }
func (s *barStage) End(err error) {
	if err != nil {
		s.bar.Abort(false)
		return
	}
	if s.bar.Current() < s.total {
		s.bar.SetCurrent(s.total) // an estimate, or a stage that does not count
	}
	s.bar.SetTotal(-1, true)
}

type lineProgress struct {
	mu sync.Mutex
	w  io.Writer
}

func (p *lineProgress) Start(stage string, total int64) imagebuild.Stage {
	return &lineStage{p: p, stage: stage, total: total, began: time.Now()}
}

type lineStage struct {
	p     *lineProgress
	stage string
	total int64
	done  atomic.Int64
	began time.Time
}

func (s *lineStage) Set(done int64) { s.done.Store(done) }
func (s *lineStage) End(err error) {
	if err != nil {
		return // the error itself is printed at the end
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	fmt.Fprintf(s.p.w, "%-22s %8s in %.1f s\n", s.stage, formatSize(max(s.total, s.done.Load())), time.Since(s.began).Seconds())
}

// formatSize writes bytes as a person reads them, in powers of ten.
func formatSize(n int64) string {
	switch {
	case n >= 1e9:
		return fmt.Sprintf("%.2f GB", float64(n)/1e9)
	case n >= 1e6:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1e3:
		return fmt.Sprintf("%.1f kB", float64(n)/1e3)
	default:
		return fmt.Sprintf("%d B", n)
	}
}
