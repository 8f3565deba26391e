package stage1

import (
	"errors"
	"strings"
	"testing"
)

func TestGuard(t *testing.T) {
	t.Parallel()
	err := guard(func() error {
		var none []int
		none[len(none)] = 1
		return nil
	})
	if !errors.Is(err, errPanic) || !strings.Contains(err.Error(), "index out of range") || !strings.Contains(err.Error(), "failure_test.go") {
		t.Errorf("guard of a panic = %v; want the panic and where it was", err)
	}
	sentinel := errors.New("x")
	if err := guard(func() error { return sentinel }); !errors.Is(err, sentinel) {
		t.Errorf("guard = %v; want %v", err, sentinel)
	}
}

func TestStepError(t *testing.T) {
	t.Parallel()
	cause := errors.New("no disk")
	err := stepError("find payload", cause, "insert one")
	if got, want := err.Error(), "find payload: no disk; insert one"; got != want {
		t.Errorf("Error() = %q; want %q", got, want)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is not in the chain")
	}
	if got, want := stepError("mount", cause, "").Error(), "mount: no disk"; got != want {
		t.Errorf("Error() = %q; want %q", got, want)
	}
	if err := stepError("mount", nil, "x"); err != nil {
		t.Errorf("stepError without a cause = %v; want nil", err)
	}
}
