package qemu

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/vm"
)

// netbootTree builds the netboot folder of an image without payload.cpio, with
// the same node config.
func netbootTree(t *testing.T, img *image, more ...string) string {
	t.Helper()
	return filepath.Join(buildMore(t, img, "netboot", more...), "netboot")
}

// buildMore writes another format of an image, with the same node config.
func buildMore(t *testing.T, img *image, format string, more ...string) string {
	t.Helper()
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), xnodeos(t), append([]string{
		"image", "build", "--system", img.system, "--out", out,
		"--format", format, "--node-config", filepath.Join(img.netboot, "..", "..", "node"),
	}, more...)...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	return out
}

// callerScript is what a menu does that boots boot.ipxe on a network without
// DHCP: its own words are all that says the address.
const callerScript = `#!ipxe
ifclose net0
clear net0.dhcp/ip
set net0/ip 10.0.2.15
set net0/netmask 255.255.255.0
set net0/gateway 10.0.2.2
set net0/dns 10.0.2.3
ifopen net0
set xnode-payload %[1]sedge/
chain --autofree %[1]sedge/boot.ipxe
`

// TestArtifactIPXE has the iPXE of QEMU's network cards boot the netboot tree:
// under BIOS by way of another script, with a static address and a server that
// fails at first, into as little memory as README promises; under UEFI by DHCP
// and the real command.
func TestArtifactIPXE(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	t.Run("bios-384M", func(t *testing.T) { ipxeStatic(t, img) })
	t.Run("uefi-embedded", func(t *testing.T) { vmRunNetboot(t, img, img.netboot) })
	if full() {
		t.Run("uefi", func(t *testing.T) { vmRunNetboot(t, img, netbootTree(t, img)) })
	}
}

func ipxeStatic(t *testing.T, img *image) {
	m := &mirror{}
	files := m.count(http.StripPrefix("/edge", http.FileServer(http.Dir(netbootTree(t, img)))))
	var asked atomic.Int64
	var url string
	url, m.server = startServer(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/menu.ipxe":
			_, _ = io.WriteString(w, fmt.Sprintf(callerScript, "http://"+r.Host+"/"))
		case r.URL.Path == "/edge/initrd" && asked.Add(1) == 1:
			http.Error(w, "come back later", http.StatusServiceUnavailable)
		default:
			files.ServeHTTP(w, r)
		}
	}))
	s := scenario{as: vm.CD, memory: 384, change: func(machine *vm.Machine) {
		machine.Drives = nil
		card := &machine.Nets[0]
		card.Isolated, card.PXE, card.BootFile = false, true, url+"menu.ipxe"
	}}
	n, line := s.boot(t, img, ready, stageFailed, kernelPanic)
	facts := n.checkHTTP(t, line, extra{verifyStore: true}, url+"edge/")
	for _, card := range parseBootRecord(t, facts["record"]).Network {
		if card.Address != "10.0.2.15/24" || card.From != "static" {
			t.Errorf("boot record: %+v; want the static address that iPXE was given", card)
		}
	}
	if asked.Load() < 2 {
		t.Errorf("the initrd was asked for %d times; want it tried again after the failure", asked.Load())
	}
	if sent := m.sent.Load(); sent < img.manifest.Payload.Size || sent > img.manifest.Payload.Size+manifest.ChunkSize {
		t.Errorf("%d bytes of the payload were sent; it has %d", sent, img.manifest.Payload.Size)
	}
}

// vmRunNetboot boots a netboot folder by the command that README names.
func vmRunNetboot(t *testing.T, img *image, dir string) {
	t.Helper()
	var result struct {
		Seen bool
		Line string
	}
	for try := 0; ; try++ {
		cmd := exec.CommandContext(t.Context(), xnodeos(t), "vm", "run", dir, "--as", "netboot", "--firmware", "uefi",
			"--accel", "tcg", "--expect", "XNODE-READY ", "--timeout", bootLimit.String(), "--json")
		var console strings.Builder
		cmd.Stderr = &console
		out, err := cmd.Output()
		if err != nil && try == 0 && strings.Contains(console.String(), "no fault of the guest") {
			continue
		}
		if err != nil {
			t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, console.String())
		}
		if err := json.Unmarshal(out, &result); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		break
	}
	want := "XNODE-READY generation=" + img.manifest.Label + " system=" + img.manifest.System + " "
	if !result.Seen || !strings.Contains(result.Line, want) {
		t.Errorf("vm run: %+v; want a line with %q", result, want)
	}
}
