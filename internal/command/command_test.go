package command_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/command"
)

func sh(script string) command.Cmd {
	return command.Cmd{Name: "/bin/sh", Args: []string{"-c", script}}
}

func TestOutput(t *testing.T) {
	t.Parallel()
	c := sh(`cat; echo "$A $B $#"; pwd`)
	c.Args = append(c.Args, "sh", "x y")
	c.Stdin = strings.NewReader("in\n")
	c.Env = []string{"A=1", "B=2"}
	c.AddEnv = []string{"B=3"}
	c.Dir = "/"
	got, err := command.Output(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("in\n1 3 1\n/\n", string(got)); diff != "" {
		t.Errorf("Output (-want +got):\n%s", diff)
	}
}

func TestOutputTooLong(t *testing.T) {
	t.Parallel()
	_, err := command.Output(t.Context(), sh("exec cat /dev/zero"))
	if err == nil || !strings.Contains(err.Error(), "output is longer than") {
		t.Errorf("Output of an endless program = %v; want it cut off", err)
	}
}

func TestLines(t *testing.T) {
	t.Parallel()
	var got []string
	c := sh(`printf 'a\r\nb\n'; printf 'e1\n' >&2; printf 'no end'`)
	c.StdoutLine = func(line string) { got = append(got, line) }
	var errLines []string
	c.StderrLine = func(line string) { errLines = append(errLines, line) }
	var all strings.Builder
	c.Stdout = &all
	if err := command.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a", "b", "no end"}, got); diff != "" {
		t.Errorf("standard output (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"e1"}, errLines); diff != "" {
		t.Errorf("standard error (-want +got):\n%s", diff)
	}
	if want := "a\r\nb\nno end"; all.String() != want {
		t.Errorf("Stdout got %q; want %q", all.String(), want)
	}
}

func TestLongLineComesInParts(t *testing.T) {
	t.Parallel()
	var sizes []int
	c := sh(`head -c 150000 /dev/zero; echo; echo x`)
	c.StdoutLine = func(line string) { sizes = append(sizes, len(line)) }
	if err := command.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{65536, 65536, 150000 - 2*65536, 1}, sizes); diff != "" {
		t.Errorf("line lengths (-want +got):\n%s", diff)
	}
}

func TestFailureCarriesTheEndOfStderr(t *testing.T) {
	t.Parallel()
	err := command.Run(t.Context(), sh(`i=0; while [ $i -lt 2000 ]; do echo "line $i" >&2; i=$((i+1)); done; echo last words >&2; exit 7`))
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Fatalf("Run = %v; want exit status 7", err)
	}
	var e *command.Error
	if !errors.As(err, &e) {
		t.Fatalf("Run = %T; want *command.Error", err)
	}
	if len(e.Stderr) > 4096 || !strings.HasPrefix(e.Stderr, "line 1") || !strings.HasSuffix(e.Stderr, "last words") {
		t.Errorf("Stderr has %d bytes, %.20q...%q", len(e.Stderr), e.Stderr, e.Stderr[len(e.Stderr)-20:])
	}
	if !strings.HasPrefix(err.Error(), "sh: exit status 7; it said: ") {
		t.Errorf("Error() = %.60q", err.Error())
	}
}

func TestMissingProgram(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"no-such-program-xnode", "/no/such/program"} {
		err := command.Run(t.Context(), command.Cmd{Name: name, Package: "nix-bin", Flag: "--nix"})
		var missing *command.MissingError
		if !errors.As(err, &missing) {
			t.Fatalf("Run(%q) = %v; want *MissingError", name, err)
		}
		for _, part := range []string{strconv.Quote(name), "nix-bin", "--nix"} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("Run(%q) = %q; want it to mention %s", name, err, part)
			}
		}
	}
	c := sh("true")
	c.Dir = "/no/such/folder"
	err := command.Run(t.Context(), c)
	var missing *command.MissingError
	if err == nil || errors.As(err, &missing) || !strings.Contains(err.Error(), "/no/such/folder") {
		t.Errorf("Run in a missing folder = %v; want the folder named", err)
	}
}

// TestCancelKillsTheGroup: a shell that ignores SIGTERM, and its child that
// holds the pipe open, are both gone when Run returns.
func TestCancelKillsTheGroup(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stopped by the test")
	var child int
	c := sh(`trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000`)
	c.Grace = 200 * time.Millisecond
	c.StdoutLine = func(line string) {
		child, _ = strconv.Atoi(line)
		cancel(stop)
	}
	begin := time.Now()
	err := command.Run(ctx, c)
	if !errors.Is(err, stop) {
		t.Errorf("Run = %v; want %v", err, stop)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("Run took %v after cancelling", took)
	}
	if child <= 1 {
		t.Fatalf("child's pid = %d", child)
	}
	waitGone(t, child)
}

// alive says whether a process runs; one that is dead but not reaped does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, found := strings.Cut(string(stat), ") ")
	return found && rest[0] != 'Z' && rest[0] != 'X'
}

// waitGone waits until the process is dead: the kill was sent before Run
// returned, but a grandchild dies in its own time.
func waitGone(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); alive(pid); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d is still alive", pid)
		}
	}
}

func TestCancelIsPoliteFirst(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	mark := filepath.Join(t.TempDir(), "mark")
	c := sh(`trap 'echo cleaned >"$1"; exit 3' TERM; echo ready; while :; do sleep 0.05; done`)
	c.Args = append(c.Args, "sh", mark)
	c.Grace = time.Minute
	c.StdoutLine = func(string) { cancel() }
	err := command.Run(ctx, c)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v; want context.Canceled", err)
	}
	if got, _ := os.ReadFile(mark); string(got) != "cleaned\n" {
		t.Errorf("the program could not clean up: %q", got)
	}
}

func TestCancelledBeforeStart(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	mark := filepath.Join(t.TempDir(), "mark")
	if err := command.Run(ctx, command.Cmd{Name: "touch", Args: []string{mark}}); !errors.Is(err, context.Canceled) {
		t.Errorf("Run = %v; want context.Canceled", err)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the program ran although the context had ended")
	}
}

func TestStartSignalWait(t *testing.T) {
	t.Parallel()
	pr, pw := io.Pipe()
	c := sh(`trap 'exit 9' USR1; echo ready; while :; do sleep 0.05; done`)
	c.Stdout = pw
	p, err := command.Start(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(pr, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	if err := p.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	for range 2 { // Wait may be called again
		var exit *exec.ExitError
		if err := p.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 9 {
			t.Errorf("Wait = %v; want exit status 9", err)
		}
	}
	if err := p.Signal(syscall.SIGKILL); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("Signal after Wait = %v; want os.ErrProcessDone", err)
	}
}

func TestForegroundStaysInOurGroup(t *testing.T) {
	t.Parallel()
	want := syscall.Getpgrp()
	for _, foreground := range []bool{true, false} {
		c := sh(`read -r _ _ _ _ group _ </proc/self/stat; echo $group`)
		c.Foreground = foreground
		got, err := command.Output(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		group, err := strconv.Atoi(strings.TrimSpace(string(got)))
		if err != nil {
			t.Fatal(err)
		}
		if (group == want) != foreground {
			t.Errorf("Foreground=%v ran in process group %d; ours is %d", foreground, group, want)
		}
	}
}
