// Package nodeconfig is what makes one node out of a system that many share:
// hostname, network, ssh keys, trust and settings of the agent, brought beside
// the system as a folder, as an archive behind the initrd, or on a FAT volume.
//
// The list of files is closed and each one is checked, so that a slip is an
// error where the image is built and not a node that nobody can reach. The
// package reads, checks, merges and packs; it applies nothing and never
// prints a private key.
package nodeconfig

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
)

const (
	// MaxSize bounds the bytes of all files of one node config together.
	MaxSize = 1 << 20
	// VolumeLabel is the label of the FAT volume that may bring a node config.
	VolumeLabel = "XNODE-CFG"
	// Folder is where the files lie in the initramfs, relative to its root.
	Folder = "xnode/node"
	// SumFile is the list of hashes beside that folder, in sha256sum(1)'s format.
	SumFile = "xnode/node.sha256"
)

// Config is the node config of one node. Files maps the names of the closed
// list (see [Names]) to contents. Its functions never change Files; text files
// made by ReadDir and FromFiles have LF line ends and no byte order mark.
type Config struct {
	Files map[string][]byte
}

// FileInfo describes one file without showing what is in it.
type FileInfo struct {
	Name    string `json:"name"`
	Size    int    `json:"size"`
	Private bool   `json:"private"`
}

// Names returns the closed list of file names, in order. "<k>" in a name stands
// for the id of a key: letters, digits, "+", "_" and "-".
func Names() []string {
	return []string{
		"agent.toml", "authorized_keys", "class", "hostname", "network", "nix-keys", "payload",
		"ssh_host_ecdsa_key", "ssh_host_ecdsa_key.pub", "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub",
		"ssh_host_rsa_key", "ssh_host_rsa_key.pub",
		"state", "trust/allowed_signers", "trust/trust.json", "trust/trust.json.sig.<k>",
	}
}

const signaturePrefix = "trust/trust.json.sig."

// Known says whether name is in the closed list.
func Known(name string) bool {
	if k, ok := strings.CutPrefix(name, signaturePrefix); ok {
		return isKeyID(k)
	}
	return !strings.ContainsRune(name, '<') && slices.Contains(Names(), name)
}

// Private says whether the file name holds a secret and must be kept with mode
// 0600.
func Private(name string) bool {
	return strings.HasPrefix(name, "ssh_host_") && !strings.HasSuffix(name, ".pub")
}

// Empty says whether c has no file.
func (c *Config) Empty() bool { return c == nil || len(c.Files) == 0 }

// Names returns the names of c's files, sorted.
func (c *Config) Names() []string {
	if c == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(c.Files))
}

// Info describes c's files, sorted by name.
func (c *Config) Info() []FileInfo {
	info := []FileInfo{}
	for _, name := range c.Names() {
		info = append(info, FileInfo{Name: name, Size: len(c.Files[name]), Private: Private(name)})
	}
	return info
}

// HasTrust says whether c brings trust of its own, which then shuts out that
// of a volume.
func (c *Config) HasTrust() bool {
	return slices.ContainsFunc(c.Names(), func(n string) bool { return strings.HasPrefix(n, "trust/") })
}

// Hostname returns the hostname, "" if there is none.
func (c *Config) Hostname() string { return c.word("hostname") }

// Class returns the class, "" if there is none.
func (c *Config) Class() string { return c.word("class") }

func (c *Config) word(name string) string {
	if c == nil {
		return ""
	}
	return strings.TrimSpace(string(c.Files[name]))
}

// String lists the files and their sizes. It shows no content.
func (c Config) String() string {
	if len(c.Files) == 0 {
		return "node config (empty)"
	}
	var parts []string
	for _, f := range c.Info() {
		parts = append(parts, fmt.Sprintf("%s %d B", f.Name, f.Size))
	}
	return "node config (" + strings.Join(parts, ", ") + ")"
}

// Format writes String for every verb: %+v and %x must not show a key either.
func (c Config) Format(s fmt.State, _ rune) { fmt.Fprint(s, c.String()) }

// LogValue is String, for slog.
func (c Config) LogValue() slog.Value { return slog.StringValue(c.String()) }

// MarshalJSON encodes Info, not the contents.
func (c Config) MarshalJSON() ([]byte, error) { return json.Marshal(c.Info()) }

func isKeyID(text string) bool {
	if text == "" || len(text) > 64 {
		return false
	}
	for _, r := range text {
		if !isAlnum(r) && r != '+' && r != '_' && r != '-' {
			return false
		}
	}
	return true
}

func isAlnum(r rune) bool {
	return '0' <= r && r <= '9' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
}
