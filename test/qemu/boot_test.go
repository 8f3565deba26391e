package qemu

import (
	"strings"
	"testing"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/vm"
)

// TestBootISO boots one file under every firmware, as everything that a
// firmware takes it for. Two of the machines have as little memory as the
// README promises to be enough.
func TestBootISO(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	for _, tt := range []struct {
		name string
		scenario
		extra
		full bool
	}{
		{name: "bios-cd-384M", scenario: scenario{firmware: vm.BIOS, as: vm.CD, memory: 384}, extra: extra{verifyStore: true}},
		{name: "bios-disk", scenario: scenario{firmware: vm.BIOS, as: vm.Disk}, extra: extra{password: true}},
		{name: "bios-usb", scenario: scenario{firmware: vm.BIOS, as: vm.USB}},
		{name: "uefi-cd", scenario: scenario{firmware: vm.UEFI, as: vm.CD}},
		{name: "uefi-disk-384M", scenario: scenario{firmware: vm.UEFI, as: vm.Disk, memory: 384}},
		{name: "uefi-usb", scenario: scenario{firmware: vm.UEFI, as: vm.USB}, full: true},
		{name: "bios-sata", scenario: scenario{firmware: vm.BIOS, as: vm.SATA}, full: true},
		{name: "uefi-nvme", scenario: scenario{firmware: vm.UEFI, as: vm.NVMe}, full: true},
	} {
		if tt.full && !full() {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			n, line := tt.boot(t, img, ready, stageFailed, kernelPanic)
			facts := n.checkUp(t, line, tt.extra)
			kind := map[bool]string{true: "cd ", false: ""}[tt.as == vm.CD]
			if record := parseBootRecord(t, facts["record"]); !strings.HasPrefix(record.Medium, kind) || record.Medium == "" {
				t.Errorf("the payload came from %q; want a %s", record.Medium, tt.as)
			}
		})
	}
}

// TestBootDHCPKeepsAddress boots kernel, initrd and payload.cpio without a
// loader, hands over by the script, on a wire whose DHCP server gives a new
// address to every new identity.
func TestBootDHCPKeepsAddress(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	if img.manifest.Handover != manifest.HandoverScript {
		t.Fatalf("pocket hands over by %q; want %q", img.manifest.Handover, manifest.HandoverScript)
	}
	wire := newWireNet()
	n, line := scenario{wire: wire}.boot(t, img, ready, stageFailed, kernelPanic)
	facts := n.checkUp(t, line, extra{})
	addresses, requests := wire.given()
	if len(addresses) != 1 {
		t.Errorf("the node had the addresses %v; want one: first stage and system are one machine", addresses)
	}
	if requests < 2 {
		t.Errorf("%d requests for a lease; want one of the first stage and one of the system", requests)
	}
	if !hasAddress(facts["addresses"], wireMAC, "192.0.2.10/24") {
		t.Errorf("the card on the wire has not 192.0.2.10/24:\n%s", facts["addresses"])
	}
	if record := parseBootRecord(t, facts["record"]); len(record.Network) != 2 {
		t.Errorf("boot record: %+v; want both cards", record.Network)
	}
}

// TestBootStaticAddress is the same with prepare-root as the hand-over, and an
// address from the node config.
func TestBootStaticAddress(t *testing.T) {
	img := buildImage(t, recipe{
		system: "pocket:handover=prepare-root",
		network: "ip=" + strings.ReplaceAll(userMAC, ":", "-") + ":dhcp\n" +
			"ip=192.0.2.50::192.0.2.1:255.255.255.0::" + strings.ReplaceAll(wireMAC, ":", "-") + ":none\n",
	})
	if img.manifest.Handover != manifest.HandoverPrepareRoot {
		t.Fatalf("the system hands over by %q; want %q", img.manifest.Handover, manifest.HandoverPrepareRoot)
	}
	wire := newWireNet()
	n, line := scenario{wire: wire}.boot(t, img, ready, stageFailed, kernelPanic)
	facts := n.checkUp(t, line, extra{verifyStore: true, ping: "192.0.2.1"})
	if !hasAddress(facts["addresses"], wireMAC, "192.0.2.50/24") {
		t.Errorf("the card on the wire has not 192.0.2.50/24:\n%s", facts["addresses"])
	}
	if !wire.claimed("192.0.2.50") {
		t.Error("the node did not speak on the wire as 192.0.2.50")
	}
	if addresses, _ := wire.given(); len(addresses) != 0 {
		t.Errorf("a card with a static address took %v by DHCP", addresses)
	}
	for _, card := range parseBootRecord(t, facts["record"]).Network {
		if card.MAC == wireMAC && card.From != "static" {
			t.Errorf("boot record: %+v; want it static", card)
		}
	}
}
