package statusapi

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"
)

// Oneline returns the status as one line of words, for prompts and scripts.
func (s *Status) Oneline() string {
	words := nonEmpty(string(s.Health), strings.ToLower(s.Phase))
	if s.Record != nil {
		words = append(words, fmt.Sprintf("release=%d", s.Record.Sequence))
		if s.Record.Halted {
			words = append(words, "halted")
		}
	}
	words = append(words, "system="+name(s.Systems.Current))
	if s.Paused {
		words = append(words, "paused")
	}
	if s.Reason != "" {
		words = append(words, fmt.Sprintf("reason=%q", s.Reason))
	}
	return oneLine(strings.Join(words, " "))
}

// keyColumn is where values begin: behind the longest key, "last good boot".
const keyColumn = 16

// WriteText writes the status for a person. Lines longer than width go on below
// their value; 0 breaks none.
func (s *Status) WriteText(w io.Writer, width int) error {
	var t strings.Builder
	row := func(key, value string) {
		if value == "" {
			return
		}
		for i, line := range wrap(oneLine(value), width-keyColumn) {
			if i > 0 {
				key = ""
			}
			fmt.Fprintf(&t, "%-*s%s\n", keyColumn, key, line)
		}
	}
	row("node", strings.Join(nonEmpty(s.Node.Hostname, s.Node.Key), ", "))
	row("class", strings.Join(nonEmpty(s.Node.Class, s.Node.Medium, "state on "+s.Node.Storage), ", "))
	row("health", string(s.Health))
	for _, p := range s.Problems {
		row("", "! "+p)
	}
	row("phase", strings.Join(nonEmpty(s.Phase, s.Reason, pausedWord(s.Paused)), ": "))
	if r := s.Record; r != nil {
		row("release", fmt.Sprintf("%d (commit %.12s) from %s", r.Sequence, r.Commit, r.Source))
		row("record", r.Name+", published "+ago(s.Time, r.Published)+", "+expiry(s.Time, r))
	} else {
		row("release", "none yet")
	}
	row("running", name(s.Systems.Current))
	row("booted", name(s.Systems.Booted))
	row("candidate", name(s.Systems.Candidate))
	row("last good", name(s.Systems.LastGoodLive))
	if s.Systems.LastGoodBoot != s.Systems.LastGoodLive {
		row("last good boot", name(s.Systems.LastGoodBoot))
	}
	if tr := s.Transfer; tr != nil {
		row("download", tr.String())
	}
	for i, p := range s.Probes {
		row(first(i, "probes"), mark(p.Green)+" "+p.Name+": "+p.Observed)
	}
	for i, q := range s.Quarantine {
		row(first(i, "quarantine"), fmt.Sprintf("release %d, %s: %s", q.Sequence, name(q.System), q.Reason))
	}
	row("asked", strings.Join(nonEmpty(ago(s.Time, s.Poll.Last), s.pollFault()), ": "))
	if s.Poll.Next.After(s.Time) {
		row("asks again", ago(s.Time, s.Poll.Next))
	}
	_, err := io.WriteString(w, t.String())
	return err
}

// pollFault is why the last question brought nothing, unless a problem above
// says so already.
func (s *Status) pollFault() string {
	fault := s.Poll.Error
	if fault != "" && slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, fault) }) {
		return "no news, see above"
	}
	return fault
}

// narrowest is the least room that is worth breaking lines for.
const narrowest = 20

// wrap breaks a line between words. A word that is longer stays whole: it is a
// path or an address, which somebody wants to copy.
func wrap(text string, room int) []string {
	if room < narrowest {
		return []string{text}
	}
	var lines []string
	line, length := "", 0
	for _, word := range strings.Fields(text) {
		long := utf8.RuneCountInString(word)
		if line != "" && length+1+long > room {
			lines = append(lines, line)
			line, length = "", 0
		}
		if line != "" {
			line, length = line+" ", length+1
		}
		line, length = line+word, length+long
	}
	return append(lines, line)
}

// String says how far the download is, for a person.
func (t *Transfer) String() string {
	return fmt.Sprintf("%d of %d paths, %.1f of %.1f MB", t.PathsDone, t.Paths, mb(t.BytesDone), mb(t.Bytes))
}

// WriteHistory writes events for a person, the oldest first.
func WriteHistory(w io.Writer, events []Event) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := len(events) - 1; i >= 0; i-- {
		e := events[i]
		release := "-"
		if e.Sequence != 0 {
			release = fmt.Sprint(e.Sequence)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", e.Time.UTC().Format("2006-01-02 15:04:05"), release, oneLine(e.Event), oneLine(name(e.System)), oneLine(e.Detail))
	}
	return t.Flush()
}

// oneLine keeps what a probe, a unit or a server said from breaking the columns,
// and from speaking to the terminal: root may read what others wrote.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// name is a store path as people read it: without folder and hash.
func name(system string) string {
	_, base, ok := strings.Cut(system[strings.LastIndex(system, "/")+1:], "-")
	if !ok {
		return system
	}
	return base
}

func ago(now, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	if d := now.Sub(t); d >= 0 {
		return span(d) + " ago"
	}
	return "in " + span(t.Sub(now))
}

// span is a duration as people say it: two units at most.
func span(d time.Duration) string {
	d = d.Round(time.Second)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return two(d, time.Minute, "min", time.Second, "s")
	case d < 48*time.Hour:
		return two(d, time.Hour, "h", time.Minute, "min")
	}
	return two(d, 24*time.Hour, "d", time.Hour, "h")
}

func two(d, big time.Duration, bigName string, small time.Duration, smallName string) string {
	text := fmt.Sprintf("%d %s", d/big, bigName)
	if rest := d % big / small; rest > 0 {
		text += fmt.Sprintf(" %d %s", rest, smallName)
	}
	return text
}

func expiry(now time.Time, r *Record) string {
	text := "expires " + ago(now, r.Expires)
	if r.Expired {
		text = "expired " + ago(now, r.Expires)
	}
	if r.Halted {
		text += ", halted"
	}
	return text
}

func pausedWord(paused bool) string {
	if paused {
		return "paused"
	}
	return ""
}

func nonEmpty(words ...string) []string {
	var out []string
	for _, w := range words {
		if w != "" {
			out = append(out, w)
		}
	}
	return out
}

func first(i int, word string) string {
	if i == 0 {
		return word
	}
	return ""
}

func mark(green bool) string {
	if green {
		return "ok"
	}
	return "RED"
}

func mb(n int64) float64 { return float64(n) / 1e6 }
