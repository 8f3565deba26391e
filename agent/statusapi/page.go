package statusapi

import (
	_ "embed"
	"fmt"
	"html"
	"net/http"
	"strings"
	"time"
)

//go:embed page.css
var pageStyle string

// page renders one self-contained HTML page: no script, no outside file, so
// that it works through any tunnel and in any browser. It is put together here
// and not by html/template: who links that keeps every method of every type in
// the program, and with them a fifth of its size.
func (s *Server) page(w http.ResponseWriter, _ *http.Request) {
	status, _ := s.get()
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = w.Write([]byte(renderPage(&status))) // a reader that went away is no fault
}

// markup is text of the page that is HTML. Everything else is escaped.
type markup string

// page is HTML in the making.
type page struct{ strings.Builder }

// add writes markup as it is and every other value as text.
func (p *page) add(parts ...any) {
	for _, part := range parts {
		if m, ok := part.(markup); ok {
			p.WriteString(string(m))
		} else {
			p.WriteString(html.EscapeString(fmt.Sprint(part)))
		}
	}
}

// soft is text that is beside the point.
func (p *page) soft(text string) { p.add(markup(`<span class="soft">`), text, markup("</span>")) }

// system shows a store path by its name, the whole of it where somebody points.
func (p *page) system(path string) {
	p.add(markup(`<span title="`), path, markup(`">`), name(path), markup("</span>"))
}

// row is one line of the list of facts; value writes what stands there.
func (p *page) row(key string, value func()) {
	p.add(markup("<dt>"), key, markup("</dt><dd>"))
	value()
	p.add(markup("</dd>\n"))
}

// systemRow is a row with a system, if there is one.
func (p *page) systemRow(key, path string) {
	if path != "" {
		p.row(key, func() { p.system(path) })
	}
}

func renderPage(s *Status) string {
	var p page
	host := s.Node.Hostname
	if host == "" {
		host = "xnode"
	}
	p.add(markup(`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="10">
<title>`), host, ": ", s.Health, markup("</title>\n<style>\n"), markup(pageStyle), markup("</style>\n</head>\n<body>\n<h1>"), host,
		markup(` <span class="badge `), s.Health, markup(`">`), s.Health, markup("</span></h1>\n"))
	class := s.Node.Class
	if class != "" {
		class = "class " + class
	}
	storage := s.Node.Storage
	if storage != "" {
		storage = "state on " + storage
	}
	p.add(markup(`<p class="soft">`), strings.Join(nonEmpty(s.Node.Label, class, s.Node.Medium, storage, clock(s.Time)+" UTC"), " · "), markup("</p>\n"))
	for _, problem := range s.Problems {
		p.add(markup(`<p class="bad">`), problem, markup("</p>\n"))
	}
	p.now(s)
	p.probes(s.Probes)
	p.quarantine(s.Quarantine)
	p.history(s.History)
	p.add(markup("</body>\n</html>\n"))
	return p.String()
}

// now is what the agent does at the moment.
func (p *page) now(s *Status) {
	p.add(markup("<h2>Now</h2>\n<dl>\n"))
	p.row("phase", func() {
		p.add(strings.Join(nonEmpty(s.Phase, s.Reason), ": "))
		if s.Paused {
			p.add(markup(` <span class="bad">paused</span>`))
		}
	})
	if r := s.Record; r != nil {
		p.record(s.Time, r)
	} else {
		p.row("release", func() { p.add("none yet") })
	}
	p.systemRow("running", s.Systems.Current)
	p.systemRow("candidate", s.Systems.Candidate)
	p.systemRow("last good", s.Systems.LastGoodLive)
	if s.Systems.LastGoodBoot != s.Systems.LastGoodLive {
		p.systemRow("last good boot", s.Systems.LastGoodBoot)
	}
	p.systemRow("booted", s.Systems.Booted)
	if t := s.Transfer; t != nil {
		p.row("download", func() { p.add(t.String()) })
	}
	p.row("asked", func() {
		if s.Poll.Last.IsZero() {
			p.add("not yet")
		} else {
			p.add(ago(s.Time, s.Poll.Last))
		}
		if fault := s.pollFault(); fault != "" {
			p.add(markup(`<br><span class="bad">`), fault, markup("</span>"))
		}
	})
	if s.Node.Key != "" {
		p.row("node key", func() { p.add(markup("<code>"), s.Node.Key, markup("</code>")) })
	}
	p.add(markup("</dl>\n"))
}

func (p *page) record(now time.Time, r *Record) {
	p.row("release", func() {
		p.add(r.Sequence)
		if r.Halted {
			p.add(markup(` <span class="bad">halted</span>`))
		}
		p.add(markup(` <span class="soft">commit</span> <code>`), fmt.Sprintf("%.12s", r.Commit), markup("</code>"))
	})
	p.row("record", func() {
		p.add(r.Name, markup(`<br><span class="soft">published `), ago(now, r.Published), ", ")
		if r.Expired {
			p.add(markup(`<span class="bad">expired</span> `))
		} else {
			p.add("expires ")
		}
		p.add(ago(now, r.Expires), ", from ", r.Source, markup("</span>"))
	})
}

func (p *page) probes(probes []Probe) {
	if len(probes) == 0 {
		return
	}
	p.add(markup("<h2>Probes</h2>\n<ul>\n"))
	for _, one := range probes {
		class := markup("bad")
		if one.Green {
			class = "ok"
		}
		p.add(markup(`<li><span class="`), class, markup(`">`), mark(one.Green), markup("</span> "), one.Name, " ")
		p.soft(one.Observed)
		p.add(markup("</li>\n"))
	}
	p.add(markup("</ul>\n"))
}

func (p *page) quarantine(list []Quarantined) {
	if len(list) == 0 {
		return
	}
	p.add(markup("<h2>Quarantine</h2>\n<ul>\n"))
	for _, q := range list {
		p.add(markup("<li>"))
		p.system(q.System)
		p.add(" ")
		p.soft(fmt.Sprintf("release %d: %s", q.Sequence, q.Reason))
		p.add(markup("</li>\n"))
	}
	p.add(markup("</ul>\n"))
}

func (p *page) history(events []Event) {
	p.add(markup("<h2>History</h2>\n"))
	if len(events) == 0 {
		p.add(markup("<p class=\"soft\">Nothing has happened yet.</p>\n"))
		return
	}
	p.add(markup("<ol>\n"))
	for _, e := range events {
		p.add(markup("<li>"))
		p.soft(clock(e.Time))
		p.add(" ", e.Event, " ")
		if e.Sequence != 0 {
			p.soft(fmt.Sprintf("release %d", e.Sequence))
			p.add(" ")
		}
		p.system(e.System)
		if e.Detail != "" {
			p.add(markup("<br>"))
			p.soft(e.Detail)
		}
		p.add(markup("</li>\n"))
	}
	p.add(markup("</ol>\n"))
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") }
