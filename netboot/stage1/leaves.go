package stage1

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"xnodeos.org/internal/nodeconfig"
)

// BootRecord is /run/xnode/boot.json: what was booted, from where, and how long
// it took. Seconds are those of the first stage; Time is the manifest's, in
// seconds since 1970.
type BootRecord struct {
	V        int           `json:"v"`
	Manifest string        `json:"manifest"`
	System   string        `json:"system"`
	Label    string        `json:"label"`
	Medium   string        `json:"medium"`
	Sequence uint32        `json:"sequence"`
	Time     int64         `json:"time"`
	Seconds  BootSeconds   `json:"seconds"`
	Network  []BootNetwork `json:"network"`
	State    BootState     `json:"state"`
	NodeKey  string        `json:"node_key"` // its fingerprint, "SHA256:..."
	Upstream *BootUpstream `json:"upstream,omitempty"`
	Notes    []string      `json:"notes"`
}

// BootSeconds are the parts of the first stage, in seconds. Devices, the wait for
// hardware, is a part of Rest.
type BootSeconds struct {
	Total       float64 `json:"total"`
	Modules     float64 `json:"modules"`
	DHCP        float64 `json:"dhcp"`
	Fetch       float64 `json:"fetch"`
	Verify      float64 `json:"verify"`
	PrepareRoot float64 `json:"prepare_root"`
	Rest        float64 `json:"rest"`
	Devices     float64 `json:"devices"`
}

// BootNetwork is a link that had an address in the first stage.
type BootNetwork struct {
	MAC     string `json:"mac"`
	Address string `json:"address"`
	Gateway string `json:"gateway,omitempty"`
	From    string `json:"from"` // "dhcp" or "static"
}

// BootState is what became of XNODE-STATE. Disk is the name that was asked for,
// Partition the device that was found, both "" where there was none.
type BootState struct {
	Disk      string      `json:"disk"`
	Partition string      `json:"partition"`
	Result    StateResult `json:"result"`
	Reason    string      `json:"reason"` // why it is ignored
}

// StateResult says whether a node keeps anything.
type StateResult string

// The results: nothing was asked for; a new one, an old one; something is wrong
// with it, and the node goes on without.
const (
	StateNone    StateResult = "none"
	StateMade    StateResult = "made"
	StateOpened  StateResult = "opened"
	StateIgnored StateResult = "ignored"
)

// BootUpstream is what Xnode's provisioning said, without the access token: that
// lies beside, in upstream/access-token, for root only.
type BootUpstream struct {
	UUID         string `json:"uuid,omitempty"`
	ConfigRemote string `json:"config_remote,omitempty"`
}

func secondsOf(t Times) BootSeconds {
	round := func(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
	return BootSeconds{Total: round(t.Total), Modules: round(t.Modules), DHCP: round(t.DHCP), Fetch: round(t.Fetch), Verify: round(t.Verify),
		PrepareRoot: round(t.PrepareRoot), Rest: round(t.Rest), Devices: round(t.Devices)}
}

func networkOf(results []LinkResult) []BootNetwork {
	list := []BootNetwork{}
	for _, r := range results {
		if r.Lease == nil {
			continue
		}
		n := BootNetwork{MAC: r.Link.ID().String(), Address: r.Lease.Address.String(), From: "static"}
		if r.Lease.From == nodeconfig.MethodDHCP {
			n.From = "dhcp"
		}
		if r.Lease.Gateway.IsValid() {
			n.Gateway = r.Lease.Gateway.String()
		}
		list = append(list, n)
	}
	return list
}

func upstreamOf(u Upstream) *BootUpstream {
	if u.UUID == "" && u.ConfigRemote == "" {
		return nil
	}
	return &BootUpstream{UUID: u.UUID, ConfigRemote: u.ConfigRemote}
}

// leaf is a file that the first stage leaves to the system, below /run if not
// said otherwise.
type leaf struct {
	Path string // relative
	Perm fs.FileMode
	Data []byte
}

// nodeLeaves are the files of the node config, keys for root only.
func nodeLeaves(c *nodeconfig.Config) []leaf {
	var list []leaf
	for _, name := range c.Names() {
		if name == nodeconfig.MachineID {
			continue
		}
		perm := fs.FileMode(0o644)
		if nodeconfig.Private(name) {
			perm = 0o600
		}
		list = append(list, leaf{"xnode/node/" + name, perm, c.Files[name]})
	}
	return list
}

// rootLeaves are the files of the new root itself. The machine id of a system
// that was taken over stays, so that logs, leases and inventories know the
// machine again.
func rootLeaves(c *nodeconfig.Config) []leaf {
	if c == nil || c.Files[nodeconfig.MachineID] == nil {
		return nil
	}
	return []leaf{{"etc/machine-id", 0o444, c.Files[nodeconfig.MachineID]}}
}

// networkLeaves are the units by which systemd-networkd goes on with the links.
func networkLeaves(results []LinkResult, dns []netip.Addr) []leaf {
	reachable := slices.ContainsFunc(results, func(r LinkResult) bool { return r.Lease != nil })
	var list []leaf
	for _, r := range results {
		name, content := NetworkFile(r, dns, reachable)
		list = append(list, leaf{"systemd/network/" + name, 0o644, []byte(content)})
	}
	return list
}

func recordLeaf(r BootRecord) (leaf, error) {
	data, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return leaf{}, fmt.Errorf("encode boot record: %w", err)
	}
	return leaf{"xnode/boot.json", 0o644, append(data, '\n')}, nil
}

func upstreamLeaves(u Upstream) []leaf {
	if u.AccessToken == "" {
		return nil
	}
	return []leaf{{"xnode/upstream/access-token", 0o600, []byte(string(u.AccessToken) + "\n")}}
}

// writeLeaves writes below the folder root.
func writeLeaves(root string, leaves []leaf) error {
	for _, l := range leaves {
		name := filepath.Join(root, l.Path)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return fmt.Errorf("leave %s to the system: %w", l.Path, err)
		}
		f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, l.Perm)
		if err != nil {
			return fmt.Errorf("leave %s to the system: %w", l.Path, err)
		}
		_, err = f.Write(l.Data)
		if err := errorsFirst(err, f.Close()); err != nil {
			return fmt.Errorf("leave %s to the system: %w", l.Path, err)
		}
	}
	return nil
}
