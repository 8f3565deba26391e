package stage1

import "time"

// patience is how long a search waits: for anything, and once something was
// found bad.
type patience struct {
	limit      time.Duration
	timer, bad *time.Timer
}

func newPatience(limit time.Duration) *patience {
	p := &patience{limit: limit, timer: time.NewTimer(limit), bad: time.NewTimer(afterBad)}
	p.bad.Stop() // until something is
	return p
}

func (p *patience) stop() {
	p.timer.Stop()
	p.bad.Stop()
}

// judged begins anew after a candidate was found bad.
func (p *patience) judged() {
	p.timer.Reset(p.limit)
	p.rejected()
}

func (p *patience) rejected() { p.bad.Reset(afterBad) }

func (p *patience) shorten(limit time.Duration) {
	p.limit = min(p.limit, limit)
	p.timer.Reset(p.limit)
}
