package stage1

import (
	"bytes"
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/nodeconfig"
	"xnodeos.org/internal/testkit"
)

func TestLeaves(t *testing.T) {
	t.Parallel()
	node := &nodeconfig.Config{Files: map[string][]byte{
		"hostname":                 []byte("n1\n"),
		"ssh_host_ed25519_key":     []byte("secret\n"),
		"ssh_host_ed25519_key.pub": []byte("public\n"),
		"trust/allowed_signers":    []byte("x\n"),
	}}
	lease := Lease{Address: netip.MustParsePrefix("10.0.2.15/24"), Gateway: netip.MustParseAddr("10.0.2.2"), From: nodeconfig.MethodDHCP}
	results := []LinkResult{
		{Link: card(2, "eth0", "52:54:00:00:00:02", true), Rule: dhcpRule, Lease: &lease},
		{Link: card(3, "eth1", "52:54:00:00:00:03", false), Rule: dhcpRule},
	}
	o, _ := ParseOptions(ParseCmdline("XNODE_UUID=u-1 XNODE_ACCESS_TOKEN=hush XNODE_CONFIG_REMOTE=https://h/p"))
	record, err := recordLeaf(BootRecord{
		V: 1, Manifest: "sha256:7c0b36ddd2a1c4a2a1a6d2e1f0d5f8f6a6a3b4a9d3a0a6c2f1a4d6a7d9c6e1b2",
		System: "/nix/store/z5k8yz3aq3l2i7v4i3p4v8f0d2p1wzsx-xnodeos-pocket-1", Label: "pocket-1", Medium: "cd /dev/sr0", Sequence: 7, Time: 1795180800,
		Seconds: secondsOf(Times{Total: 3500 * time.Millisecond, Modules: time.Second, Rest: 2500 * time.Millisecond}),
		Network: networkOf(results), Upstream: upstreamOf(o.Upstream), Notes: []string{},
		State:   BootState{Disk: "serial:S6PXNJ0R123456", Partition: "/dev/nvme0n1p1", Result: StateOpened},
		NodeKey: "SHA256:WQ+UhGdgvzGxb2s9e3k0X4r7yLqkO9R6fC1mZp5tJdE",
	})
	if err != nil {
		t.Fatal(err)
	}
	run := t.TempDir()
	leaves := append(nodeLeaves(node), networkLeaves(results, nil)...)
	leaves = append(leaves, upstreamLeaves(o.Upstream)...)
	if err := errors.Join(writeLeaves(run, append(leaves, record)), writeLeaves(run, []leaf{record})); err != nil {
		t.Fatal(err)
	}

	got := map[string]fs.FileMode{}
	err = filepath.WalkDir(run, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		rel, _ := filepath.Rel(run, name)
		got[rel] = info.Mode()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]fs.FileMode{
		"systemd/network/10-xnode-525400000002.network": 0o644,
		"systemd/network/10-xnode-525400000003.network": 0o644,
		"xnode/boot.json":                     0o644,
		"xnode/node/hostname":                 0o644,
		"xnode/node/ssh_host_ed25519_key":     0o600,
		"xnode/node/ssh_host_ed25519_key.pub": 0o644,
		"xnode/node/trust/allowed_signers":    0o644,
		"xnode/upstream/access-token":         0o600,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("files and modes, -want +got:\n%s", diff)
	}
	checkRecord(t, filepath.Join(run, "xnode/boot.json"))
}

func checkRecord(t *testing.T, name string) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(data), "hush") {
		t.Errorf("the boot record shows the access token: %s", data)
	}
	if diff := cmp.Diff(testkit.FormatsExample(t, "boot.json"), string(data)); diff != "" {
		t.Errorf("docs/formats.md, boot.json (-page +got):\n%s", diff)
	}
}

func TestMachineIDGoesToTheRoot(t *testing.T) {
	t.Parallel()
	id := []byte("0123456789abcdef0123456789abcdef\n")
	c := &nodeconfig.Config{Files: map[string][]byte{nodeconfig.MachineID: id, "hostname": []byte("old\n")}}
	if got := nodeLeaves(c); len(got) != 1 || got[0].Path != "xnode/node/hostname" {
		t.Errorf("nodeLeaves = %v; want only the hostname", got)
	}
	root := t.TempDir()
	if err := writeLeaves(root, rootLeaves(c)); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(root, "etc/machine-id")); err != nil || !bytes.Equal(got, id) {
		t.Errorf("machine-id = %q, %v; want %q", got, err, id)
	}
	if got := rootLeaves(nil); got != nil {
		t.Errorf("rootLeaves(nil) = %v; want none", got)
	}
}
