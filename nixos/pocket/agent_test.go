package pocket_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/internal/testkit"
	"xnodeos.org/nixos/pocket"
)

// agentProgram is some static program: the system takes it without a look.
func agentProgram(t *testing.T) string {
	t.Helper()
	root, err := testkit.Root(".")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "xnode")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", program, "./cmd/xnode")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return program
}

// TestAgent builds systems that carry the agent, whole and broken in every way.
func TestAgent(t *testing.T) {
	program := agentProgram(t)
	store, p := build(t, pocket.Options{Label: "with-agent", Xnode: program})
	var size int64
	for _, info := range closure(t, store, p) {
		size += info.NarSize
	}
	t.Logf("closure with the agent: %.1f MB", float64(size)/1e6)
	if size > maxClosure {
		t.Errorf("closure is %d bytes; the budget is %d", size, maxClosure)
	}
	want, err := os.ReadFile(program)
	if err != nil {
		t.Fatal(err)
	}
	got, err := store.ReadFile(string(p)+"/sw/bin/xnode", int64(len(want)))
	if err != nil || string(got) != string(want) {
		t.Errorf("sw/bin/xnode is not the program: %d bytes, %v; want %d", len(got), err, len(want))
	}
	for unit, texts := range map[string][]string{
		"xnode-follow.service": {"User=xnode", "Type=notify", "WatchdogSec=", "NoNewPrivileges=yes", "ProtectSystem=strict", "/bin/xnode follow"},
		"xnode-apply.service":  {"X-RestartIfChanged=false", "X-StopOnRemoval=false", "/bin/xnode apply", "Requires=xnode-apply.socket"},
		"xnode-apply.socket":   {"/run/xnode/apply.sock", "SocketMode=0660", "SocketGroup=xnode", "X-RestartIfChanged=false", "X-StopOnRemoval=false"},
	} {
		text := readPart(t, store, p, "etc/systemd/system/"+unit)
		for _, want := range texts {
			if !strings.Contains(text, want) || strings.Contains(text, "@xnode@") {
				t.Errorf("%s has no %q:\n%s", unit, want, text)
			}
		}
	}
	for _, name := range []string{"agent.toml", "probes.toml"} {
		if readPart(t, store, p, "etc/xnode/"+name) == "" {
			t.Errorf("etc/xnode/%s is empty", name)
		}
	}
	for _, name := range pocket.Variants() {
		if _, broken := build(t, pocket.Options{Label: "with-agent", Xnode: program, Broken: name}); broken == p {
			t.Errorf("broken %q is the same system", name)
		}
	}
}

// A system without the agent has none of its units, and the program's bytes
// count, not its name.
func TestAgentAbsentOrChanged(t *testing.T) {
	store, p := build(t, pocket.Options{})
	if f, err := store.Open(string(p) + "/etc/systemd/system/xnode-follow.service"); err == nil {
		f.Close()
		t.Error("a system without the agent has its unit")
	}
	program := filepath.Join(t.TempDir(), "xnode")
	var last string
	for _, text := range []string{"one", "two"} {
		if err := os.WriteFile(program, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		_, p := build(t, pocket.Options{Label: "changed-agent", Xnode: program})
		if string(p) == last {
			t.Error("another program gives the same system")
		}
		last = string(p)
	}
}
