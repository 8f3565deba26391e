package qemu

import (
	"slices"
	"strings"
	"testing"

	"xnodeos.org/internal/vm"
	"xnodeos.org/netboot/takeover"
)

// dashed is a card's address as it stands in a network word.
func dashed(mac string) string { return strings.ReplaceAll(mac, ":", "-") }

// Networks of the old systems: on the first card, over which the test comes
// in, and a word on the second that is out of the ordinary.
var (
	staticWords = []string{
		"ip=10.0.2.15::10.0.2.2:24::" + dashed(userMAC) + ":none",
		"ip=203.0.113.7::192.0.2.1:32::" + dashed(wireMAC) + ":none",
		"nameserver=10.0.2.3",
	}
	dhcpWords = []string{
		"ip=" + dashed(userMAC) + ":dhcp",
		"ip=[2001:db8::50]::[fe80::1]:64::" + dashed(wireMAC) + ":none",
		"nameserver=10.0.2.3",
	}
)

// jump is one takeover in a chain of them on one machine.
type jump struct {
	method takeover.Method
	flags  []string
	to     *image
	// fetch leaves the payload out of the file: the new system fetches it, with
	// the network that the old one had.
	fetch bool
}

// jump brings the file over, looks, takes the machine over, and checks that
// the new system has the old one's network.
func (n *node) jump(t *testing.T, j jump, words []string, address string) *node {
	t.Helper()
	if !j.fetch {
		n.upload(t, takeoverFile(t, j.to))
		return n.jumpTo(t, j, "embedded", words, address)
	}
	server := startMirror(t, j.to.netboot, nil)
	n.upload(t, takeoverFile(t, j.to, server.url))
	after := n.jumpTo(t, j, server.url, words, address)
	after.checkPayload(t)
	// Once, by the new system: looking at it fetches nothing.
	if sent, size := server.sent.Load(), j.to.manifest.Payload.Size; sent < size || sent >= 2*size {
		t.Errorf("%d bytes were fetched; the payload has %d", sent, size)
	}
	return after
}

// jumpTo is jump with the file in place.
func (n *node) jumpTo(t *testing.T, j jump, payload string, words []string, address string) *node {
	t.Helper()
	v := n.lookFirst(t, j.method, j.flags...)
	if !slices.Equal(v.Network, words) || !slices.Equal(v.Payload, []string{payload}) {
		t.Errorf("network %q and payload %q of the new system; want %q and %q", v.Network, v.Payload, words, payload)
	}
	after := n.takeOver(t, j.to, j.flags...)
	if got, _, _ := after.command(t, "ip -o addr show scope global", nil); !strings.Contains(got, address) {
		t.Errorf("addresses:\n%s\nwant %s", got, address)
	}
	return after
}

// takeoverBIOS refuses a machine in each way, takes it over by the first call
// that works, takes that system over again by the other one, and switches kexec
// off in the end.
func takeoverBIOS(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket", network: strings.Join(staticWords, "\n") + "\n"})
	to := buildImage(t, recipe{system: "pocket:label=pocket-2"})
	const address = "203.0.113.7/32"
	n, _ := scenario{memory: takeoverMemory, wire: newWireNet(), change: openNet}.boot(t, img, ready, stageFailed, kernelPanic)
	// Without the payload, which takes a while to check each time.
	small := takeoverFile(t, to, "http://"+hostAddress+"/")
	n.upload(t, small)
	n.refuses(t, refusals())
	file := takeoverFile(t, to)
	mend := tamperFile(t, file)
	n.shell(t, "rm /dev/shm/fill")
	n.upload(t, file)
	n.refuses(t, tamperedRefusals())
	n.shell(t, mend)
	n = n.jumpTo(t, jump{method: takeover.FileLoad, to: to}, "embedded", staticWords, address)
	n = n.jump(t, jump{takeover.SegmentLoad, []string{"--syscall", "load"}, img, true}, staticWords, address)
	n.upload(t, small)
	n.refuses(t, lastRefusals())
}

// openNet lets the machine reach the host's loopback.
func openNet(m *vm.Machine) { m.Nets[0].Isolated = false }

// takeoverUEFI takes a machine over that OVMF started, by each of the two
// calls: what the firmware told the first kernel must reach the last one.
func takeoverUEFI(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket", network: strings.Join(dhcpWords, "\n") + "\n"})
	to := buildImage(t, recipe{system: "pocket:label=pocket-2"})
	n, _ := scenario{firmware: vm.UEFI, as: vm.CD, memory: takeoverMemory, wire: newWireNet(), change: openNet}.boot(t, img, ready, stageFailed, kernelPanic)
	before := n.facts(t, firmwareCommands())
	for _, j := range []jump{
		{takeover.SegmentLoad, []string{"--syscall", "load"}, to, false},
		{takeover.FileLoad, []string{"--syscall", "file"}, to, true}, // the payload of img is on the CD
	} {
		n = n.jump(t, j, dhcpWords, "2001:db8::50/64")
		after := n.facts(t, firmwareCommands())
		for name := range firmwareCommands() {
			if after[name] != before[name] || after[name] == "" {
				t.Errorf("%s of the new system after %s: %q; want %q", name, j.method, after[name], before[name])
			}
		}
		n.checkVariables(t, string(j.method))
	}
}

// Commands that show what a system knows of its firmware: ACPI's tables, the
// names that the maker gave it, and a variable that is read through UEFI's own
// services.
func firmwareCommands() map[string]string {
	return map[string]string{
		"acpi":  "ls /sys/firmware/acpi/tables",
		"maker": "cat /sys/class/dmi/id/sys_vendor /sys/class/dmi/id/product_name",
		"order": "od -A n -t x1 /sys/firmware/efi/efivars/BootOrder-*",
	}
}

// checkVariables makes a variable of UEFI and reads it again.
func (n *node) checkVariables(t *testing.T, name string) {
	t.Helper()
	name = "/sys/firmware/efi/efivars/" + name + "-6e5b3f0a-7d1c-4c57-9a43-0f6f4b2d9b11"
	// The first four bytes are the variable's attributes: kept, at boot and at run time.
	stdout, stderr, code := n.command(t, `printf '\007\000\000\000hello' > `+name+` && tail -c 5 `+name, nil)
	if stdout != "hello" || code != 0 {
		t.Errorf("a variable of UEFI reads %q, code %d, %s; want what was written", stdout, code, stderr)
	}
}
