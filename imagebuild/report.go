package imagebuild

import (
	"fmt"
	"strings"
)

// Report is what Inspect found in an artifact.
type Report struct {
	Path       string       `json:"path"`
	Kind       string       `json:"kind"` // a Format
	Size       int64        `json:"size"`
	Label      string       `json:"label"`
	System     string       `json:"system"`
	Manifest   string       `json:"manifest"` // "sha256:HEX"
	Signer     string       `json:"signer"`   // fingerprint of the key that signed it; its role is not judged
	Sequence   uint32       `json:"sequence"`
	Time       int64        `json:"time"`
	Cmdline    string       `json:"cmdline"`
	NodeConfig []string     `json:"node_config"`
	Parts      []ReportPart `json:"parts"`
	Problems   []string     `json:"problems"` // empty: every byte is as it must be
}

// ReportPart is one piece that a loader, the kernel or the first stage reads.
type ReportPart struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
	Note string `json:"note"` // where it lies or what was checked
}

// problem adds a finding; the artifact is refused.
func (r *Report) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

func (r *Report) part(name string, size int64, format string, args ...any) {
	r.Parts = append(r.Parts, ReportPart{Name: name, Size: size, Note: fmt.Sprintf(format, args...)})
}

// Text is the report as a person reads it.
func (r *Report) Text() string {
	var b strings.Builder
	line := func(what, format string, args ...any) {
		fmt.Fprintf(&b, "%-13s %s\n", what, fmt.Sprintf(format, args...))
	}
	line(r.Kind, "%s, %d bytes", r.Path, r.Size)
	if r.System != "" {
		line("system", "%s (%s)", r.System, r.Label)
		line("manifest", "%s, sequence %d, time %d", r.Manifest, r.Sequence, r.Time)
		if r.Signer != "" {
			line("signed by", "%s (whether you trust that key is for you to say)", r.Signer)
		}
		line("command line", "%s", r.Cmdline)
	}
	if len(r.NodeConfig) > 0 {
		line("node config", "%s", strings.Join(r.NodeConfig, " "))
	} else {
		line("node config", "none")
	}
	for _, p := range r.Parts {
		line("part", "%-40s %10d bytes  %s", p.Name, p.Size, p.Note)
	}
	for _, text := range r.Problems {
		line("problem", "%s", text)
	}
	if len(r.Problems) == 0 {
		line("verdict", "whole: every byte is what the parts derive to")
	} else {
		line("verdict", "refused: %d problem(s); build it again or fetch it again", len(r.Problems))
	}
	return b.String()
}
