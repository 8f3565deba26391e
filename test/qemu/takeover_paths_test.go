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

// TestTakeoverUEFI takes a machine over that OVMF started: what the firmware
// told the old kernel must reach the new one, by each of the two calls. On the
// way it carries the addresses that are out of the ordinary.
func TestTakeoverUEFI(t *testing.T) {
	to := buildImage(t, recipe{system: "pocket:label=pocket-2"})
	for _, tt := range []struct {
		call, address, word string
		method              takeover.Method
	}{
		{"file", "2001:db8::50/64", "ip=[2001:db8::50]::[fe80::1]:64::" + dashed(wireMAC) + ":none", takeover.FileLoad},
		{"load", "203.0.113.7/32", "ip=203.0.113.7::192.0.2.1:32::" + dashed(wireMAC) + ":none", takeover.SegmentLoad},
	} {
		t.Run(tt.call, func(t *testing.T) {
			img := buildImage(t, recipe{system: "pocket", network: "ip=" + dashed(userMAC) + ":dhcp\n" + tt.word + "\n"})
			n, _ := scenario{firmware: vm.UEFI, as: vm.CD, memory: takeoverMemory, wire: newWireNet()}.boot(t, img, ready, stageFailed, kernelPanic)
			before := n.facts(t, firmwareCommands())
			n.upload(t, takeoverFile(t, to))
			if v := n.lookFirst(t, tt.method, "--syscall", tt.call); !slices.Contains(v.Network, tt.word) {
				t.Errorf("the new system gets %q; want also %s", v.Network, tt.word)
			}
			after := n.takeOver(t, to, "--syscall", tt.call)
			got := after.facts(t, firmwareCommands())
			for name := range firmwareCommands() {
				if got[name] != before[name] || got[name] == "" {
					t.Errorf("%s of the new system: %q; want %q", name, got[name], before[name])
				}
			}
			after.checkVariables(t)
			addresses, _, _ := after.command(t, "ip -o addr show scope global", nil)
			if !strings.Contains(addresses, tt.address) {
				t.Errorf("addresses:\n%s\nwant %s", addresses, tt.address)
			}
		})
	}
}

// checkVariables writes a variable of UEFI and reads it again.
func (n *node) checkVariables(t *testing.T) {
	t.Helper()
	const name = "/sys/firmware/efi/efivars/XnodeTest-6e5b3f0a-7d1c-4c57-9a43-0f6f4b2d9b11"
	// The first four bytes are the variable's attributes: kept, at boot and at run time.
	stdout, stderr, code := n.command(t, `printf '\007\000\000\000hello' > `+name+` && tail -c 5 `+name, nil)
	if stdout != "hello" || code != 0 {
		t.Errorf("a variable of UEFI reads %q, code %d, %s; want what was written", stdout, code, stderr)
	}
}

// TestTakeoverPayloadURL uses a file that carries no payload: the new system
// fetches it from a server, with the address that the old system had.
func TestTakeoverPayloadURL(t *testing.T) {
	to := buildImage(t, recipe{system: "pocket:label=pocket-2"})
	for _, tt := range []struct {
		name, network, want string
		full                bool
	}{
		{name: "static", network: "ip=10.0.2.15::10.0.2.2:24::" + dashed(userMAC) + ":none\nnameserver=10.0.2.3\n",
			want: "ip=10.0.2.15::10.0.2.2:24::" + dashed(userMAC) + ":none nameserver=10.0.2.3"},
		{name: "dhcp", want: "ip=" + dashed(userMAC) + ":dhcp", full: true},
	} {
		if tt.full && !full() {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			img := buildImage(t, recipe{system: "pocket", network: tt.network})
			old, next := startMirror(t, img.netboot, nil), startMirror(t, to.netboot, nil)
			n, _ := scenario{payload: []string{old.url}, memory: 512}.boot(t, img, ready, stageFailed, kernelPanic)
			n.upload(t, takeoverFile(t, to, next.url))
			v := n.lookFirst(t, takeover.FileLoad)
			if !slices.Equal(v.Payload, []string{next.url}) || strings.Join(v.Network, " ") != tt.want {
				t.Errorf("payload from %q with the network %q; want %s and %s", v.Payload, v.Network, next.url, tt.want)
			}
			if sent := next.sent.Load(); sent > 0 {
				t.Errorf("a dry run fetched %d bytes", sent)
			}
			after := n.takeOver(t, to)
			after.checkPayload(t)
			if sent := next.sent.Load(); sent < to.manifest.Payload.Size {
				t.Errorf("%d bytes were fetched; the payload has %d", sent, to.manifest.Payload.Size)
			}
		})
	}
}
