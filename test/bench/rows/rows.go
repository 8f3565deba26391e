// Package rows holds and prints the figures of a measurement: what was
// measured, beside which peer, against which target. It measures nothing.
package rows

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

// A Measurement is one bench program: its arguments, where its table goes, and
// where it tells what it does.
type Measurement func(ctx context.Context, args []string, stdout, stderr io.Writer) error

// Run runs a measurement until a signal ends it and returns the process's exit
// code: 0 done, 1 failed, 2 where only help was asked for.
func Run(name string, args []string, stdout, stderr io.Writer, measure Measurement) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := measure(ctx, args, stdout, stderr)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, flag.ErrHelp):
		return 2
	}
	fmt.Fprintf(stderr, "bench %s: %v\n", name, err)
	return 1
}

// A Row is one figure. Peer, its value and the ratio are null where there is
// nothing to compare with, Target where none was set. OK says whether the
// target is met, and is null without one.
type Row struct {
	Name      string   `json:"name"`
	Value     float64  `json:"value"`
	Unit      string   `json:"unit"`
	Peer      *string  `json:"peer"`
	PeerValue *float64 `json:"peer_value"`
	Ratio     *float64 `json:"ratio"`
	Target    *string  `json:"target"`
	OK        *bool    `json:"ok"`
}

// New is a figure without peer and target.
func New(name string, value float64, unit string) Row {
	return Row{Name: name, Value: value, Unit: unit}
}

// AtMost sets a limit for the value.
func (r Row) AtMost(limit float64) Row {
	target, ok := fmt.Sprintf("<= %g %s", limit, r.Unit), r.Value <= limit
	r.Target, r.OK = &target, &ok
	return r
}

// Beside sets the peer and the ratio of our value to its.
func (r Row) Beside(peer string, value float64) Row {
	ratio := r.Value / value
	r.Peer, r.PeerValue, r.Ratio = &peer, &value, &ratio
	return r
}

// RatioAtMost sets a limit for the ratio to the peer.
func (r Row) RatioAtMost(limit float64) Row {
	if r.Ratio == nil {
		return r
	}
	target, ok := fmt.Sprintf("<= %gx", limit), *r.Ratio <= limit
	r.Target, r.OK = &target, &ok
	return r
}

// RatioAtLeast sets a lower limit for the ratio to the peer.
func (r Row) RatioAtLeast(limit float64) Row {
	if r.Ratio == nil {
		return r
	}
	target, ok := fmt.Sprintf(">= %gx", limit), *r.Ratio >= limit
	r.Target, r.OK = &target, &ok
	return r
}

// Median is the middle of the values, the mean of the two middle ones of an
// even number. It panics on none: that is a bug of the measurement.
func Median(values []float64) float64 {
	if len(values) == 0 {
		panic("BUG: median of nothing")
	}
	s := slices.Sorted(slices.Values(values))
	mid := len(s) / 2
	if len(s)%2 == 1 {
		return s[mid]
	}
	return (s[mid-1] + s[mid]) / 2
}

// table is the JSON form.
type table struct {
	Rows []Row `json:"rows"`
}

// WriteJSON writes {"rows":[...]}.
func WriteJSON(w io.Writer, rows []Row) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(table{rows})
}

// ReadJSON reads what WriteJSON wrote.
func ReadJSON(r io.Reader) ([]Row, error) {
	var t table
	if err := json.NewDecoder(r).Decode(&t); err != nil {
		return nil, fmt.Errorf("read rows: %w", err)
	}
	return t.Rows, nil
}

// WriteTable writes a Markdown table, aligned for the terminal as well.
func WriteTable(w io.Writer, rows []Row) error {
	lines := [][]string{{"figure", "value", "peer", "ratio", "target", "met"}}
	for _, r := range rows {
		peer, ratio, target, ok := "", "", "", ""
		if r.Peer != nil && r.PeerValue != nil {
			peer = fmt.Sprintf("%s: %s", *r.Peer, amount(*r.PeerValue, r.Unit))
		}
		if r.Ratio != nil {
			ratio = fmt.Sprintf("%.2fx", *r.Ratio)
		}
		if r.Target != nil {
			target = *r.Target
		}
		if r.OK != nil {
			ok = map[bool]string{true: "yes", false: "no"}[*r.OK]
		}
		lines = append(lines, []string{r.Name, amount(r.Value, r.Unit), peer, ratio, target, ok})
	}
	widths := make([]int, len(lines[0]))
	for _, line := range lines {
		for i, cell := range line {
			widths[i] = max(widths[i], len(cell))
		}
	}
	rule := make([]string, len(widths))
	for i, width := range widths {
		rule[i] = strings.Repeat("-", width)
	}
	for _, line := range slices.Insert(lines, 1, rule) {
		for i, cell := range line {
			line[i] = fmt.Sprintf("%-*s", widths[i], cell)
		}
		if _, err := fmt.Fprintf(w, "| %s |\n", strings.Join(line, " | ")); err != nil {
			return err
		}
	}
	return nil
}

// amount prints a value with as many digits as mean something.
func amount(v float64, unit string) string {
	digits := 2
	switch {
	case v == float64(int64(v)):
		digits = 0
	case v >= 10:
		digits = 1
	}
	return fmt.Sprintf("%.*f %s", digits, v, unit)
}
