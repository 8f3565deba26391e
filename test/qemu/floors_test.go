package qemu

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/vm"
)

// TestArtifactStateFloors boots a signed image whose node config names state and
// mirror, and no word of the command line either. What the node learns raises
// the floors: a newer release alone must not shut its image out, and an image
// older than one that it has started must not come in by a signature.
func TestArtifactStateFloors(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	work := t.TempDir()
	run := func(name string, args ...string) string {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	key, config := filepath.Join(work, "key"), filepath.Join(work, "node")
	signer := regexp.MustCompile(`(?m)^\S+ namespaces="xnode-manifest" ssh-ed25519 .*$`).FindString(
		run(xnodeos(t), "key", "new", "--for", "manifest", "--out", key))
	run("cp", "-r", filepath.Join(img.netboot, "..", "..", "node"), config)
	out := filepath.Join(work, "out")
	mirror := startMirror(t, filepath.Join(out, "netboot"), nil)
	if err := os.Mkdir(filepath.Join(config, "trust"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"trust/allowed_signers": signer, "state": "serial:state-1", "payload": mirror.url} {
		if err := os.WriteFile(filepath.Join(config, name), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(xnodeos(t), "image", "build", "--system", img.system, "--out", out, "--format", "netboot",
		"--node-config", config, "--sign", key, "--sequence", "3", "--time", "1763600000")
	raw, err := os.ReadFile(filepath.Join(out, "netboot", manifest.FileName))
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	signed := &image{recipe: img.recipe, netboot: filepath.Join(out, "netboot"), manifest: m, digest: manifest.DigestOf(raw), config: img.config}
	disk := stateDisk(t, "state-1")
	boot := func(want vm.Pattern, not ...vm.Pattern) (*node, vm.Line) {
		t.Helper()
		s := scenario{payload: []string{mirror.url}, change: func(machine *vm.Machine) {
			line, _, _ := strings.Cut(machine.Append, " xnode.manifest=")
			machine.Append = line + " no_timer_check"
			machine.Drives = append(machine.Drives, disk)
		}}
		return s.boot(t, signed, want, not...)
	}

	n, line := boot(ready, stageFailed, kernelPanic)
	n.checkHTTP(t, line, extra{}, mirror.url)
	if s := n.stateOf(t); s.State.Result != "made" {
		t.Fatalf("state: %+v", s.State)
	}
	const learn = `mkdir -p /var/lib/xnode/applier && cd /var/lib/xnode && echo '{"sequence":7,"published":1795180800}' >applier/accepted.json && cat first-stage/sequence && sync`
	if got := strings.TrimSpace(n.shell(t, learn)); got != "3" {
		t.Errorf("the first stage noted the sequence %q; want 3", got)
	}
	n.Stop()

	// Release 7 came without an image.
	n, _ = boot(ready, stageFailed, kernelPanic)
	if s := n.stateOf(t); s.State.Result != "opened" {
		t.Errorf("state: %+v", s.State)
	}
	n.shell(t, "cd /var/lib/xnode && echo 5 >first-stage/sequence && echo 1830000000 >applier/time-floor && sync")
	n.Stop()

	// Image 5 was started meanwhile.
	n, line = boot(stageFailed, ready, kernelPanic)
	if want := "has sequence 3, older than the 5 that this node has seen"; !strings.Contains(line.Text, want) {
		t.Errorf("console: %q; want %q", line.Text, want)
	}
	n.says(t, `the clock was before the time that was kept on XNODE-STATE`)
}
