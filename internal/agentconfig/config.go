// Package agentconfig is agent.toml: what the agent of one node follows, how
// patiently, and within which limits.
//
// A system brings the file, a node config overrides it key by key. Reading is
// strict: an unknown key, a wrong type or a value out of range is an error with
// file, line and key, because a setting that silently does not count is found
// out on a machine that nobody can walk to. The package reads bytes; it opens no
// file and looks nothing up.
package agentconfig

import (
	"fmt"
	"time"
)

// MaxSize bounds one agent.toml in bytes.
const MaxSize = 256 << 10

// Config is all settings of one node's agent. Keys are those of the TOML file.
type Config struct {
	// Name is the owner name of the record that is followed, as in
	// "stable._xnode.fleet.example.org". Empty: the node follows nothing.
	Name string `toml:"name" json:"name"`
	// Class is the node's class unless the release lists its node key.
	Class string `toml:"class" json:"class"`

	DNS      DNS      `toml:"dns" json:"dns"`
	Git      Git      `toml:"git" json:"git"`
	Cache    Cache    `toml:"cache" json:"cache"`
	Activate Activate `toml:"activate" json:"activate"`
	Status   Status   `toml:"status" json:"status"`
}

// DNS is how the record is asked for.
type DNS struct {
	// Resolvers are asked in turn: "address" or "address:port". Empty: those
	// of resolv.conf.
	Resolvers []string `toml:"resolvers" json:"resolvers"`
	// Authoritative asks the zone's own servers instead of resolvers.
	Authoritative bool `toml:"authoritative" json:"authoritative"`
	// Floor is the shortest time between two questions, Backoff the longest
	// after failures.
	Floor   Duration `toml:"floor" json:"floor"`
	Backoff Duration `toml:"backoff" json:"backoff"`
}

// Git is how the config repository is fetched.
type Git struct {
	// Remotes are tried in order: https://, http://, ssh:// or file:// URLs.
	Remotes []string `toml:"remotes" json:"remotes"`
	// SSHKey and KnownHosts are files, for remotes over ssh.
	SSHKey     string `toml:"ssh_key" json:"ssh_key"`
	KnownHosts string `toml:"known_hosts" json:"known_hosts"`
	// Interval is how often branch "announce" is read.
	Interval Duration `toml:"interval" json:"interval"`
	// Timeout bounds one fetch.
	Timeout    Duration `toml:"timeout" json:"timeout"`
	MaxBytes   int64    `toml:"max_bytes" json:"max_bytes"`
	MaxObjects int      `toml:"max_objects" json:"max_objects"`
}

// Cache is where store paths come from.
type Cache struct {
	// URLs are Nix binary caches, tried in order before those of the release.
	URLs []string `toml:"urls" json:"urls"`
	// Parallel is how many downloads run at once.
	Parallel int `toml:"parallel" json:"parallel"`
}

// Activate is how long the node has for each part of a switch.
type Activate struct {
	// SwitchTimeout bounds switch-to-configuration.
	SwitchTimeout Duration `toml:"switch_timeout" json:"switch_timeout"`
	// ProbeTimeout is how long probes may take to become green.
	ProbeTimeout Duration `toml:"probe_timeout" json:"probe_timeout"`
	// Settle is how long they must stay green.
	Settle Duration `toml:"settle" json:"settle"`
	// StableUptime is how long a node without state is up before it applies a
	// newer release.
	StableUptime Duration `toml:"stable_uptime" json:"stable_uptime"`
}

// Status is where the agent shows its state.
type Status struct {
	// Listen is a loopback address and port; empty for none.
	Listen string `toml:"listen" json:"listen"`
}

// Duration is a time.Duration that TOML spells as Go does: "90s", "1h30m".
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration; write it as \"90s\", \"5m\" or \"1h30m\"", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }

// Default returns the settings of a node whose files say nothing.
func Default() Config {
	return Config{
		DNS: DNS{Floor: Duration(30 * time.Second), Backoff: Duration(time.Hour)},
		Git: Git{
			Interval: Duration(time.Hour), Timeout: Duration(5 * time.Minute),
			MaxBytes: 64 << 20, MaxObjects: 50_000,
		},
		Cache: Cache{Parallel: 8},
		Activate: Activate{
			SwitchTimeout: Duration(10 * time.Minute), ProbeTimeout: Duration(3 * time.Minute),
			Settle: Duration(40 * time.Second), StableUptime: Duration(10 * time.Minute),
		},
		Status: Status{Listen: "127.0.0.1:9780"},
	}
}
