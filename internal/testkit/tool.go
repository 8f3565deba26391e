package testkit

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// RunTool runs a program that checks our work and returns all that it printed.
// A missing program or a bad exit fails the test. Programs in the sbin folders
// are found although a user's PATH leaves them out.
func RunTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin"} {
		if err != nil {
			path, err = exec.LookPath(filepath.Join(dir, name))
		}
	}
	if err != nil {
		t.Fatalf("%s is not installed; run scripts/setup", name)
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}
