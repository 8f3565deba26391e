package unit

import (
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestResult(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		result  Result
		text    string
		success bool
	}{
		{Result{State: Gone, ExitCode: -1}, "gone", false},
		{Result{State: Running, ExitCode: -1}, "running", false},
		{Result{State: Ended, Reason: "success"}, "exit code 0", true},
		{Result{State: Ended, Reason: "exit-code", ExitCode: 4}, "exit code 4", false},
		{Result{State: Ended, Reason: "success", ExitCode: -1, Signal: syscall.SIGTERM}, "signal 15 (terminated)", false},
		{Result{State: Ended, Reason: "signal", ExitCode: -1, Signal: syscall.SIGKILL}, "signal 9 (killed)", false},
		{Result{State: Ended, Reason: "timeout", ExitCode: -1, Signal: syscall.SIGTERM}, "timeout", false},
		{Result{State: Ended, Reason: "timeout", ExitCode: 0}, "timeout", false},
		{Result{State: Ended, Reason: "resources", ExitCode: -1}, "resources", false},
	} {
		if got := test.result.String(); got != test.text || test.result.Success() != test.success {
			t.Errorf("%+v: %q, success %t; want %q, %t", test.result, got, test.result.Success(), test.text, test.success)
		}
	}
}

func TestNewly(t *testing.T) {
	t.Parallel()
	before := []Failed{{"b.service", "failed"}, {"gone.service", "failed"}}
	now := []Failed{{"c.service", "failed"}, {"b.service", "auto-restart"}, {"a.service", "failed"}}
	if diff := cmp.Diff([]Failed{{"a.service", "failed"}, {"c.service", "failed"}}, Newly(before, now)); diff != "" {
		t.Errorf("Newly (-want +got):\n%s", diff)
	}
	if got := Newly(now, now); got != nil {
		t.Errorf("Newly of the same = %v", got)
	}
}
