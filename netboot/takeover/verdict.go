package takeover

import (
	"fmt"
	"io"
	"strings"

	"xnodeos.org/internal/nodeconfig"
)

// Status is the result of one check.
type Status string

// OK and Warn let a takeover go on; Fail does not.
const (
	OK   Status = "ok"
	Warn Status = "warn"
	Fail Status = "fail"
)

// Check is one thing that was looked at. Remedy is empty where all is well.
type Check struct {
	Name   string `json:"name"`
	Status Status `json:"status"`
	Text   string `json:"text"`
	Remedy string `json:"remedy,omitempty"`
}

// Verdict is what the preflight says; --json prints it. It holds no secret.
type Verdict struct {
	V        int                   `json:"v"`
	Status   Status                `json:"status"` // the worst of the checks
	Label    string                `json:"label"`
	Manifest string                `json:"manifest"` // "sha256:HEX"
	Method   Method                `json:"method"`   // how it would be loaded; empty if it cannot
	Cmdline  string                `json:"cmdline"`
	Payload  []string              `json:"payload"` // "embedded", or URLs
	Network  []string              `json:"network"` // words that the new system gets; none: DHCP
	HandOver []nodeconfig.FileInfo `json:"hand_over"`
	Memory   Memory                `json:"memory"`
	Checks   []Check               `json:"checks"`
}

func (v *Verdict) add(checks ...Check) {
	for _, c := range checks {
		v.Checks = append(v.Checks, c)
		if c.Status == Fail || c.Status == Warn && v.Status != Fail {
			v.Status = c.Status
		}
	}
}

func (v *Verdict) failed() bool { return v.Status == Fail }

// RefusedError says that checks failed; nothing was changed.
type RefusedError struct{ Failed []Check }

func (e *RefusedError) Error() string {
	texts := make([]string, len(e.Failed))
	for i, c := range e.Failed {
		texts[i] = c.Text
		if c.Remedy != "" {
			texts[i] += "; " + c.Remedy
		}
	}
	return "refusing to take over: " + strings.Join(texts, " | ") + " (nothing was changed)"
}

// Err is nil, or a *RefusedError with the checks that failed.
func (v *Verdict) Err() error {
	var failed []Check
	for _, c := range v.Checks {
		if c.Status == Fail {
			failed = append(failed, c)
		}
	}
	if len(failed) == 0 {
		return nil
	}
	return &RefusedError{Failed: failed}
}

// WriteText writes the verdict for people.
func (v *Verdict) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "takeover by %s (%s)\n", v.Label, v.Manifest)
	for _, c := range v.Checks {
		fmt.Fprintf(&b, "  %-4s  %-12s %s\n", c.Status, c.Name, c.Text)
		if c.Remedy != "" {
			fmt.Fprintf(&b, "        %-12s -> %s\n", "", c.Remedy)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}
