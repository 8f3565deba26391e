package pocket_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMotdOfABrokenFollower: what the unprivileged half wrote must neither speak
// to the terminal of root, who logs in, nor hold him up.
func TestMotdOfABrokenFollower(t *testing.T) {
	t.Parallel()
	profile, err := os.ReadFile("etc/profile")
	if err != nil {
		t.Fatal(err)
	}
	motd := filepath.Join(t.TempDir(), "motd")
	_, line, ok := strings.Cut(string(profile), "case $-")
	if !ok {
		t.Fatal("the profile shows nothing")
	}
	script := "case $-" + strings.ReplaceAll(line, "/run/xnode/motd", motd)
	login := func() string {
		cmd := exec.CommandContext(t.Context(), "sh", "-i", "-c", script)
		cmd.WaitDelay = time.Second
		out, err := cmd.Output()
		if err != nil {
			t.Errorf("login: %v", err)
		}
		return string(out)
	}
	if err := os.WriteFile(motd, []byte("xnode: well\n\x1b]0;owned\a\x9b2J\r"+strings.Repeat("x", 5000)), 0o644); err != nil {
		t.Fatal(err)
	}
	if got := login(); !strings.HasPrefix(got, "xnode: well\n") || strings.ContainsAny(got, "\x1b\a\r") || strings.Contains(got, "\x9b") || len(got) > 1000 {
		t.Errorf("at login root sees %q", got)
	}
	if err := os.Remove(motd); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(motd, 0o644); err != nil {
		t.Fatal(err)
	}
	if got := login(); got != "" {
		t.Errorf("of a pipe root sees %q", got)
	}
}
