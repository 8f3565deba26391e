package qemu

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"xnodeos.org/internal/vm"
)

// extra are the asserts that cost seconds of their own.
type extra struct {
	verifyStore bool
	password    bool // that no password opens the door
	ping        string
}

// checkUp asserts on the state of a node that said READY: what runs is what was
// built, whole, and nothing failed.
func (n *node) checkUp(t *testing.T, line vm.Line, more extra) map[string]string {
	t.Helper()
	want := n.img.manifest
	_, said, _ := strings.Cut(line.Text, "XNODE-READY ")
	if begin := "generation=" + want.Label + " system=" + want.System + " seconds="; !strings.HasPrefix(said, begin) {
		t.Errorf("console: %q; want it to begin %q", said, begin)
	}
	commands := map[string]string{
		"system":    "readlink -f /run/current-system",
		"label":     "cat /run/current-system/nixos-version",
		"hostname":  "cat /proc/sys/kernel/hostname",
		"init":      "cat /proc/1/comm",
		"state":     "systemctl is-system-running --wait",
		"failed":    "systemctl --failed --plain --no-legend",
		"record":    "cat /run/xnode/boot.json",
		"addresses": `for d in /sys/class/net/*; do echo "$(cat $d/address) "$(ip -o addr show dev ${d##*/} scope global | awk '{print $4}'); done`,
		"nix":       "nix show-config",
		"root":      "grep ^root: /etc/shadow",
	}
	if more.verifyStore {
		commands["verify"] = "nix-store --verify --check-contents 2>&1; echo code $?"
	}
	if more.ping != "" {
		commands["ping"] = "ping -c 1 -W 2 " + more.ping + " || true"
	}
	facts := n.facts(t, commands)
	for name, value := range map[string]string{
		"system": want.System, "label": want.Label, "hostname": n.img.config.hostname,
		"init": "systemd", "state": "running", "failed": "",
	} {
		if facts[name] != value {
			t.Errorf("%s: %q; want %q", name, facts[name], value)
		}
	}
	if more.verifyStore && !strings.HasSuffix(facts["verify"], "code 0") {
		t.Errorf("the store does not verify:\n%s", facts["verify"])
	}
	if more.password {
		n.checkNoPassword(t, facts["root"])
	}
	n.checkRecord(t, facts)
	checkNixConf(t, facts["nix"])
	return facts
}

// checkRecord compares what the first stage wrote down with what came of it:
// each address that it had must be there after the hand-over.
func (n *node) checkRecord(t *testing.T, facts map[string]string) {
	t.Helper()
	record := parseBootRecord(t, facts["record"])
	if record.Manifest != n.img.digest || record.System != n.img.manifest.System || record.Label != n.img.manifest.Label {
		t.Errorf("boot record: %+v; want manifest %s of %s", record, n.img.digest, n.img.manifest.System)
	}
	if len(record.Notes) > 0 {
		t.Errorf("boot record has notes: %q", record.Notes)
	}
	if len(record.Network) == 0 {
		t.Errorf("boot record has no network card: %s", facts["record"])
	}
	for _, card := range record.Network {
		if _, err := netip.ParsePrefix(card.Address); err != nil {
			t.Errorf("boot record: card %s has address %q", card.MAC, card.Address)
			continue
		}
		if !hasAddress(facts["addresses"], card.MAC, card.Address) {
			t.Errorf("card %s had %s by %s in the first stage, and now there is\n%s",
				card.MAC, card.Address, card.From, facts["addresses"])
		}
	}
}

// hasAddress looks for a card with this address, in lines of MAC and addresses.
func hasAddress(lines, mac, address string) bool {
	for line := range strings.Lines(lines) {
		words := strings.Fields(line)
		if len(words) > 1 && strings.EqualFold(words[0], mac) && slices.Contains(words[1:], address) {
			return true
		}
	}
	return false
}

// checkNoPassword makes sure that only the key opens the door.
func (n *node) checkNoPassword(t *testing.T, shadow string) {
	t.Helper()
	if !strings.HasPrefix(shadow, "root:*:") && !strings.HasPrefix(shadow, "root:!") {
		t.Errorf("root has a password: %q", shadow)
	}
	for _, word := range []string{"", "root"} {
		client, err := n.dial(t, ssh.Password(word))
		if err == nil {
			client.Close()
			t.Errorf("the password %q opens the door", word)
		} else if !strings.Contains(err.Error(), "unable to authenticate") {
			t.Errorf("log in with password %q: %v; want that it is refused", word, err)
		}
	}
}

// checkNixConf reads Nix's settings as they are in force. The build host's
// would have neither build users nor a sandbox, and so hand root to everybody
// who reaches the daemon's socket.
func checkNixConf(t *testing.T, settings string) {
	t.Helper()
	got := map[string]string{}
	for line := range strings.Lines(settings) {
		name, value, _ := strings.Cut(line, "=")
		got[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	for name, want := range map[string]string{
		"build-users-group": "nixbld", "sandbox": "true", "sandbox-fallback": "false",
		"allowed-users": "root xnode", "require-sigs": "true", "substituters": "",
	} {
		if value, ok := got[name]; !ok || value != want {
			t.Errorf("nix.conf: %s = %q; want %q", name, value, want)
		}
	}
	// Nix always counts root in; nobody else may be trusted.
	if value := got["trusted-users"]; value != "" && value != "root" {
		t.Errorf("nix.conf: trusted-users = %q; want none", value)
	}
}
