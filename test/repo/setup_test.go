package repo

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// setupMachine is a machine with hardly anything on it: setup sees only the
// commands that are put there, and a user who is not root.
func setupMachine(t *testing.T, commands ...string) (bin string) {
	t.Helper()
	bin = t.TempDir()
	basic := []string{
		"awk", "bash", "cat", "chmod", "cp", "cut", "date", "dirname", "go", "head", "mkdir", "mv", "rm", "sed",
		"sha256sum", "sort", "stat", "tail", "tr",
	}
	for _, name := range append(basic, commands...) {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatalf("the test needs %s: %v", name, err)
		}
		if err := os.Symlink(path, filepath.Join(bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	fake(t, bin, "id", `case "$1" in -u) echo 1000 ;; *) echo somebody ;; esac`)
	return bin
}

// fake puts a command into bin that does what the script says.
func fake(t *testing.T, bin, name, script string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/bash\n"+script+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
}

// runSetup runs a copy of the scripts, so that the build folder of the
// repository stays as it is. The folder has a space in its name, as users'
// folders have.
func runSetup(t *testing.T, bin string, args ...string) (output string, code int) {
	t.Helper()
	clone := filepath.Join(t.TempDir(), "my clone")
	if err := os.CopyFS(filepath.Join(clone, "scripts"), os.DirFS(filepath.Join(root, "scripts"))); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile(filepath.Join(root, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(clone, "go.mod"), mod, 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(clone, "scripts", "setup"), args...)
	cmd.Dir = "/" // from anywhere
	cmd.Env = []string{"PATH=" + bin, "HOME=" + t.TempDir(), "GOFLAGS=-mod=mod", "GOTOOLCHAIN=local"}
	out, _ := cmd.CombinedOutput() // the exit code is looked at
	return string(out), cmd.ProcessState.ExitCode()
}

// Where nothing may be installed, setup names the packages and the command,
// and does nothing else.
func TestSetupNamesWhatIsMissing(t *testing.T) {
	bin := setupMachine(t)
	touched := filepath.Join(t.TempDir(), "touched")
	fake(t, bin, "apt-get", "touch "+touched)
	out, code := runSetup(t, bin, "--for", "try")
	if code != 1 {
		t.Errorf("exit code %d; want 1\n%s", code, out)
	}
	for _, want := range []string{"error: missing packages:", "nix-bin", "qemu-system-x86", "have root run: apt-get install --no-install-recommends"} {
		if !strings.Contains(out, want) {
			t.Errorf("the message lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "squashfs-tools") {
		t.Errorf("--for try asks for what only tests need:\n%s", out)
	}
	if _, err := os.Stat(touched); err == nil {
		t.Error("setup called apt-get without being allowed to")
	}
}

func TestSetupRefusesWithoutDebian(t *testing.T) {
	out, code := runSetup(t, setupMachine(t), "--for", "try")
	if code != 1 || !strings.Contains(out, "this is not Debian") || !strings.Contains(out, "install these yourself: ") {
		t.Errorf("exit code %d; want 1 and the packages to install:\n%s", code, out)
	}
}

func TestSetupNeedsGo(t *testing.T) {
	bin := setupMachine(t)
	if err := os.Remove(filepath.Join(bin, "go")); err != nil {
		t.Fatal(err)
	}
	fake(t, bin, "go", "echo go1.19.8")
	out, code := runSetup(t, bin)
	// A Go in /usr/local is found as well: then the old one must not be used.
	if !strings.Contains(out, "or newer found (too old: "+bin+"/go") && !strings.Contains(out, "from /usr/local/go/bin") {
		t.Errorf("exit code %d; want the old Go refused:\n%s", code, out)
	}
}
