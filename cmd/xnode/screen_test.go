package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/agent/statusapi"
)

// openTerminal makes a terminal of a size and returns both of its ends.
func openTerminal(t *testing.T, columns, rows uint16) (user, program *os.File) {
	t.Helper()
	user, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { user.Close() })
	fd := int(user.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		t.Fatal(err)
	}
	if program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { program.Close() })
	return user, program
}

// What is drawn fits the terminal in both directions, however much there is to
// say.
func TestScreenFitsTheTerminal(t *testing.T) {
	t.Parallel()
	user, program := openTerminal(t, 60, 10)
	s := &screen{out: program}
	status := &statusapi.Status{
		Health: statusapi.Degraded, Phase: "IDLE", Node: statusapi.Node{Hostname: "node1", Class: "edge", Medium: "live", Storage: "disk"},
		Problems: []string{strings.Repeat("something is wrong ", 30)}, Poll: statusapi.Poll{Last: time.Now()},
	}
	if err := s.show(status); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 8<<10)
	n, err := user.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	text := string(buf[:n])
	lines := strings.Split(strings.TrimSuffix(text, "\x1b[J"), "\n")
	lines = lines[:len(lines)-1]
	if len(lines) > 9 {
		t.Errorf("%d lines on 10 rows:\n%s", len(lines), text)
	}
	for _, line := range lines {
		plain := strings.NewReplacer("\x1b[H", "", "\x1b[K", "", "\r", "").Replace(line)
		if len(plain) > 60 {
			t.Errorf("a line of %d on 60 columns: %q", len(plain), plain)
		}
	}
	if last := lines[len(lines)-1]; !strings.HasPrefix(last, "... xnode status shows all") {
		t.Errorf("the last line is %q; want it to say that there is more", last)
	}
}
