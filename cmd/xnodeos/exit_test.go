package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestExitCodes(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tt := range []struct {
		name     string
		ctx      context.Context
		err      error
		code     int
		reported bool
	}{
		{"failure", t.Context(), errors.New("x"), 1, false},
		{"usage", t.Context(), fmt.Errorf("wrapped: %w", usagef("x")), 2, false},
		{"cancelled", cancelled, fmt.Errorf("stage: %w", context.Canceled), 130, false},
		{"failed while being cancelled", cancelled, errors.New("disk full"), 1, false},
		{"told already", t.Context(), &reportedError{errors.New("x")}, 1, true},
	} {
		code, reported := exitCode(tt.ctx, tt.err)
		if code != tt.code || reported != tt.reported {
			t.Errorf("exitCode(%s) = %d, %t; want %d, %t", tt.name, code, reported, tt.code, tt.reported)
		}
	}
}

func TestRunCodes(t *testing.T) {
	for _, tt := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"--help", 0, "image", ""},
		{"image build --help", 0, "SOURCE_DATE_EPOCH", ""},
		{"completion bash", 0, "xnodeos", ""},
		{"no-such-command", 2, "", "no-such-command"},
		{"image build --no-such-flag", 2, "", "no-such-flag"},
		{"image inspect /no/such/file", 1, "", "/no/such/file"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(strings.Fields(tt.args), strings.NewReader(""), &stdout, &stderr); code != tt.code {
			t.Errorf("xnodeos %s = exit %d; want %d (stderr %q)", tt.args, code, tt.code, stderr.String())
		}
		if !strings.Contains(stdout.String(), tt.stdout) || !strings.Contains(stderr.String(), tt.stderr) {
			t.Errorf("xnodeos %s printed %q and %q; want %q and %q in them", tt.args, stdout.String(), stderr.String(), tt.stdout, tt.stderr)
		}
	}
}
