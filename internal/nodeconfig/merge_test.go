package nodeconfig

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// source makes a config whose files say where they come from.
func source(mark string, names ...string) *Config {
	c := &Config{Files: make(map[string][]byte)}
	for _, name := range names {
		c.Files[name] = []byte(mark)
	}
	return c
}

func TestMerge(t *testing.T) {
	t.Parallel()
	key, pub := "ssh_host_ed25519_key", "ssh_host_ed25519_key.pub"
	tests := []struct {
		name                       string
		embedded, takeover, volume *Config
		want                       string // name=mark, sorted
		notes                      []string
	}{
		{"nothing", nil, nil, nil, "", nil},
		{"later wins, file by file", source("e", "class", "hostname", "agent.toml"), source("t", "hostname", "network"), nil,
			"agent.toml=e class=e hostname=t network=t", nil},
		{"volume wins without trust", source("e", "class", "hostname", "authorized_keys"), source("t", "hostname"), source("v", "hostname", "authorized_keys", "trust/trust.json"),
			"authorized_keys=v class=e hostname=v trust/trust.json=v", []string{"used whole", "anew at each boot"}},
		{"trust shuts the volume out", source("e", "trust/trust.json", "class"), nil,
			source("v", "class", "hostname", "network", "payload", "state", "trust/allowed_signers", "trust/trust.json", "authorized_keys", "agent.toml", "nix-keys", key, pub),
			"class=v hostname=v network=v payload=v trust/trust.json=e",
			[]string{"ignored on the volume XNODE-CFG: agent.toml, authorized_keys, nix-keys, " + key + ", " + pub + ", state, trust/allowed_signers, trust/trust.json;", "--node-config"}},
		{"trust and a volume that keeps to the rules", source("e", "trust/allowed_signers"), nil, source("v", "hostname"), "hostname=v trust/allowed_signers=e", nil},
		{"a takeover is not a volume", source("e", "trust/trust.json", "authorized_keys"), source("t", "authorized_keys", key), nil,
			"authorized_keys=t " + key + "=t trust/trust.json=e", nil},
		{"trust of a takeover does not shut the volume out", nil, source("t", "trust/trust.json"), source("v", "nix-keys"),
			"nix-keys=v trust/trust.json=t", []string{"used whole"}},
		{"a new key takes the old public key along", source("e", key, pub), source("t", key), nil, key + "=t", nil},
		{"a pair replaces a pair", source("e", key, pub), source("t", key, pub), nil, pub + "=t " + key + "=t", nil},
		{"new trust.json drops old signatures", source("e", "hostname"), source("t", "trust/trust.json", "trust/trust.json.sig.1", "trust/trust.json.sig.2"),
			source("v", "trust/trust.json", "trust/trust.json.sig.2"), "hostname=e trust/trust.json.sig.2=v trust/trust.json=v", []string{"used whole"}},
		{"an empty volume says nothing", source("e", "hostname"), nil, source("v"), "hostname=e", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			before := []map[string][]byte{}
			for _, c := range []*Config{test.embedded, test.takeover, test.volume} {
				if c != nil {
					before = append(before, maps.Clone(c.Files))
				}
			}
			got, notes := Merge(test.embedded, test.takeover, test.volume)
			var parts []string
			for name, mark := range got.Files {
				parts = append(parts, name+"="+string(mark))
			}
			slices.Sort(parts)
			if diff := cmp.Diff(test.want, strings.Join(parts, " ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			text := strings.Join(notes, "\n")
			for _, want := range test.notes {
				if !strings.Contains(text, want) {
					t.Errorf("notes %q lack %q", notes, want)
				}
			}
			if len(test.notes) == 0 && len(notes) > 0 {
				t.Errorf("notes %q; want none", notes)
			}
			for _, c := range []*Config{test.embedded, test.takeover, test.volume} {
				if c == nil {
					continue
				}
				if !maps.EqualFunc(before[0], c.Files, func(a, b []byte) bool { return string(a) == string(b) }) {
					t.Error("Merge changed its input")
				}
				before = before[1:]
			}
		})
	}
}
