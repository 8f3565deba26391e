package nodeconfig

import (
	"fmt"
	"strings"
)

// Merge makes one node config out of the three that may reach a node: the one
// in the image, the one that a takeover brought along, and the one on the
// volume XNODE-CFG. Each may be nil. Later wins, file by file; files that mean
// nothing without one another (a host key and its .pub, trust.json and its
// signatures) go together.
//
// Where the image carries trust, whoever can plug in a stick must not replace
// it: then only class, hostname, network and payload of the volume count (what
// lies at those URLs is checked by that trust). The notes are sentences for the
// console: what was ignored and why.
func Merge(embedded, takeover, volume *Config) (*Config, []string) {
	var notes []string
	merged := &Config{Files: make(map[string][]byte)}
	merged.add(embedded)
	merged.add(takeover)
	if volume.Empty() {
		return merged, nil
	}
	if !embedded.HasTrust() {
		merged.add(volume)
		return merged, append(notes, fmt.Sprintf("the node config of the volume %s is used whole, as the image carries no trust/ of its own; "+
			"nothing pins it, so it is taken anew at each boot", VolumeLabel))
	}
	allowed := &Config{Files: make(map[string][]byte)}
	var ignored []string
	for _, name := range volume.Names() {
		switch name {
		case "class", "hostname", "network", "payload":
			allowed.Files[name] = volume.Files[name]
		default:
			ignored = append(ignored, name)
		}
	}
	merged.add(allowed)
	if len(ignored) > 0 {
		notes = append(notes, fmt.Sprintf("ignored on the volume %s: %s; the image carries trust/, so only class, hostname, network and payload "+
			"may come from a volume; to change the rest, build the image with another --node-config", VolumeLabel, strings.Join(ignored, ", ")))
	}
	return merged, notes
}

// add lays the files of later over those of c.
func (c *Config) add(later *Config) {
	for _, name := range later.Names() {
		for old := range c.Files {
			if companion(old) == name {
				delete(c.Files, old)
			}
		}
	}
	for _, name := range later.Names() {
		c.Files[name] = later.Files[name]
	}
}

// companion returns the file without which name means nothing, or "".
func companion(name string) string {
	if strings.HasPrefix(name, signaturePrefix) {
		return "trust/trust.json"
	}
	if private, ok := strings.CutSuffix(name, ".pub"); ok {
		return private
	}
	return ""
}
