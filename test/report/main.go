// Command report reads `go test -json` from its input and prints what a person
// wants to see: one line a package, the whole output of what failed, the
// slowest tests, and a closing count. It exits 1 when a test failed, when one
// was skipped (a missing tool is a failure here, never a skip), or when none
// ran. With -v it also prints a line for each top-level test as it ends.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() {
	verbose := flag.Bool("v", false, "print a line for each top-level test as it ends")
	flag.Parse()
	r := newReport(os.Stdout, *verbose)
	if err := r.read(os.Stdin); err != nil {
		fmt.Fprintf(os.Stderr, "report: %v\n", err)
		os.Exit(1)
	}
	if !r.close() {
		os.Exit(1)
	}
}

// An event is one line of `go test -json`, see `go doc test2json`.
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output
	Test       string
	Output     string
	Elapsed    float64
}

type result struct {
	pkg, test string
	seconds   float64
}

type report struct {
	w                       io.Writer
	verbose                 bool
	output                  map[string][]string // by package and test, until it ends
	passed, failed, skipped int
	broken                  int // packages that failed without a failing test
	failures                map[string]bool
	slow                    []result
	unfinished              map[string]bool
}

func newReport(w io.Writer, verbose bool) *report {
	return &report{w: w, verbose: verbose, output: map[string][]string{}, failures: map[string]bool{}, unfinished: map[string]bool{}}
}

func (r *report) read(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(make([]byte, 1<<20), 64<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil || e.Action == "" {
			fmt.Fprintln(r.w, lines.Text()) // the go command's own words
			continue
		}
		r.event(e)
	}
	return lines.Err()
}

func (r *report) event(e event) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		fmt.Fprint(r.w, e.Output)
	case "run":
		r.unfinished[key] = true
	case "output":
		r.text(key, e)
	case "pass", "fail", "skip":
		delete(r.unfinished, key)
		if e.Test == "" {
			r.packageEnd(e)
			return
		}
		r.testEnd(key, e)
	}
}

// text keeps the output of a test until it is known how it ends, and passes
// the closing line of a package on.
func (r *report) text(key string, e event) {
	if e.Test != "" {
		r.output[key] = append(r.output[key], e.Output)
		return
	}
	switch {
	case e.Output == "PASS\n", e.Output == "FAIL\n", strings.Contains(e.Output, "[no test files]"):
	case strings.HasPrefix(e.Output, "ok  \t"):
		fmt.Fprint(r.w, e.Output)
	default:
		r.output[key] = append(r.output[key], e.Output)
	}
}

func (r *report) testEnd(key string, e event) {
	top := !strings.Contains(e.Test, "/")
	switch e.Action {
	case "pass":
		r.passed++
	case "fail":
		r.failed++
		r.failures[e.Package] = true
	case "skip":
		r.skipped++
	}
	if e.Action != "pass" {
		for _, text := range r.output[key] {
			if !strings.HasPrefix(text, "=== ") {
				fmt.Fprint(r.w, text)
			}
		}
	} else if r.verbose && top {
		fmt.Fprintf(r.w, "--- PASS: %s (%.1fs)\n", e.Test, e.Elapsed)
	}
	delete(r.output, key)
	if top {
		r.slow = append(r.slow, result{e.Package, e.Test, e.Elapsed})
	}
}

// packageEnd prints what a package said outside its tests when it failed: the
// text of a build error, a panic or a deadline.
func (r *report) packageEnd(e event) {
	if e.Action != "fail" {
		return
	}
	if !r.failures[e.Package] {
		r.broken++
		for key := range r.unfinished {
			if strings.HasPrefix(key, e.Package+" ") {
				for _, text := range r.output[key] {
					fmt.Fprint(r.w, text)
				}
			}
		}
	}
	for _, text := range r.output[e.Package+" "] {
		fmt.Fprint(r.w, text)
	}
}

// close prints the sum and reports whether all is well.
func (r *report) close() bool {
	slices.SortStableFunc(r.slow, func(a, b result) int {
		switch {
		case a.seconds > b.seconds:
			return -1
		case a.seconds < b.seconds:
			return 1
		}
		return 0
	})
	for i, s := range r.slow {
		if i == 5 || s.seconds < 2 {
			break
		}
		fmt.Fprintf(r.w, "slow: %6.1f s  %s %s\n", s.seconds, s.pkg, s.test)
	}
	if r.broken > 0 {
		fmt.Fprintf(r.w, "packages that did not build or broke off: %d\n", r.broken)
	}
	if r.skipped > 0 {
		fmt.Fprintln(r.w, "a skipped test counts as failed: run scripts/setup, or make the test fail with the remedy")
	}
	fmt.Fprintf(r.w, "%d passed, %d failed, %d skipped\n", r.passed, r.failed+r.broken, r.skipped)
	return r.failed == 0 && r.broken == 0 && r.skipped == 0 && r.passed > 0
}
