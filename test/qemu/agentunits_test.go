package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/vm"
	"xnodeos.org/nixos/pocket"
)

// trialsLimit is for all switches together; each is seconds of an emulated
// machine, and a late failure takes the time that it takes.
const trialsLimit = 15 * time.Minute

// TestAgentUnits runs the adapters of systemd, of switches and of probes on a
// live node, against the real systemd: transient units that end in every way,
// alarms, and in the whole matrix live switches to a good system and to every
// broken one, and the way back from each (the agent itself does most of these in
// TestAgentLiveArm). At the end systemd freezes, and the watchdog resets the
// machine.
func TestAgentUnits(t *testing.T) {
	a := buildAgentUnits(t)
	n, _ := scenario{append: "systemd.watchdog_sec=20", change: func(m *vm.Machine) {
		m.Extra = append(m.Extra, "-device", "i6300esb", "-action", "watchdog=reset")
		m.Reboot = vm.KeepOnReboot
	}}.boot(t, a.image, ready, stageFailed, kernelPanic)
	n.importPaths(t, a.export)
	n.command(t, "cat >/run/systems.json", bytes.NewReader(a.systems))
	n.checkAgentSystem(t)

	const out = "/run/agentunits.json"
	seen := len(n.Lines(0))
	steps := "services alarm manager"
	if full() {
		steps += ` "trials /run/systems.json"`
	}
	n.shell(t, `systemd-run --quiet --unit=agentunits-test sh -c '
for step in `+steps+`; do xnode steps - $step; done 2>/run/agentunits.err | tee `+out+` >/dev/ttyS0
echo AGENTUNITS-END >/dev/ttyS0'`)
	ctx, cancel := context.WithTimeout(t.Context(), trialsLimit)
	defer cancel()
	which, line, err := n.ExpectFrom(ctx, seen, vm.Text("AGENTUNITS-END"), kernelPanic)
	if err != nil || which > 0 {
		t.Fatalf("the guest did not come to its end: %q, %v", line.Text, err)
	}
	t.Logf("all steps took until %.1f s", line.At.Seconds())
	facts := n.facts(t, map[string]string{"out": "cat " + out, "err": "cat /run/agentunits.err"})
	if facts["err"] != "" {
		t.Errorf("the guest says: %s", facts["err"])
	}
	checkSteps(t, facts["out"])
	if t.Failed() {
		t.Log(n.shell(t, "journalctl -b --no-pager -o short-monotonic | tail -150"))
	}
	n.checkFreeze(t)
}

// checkFreeze lets systemd freeze and waits for the watchdog.
func (n *node) checkFreeze(t *testing.T) {
	t.Helper()
	seen := len(n.Lines(0))
	n.shell(t, "systemd-run --quiet --unit=agentunits-freeze xnode steps - freeze /run/systems.json")
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	_, line, err := n.ExpectFrom(ctx, seen, vm.Regexp(regexp.MustCompile(`xnode-init`)))
	if err != nil {
		t.Fatalf("systemd froze and no watchdog reset the machine: %v", err)
	}
	t.Logf("the machine starts again: %q after %.1f s", line.Text, line.At.Seconds())
}

// checkAgentSystem looks at what pocket has for the agent.
func (n *node) checkAgentSystem(t *testing.T) {
	t.Helper()
	facts := n.facts(t, map[string]string{
		"state":      "systemctl is-system-running --wait",
		"failed":     "systemctl --failed --plain --no-legend",
		"follower":   "systemctl show -P ActiveState,User xnode-follow.service; systemctl show -P User xnode-follow.service",
		"socket":     "stat -c '%a %U:%G' /run/xnode/apply.sock",
		"state dirs": "cd /var/lib/xnode && stat -c '%n %a %U' . applier follower cache",
		"motd":       "cat /run/xnode/motd",
		"login":      "echo exit | sh -i -l 2>/dev/null | grep -c 'the agent is well'",
		"applier":    "systemctl show -P Result xnode-apply.service; systemctl show -P ExecMainStatus xnode-apply.service",
		"watchdog":   "cat /sys/class/watchdog/watchdog0/identity; cat /sys/class/watchdog/watchdog0/state; ls /dev | grep -c '^watchdog[0-9]'",
		"clock":      "systemctl is-active systemd-timesyncd.service",
	})
	for name, want := range map[string]string{
		"state": "running", "failed": "", "socket": "660 root:xnode", "motd": "the agent is well", "login": "1",
		"applier": "success\n0", "clock": "active",
		"state dirs": ". 755 root\napplier 755 root\nfollower 700 xnode\ncache 755 xnode",
		"watchdog":   "i6300ESB timer\nactive\n1",
	} {
		if facts[name] != want {
			t.Errorf("%s: %q; want %q", name, facts[name], want)
		}
	}
	if !strings.Contains(facts["follower"], "xnode") {
		t.Errorf("the follower: %q", facts["follower"])
	}
}

// importPaths brings store paths onto the node.
func (n *node) importPaths(t *testing.T, export []byte) {
	t.Helper()
	if _, stderr, code := n.command(t, "nix-store --import", bytes.NewReader(export)); code != 0 {
		t.Fatalf("nix-store --import: code %d\n%s", code, stderr)
	}
}

// agentUnits is what the scenario needs.
type agentUnits struct {
	image   *image
	export  []byte // what the other systems have beyond the image's
	systems []byte // JSON: name -> toplevel
}

// otherSystems are those that the node is switched to.
var otherSystems = map[string]pocket.Options{
	"two":          {Label: "units-two", Greeting: "Hello from the second generation"},
	"prepare-root": {Label: "units-one", Handover: "prepare-root"},
	"exit-100":     {Label: "units-100", SwitchEnds: "exit 100"},
	"signal-9":     {Label: "units-killed", SwitchEnds: "signal 9"},
	"activation":   {Label: "units-broken", Broken: "activation"},
	"unit":         {Label: "units-broken", Broken: "unit"},
	"late":         {Label: "units-broken", Broken: "late"},
	"network":      {Label: "units-broken", Broken: "network"},
	"agent":        {Label: "units-broken", Broken: "agent"},
	"hang":         {Label: "units-broken", Broken: "hang"},
	"freeze":       {Label: "units-broken", Broken: "freeze"},
}

func buildAgentUnits(t *testing.T) agentUnits {
	t.Helper()
	program := filepath.Join(t.TempDir(), "agentunits")
	goBuild(t, program, "./guest/agentunits")
	a := agentUnits{image: agentImage(t, program)}
	base := nix.StorePath(a.image.manifest.System)
	systems := map[string]nix.StorePath{"base": base}
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	var store nix.Store
	var more []string
	for name, opt := range otherSystems {
		if !full() && name != "freeze" {
			continue
		}
		opt.Cache, opt.Xnode = filepath.Join(cache, "xnodeos"), program
		if systems[name], store, err = pocket.Build(t.Context(), opt); err != nil {
			t.Fatal(err)
		}
		more = append(more, string(systems[name]))
	}
	if a.systems, err = json.Marshal(systems); err != nil {
		t.Fatal(err)
	}
	a.export = exportPaths(t, store, base, more)
	t.Logf("%d other systems are %.1f MB beyond the first", len(more), float64(len(a.export))/1e6)
	return a
}

func goBuild(t *testing.T, to, pkg string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", to, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
}

// agentImage is the first system, with the program of this test as its agent.
func agentImage(t *testing.T, program string) *image {
	t.Helper()
	dir := t.TempDir()
	config, node := writeNodeConfig(t, filepath.Join(dir, "node"), "")
	out := filepath.Join(dir, "out")
	cmd := exec.CommandContext(t.Context(), xnodeos(t), "image", "build", "--system", "pocket:label=units-one", "--xnode", program,
		"--out", out, "--format", "netboot", "--embed-payload", "--node-config", node)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	img := &image{recipe: recipe{system: "pocket:label=units-one"}, netboot: filepath.Join(out, "netboot"), config: config}
	data, err := os.ReadFile(filepath.Join(img.netboot, manifest.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if img.manifest, err = manifest.Parse(data); err != nil {
		t.Fatal(err)
	}
	img.digest = manifest.DigestOf(data)
	return img
}

// exportPaths is what nix-store --import takes: the closures of systems
// without that of base.
func exportPaths(t *testing.T, store nix.Store, base nix.StorePath, systems []string) []byte {
	t.Helper()
	have, err := store.Closure(t.Context(), nix.ClosureOptions{}, string(base))
	if err != nil {
		t.Fatal(err)
	}
	all, err := store.Closure(t.Context(), nix.ClosureOptions{}, systems...)
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	if store.Dir != "" {
		args = []string{"--store", store.Dir}
	}
	args = append(args, "--export")
	for _, p := range all {
		if !slices.ContainsFunc(have, func(h nix.PathInfo) bool { return h.Path == p.Path }) {
			args = append(args, p.Path)
		}
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "nix-store", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("nix-store --export: %v; run scripts/setup\n%s", err, &stderr)
	}
	return out
}
