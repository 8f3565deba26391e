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

// TestArtifactSigned boots a kernel whose command line names no manifest: the
// node config in the initrd lists a key, and that decides. The first of two
// mirrors has a manifest of the same key in another role, which must not count.
// The payload comes over HTTP into as little memory as README promises.
func TestArtifactSigned(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	work := t.TempDir()
	key, node := filepath.Join(work, "key"), filepath.Join(work, "node")
	line := regexp.MustCompile(`(?m)^\S+ namespaces="xnode-manifest" ssh-ed25519 .*$`).FindString(
		command(t, xnodeos(t), "key", "new", "--for", "manifest", "--out", key))
	if line == "" {
		t.Fatal("key new printed no line for trust/allowed_signers")
	}
	command(t, "cp", "-r", filepath.Join(img.netboot, "..", "..", "node"), node)
	write(t, filepath.Join(node, "trust", "allowed_signers"), line+"\n")
	signed := func(folder, sequence string) string {
		out := filepath.Join(work, folder)
		command(t, xnodeos(t), "image", "build", "--system", img.system, "--out", out, "--format", "netboot",
			"--node-config", node, "--sign", key, "--sequence", sequence, "--time", "1763600000")
		return filepath.Join(out, "netboot")
	}
	good, bad := signed("good", "7"), signed("bad", "8")
	signature := filepath.Join(bad, manifest.FileName+".sig")
	if err := os.Remove(signature); err != nil {
		t.Fatal(err)
	}
	command(t, "ssh-keygen", "-Y", "sign", "-q", "-n", "git", "-f", key, filepath.Join(bad, manifest.FileName))

	raw, err := os.ReadFile(filepath.Join(good, manifest.FileName))
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	first, second := startMirror(t, bad, nil), startMirror(t, good, nil)
	release := &image{recipe: img.recipe, netboot: good, manifest: m, digest: manifest.DigestOf(raw), config: img.config}
	s := scenario{payload: []string{first.url, second.url}, memory: 384, append: "xnode.debug", change: func(machine *vm.Machine) {
		machine.Append = strings.Replace(machine.Append, " xnode.manifest="+release.digest, "", 1)
	}}
	n, ready := s.boot(t, release, ready, stageFailed, kernelPanic)
	n.checkHTTP(t, ready, extra{verifyStore: true}, first.url, second.url)
	if words := n.shell(t, "cat /proc/cmdline"); strings.Contains(words, "xnode.manifest") {
		t.Errorf("command line %q names a manifest: nothing was tested", words)
	}
	var refused bool
	for _, l := range n.Lines(0) {
		refused = refused || strings.Contains(l.Text, first.url) && strings.Contains(l.Text, "xnode-manifest")
	}
	if !refused {
		t.Error("nobody said that the first mirror's signature is for another role")
	}
}

// command runs a program to its end.
func command(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// write makes a file and its folder.
func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
