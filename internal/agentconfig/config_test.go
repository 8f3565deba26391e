package agentconfig

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseOverridesKeyByKey(t *testing.T) {
	t.Parallel()
	system := Source{"/etc/xnode/agent.toml", []byte("name = \"stable._xnode.example.org\"\nclass = \"edge\"\n[dns]\nresolvers = [\"192.0.2.1\"]\nfloor = \"1m\"\n")}
	node := Source{"node/agent.toml", []byte("[dns]\nfloor = \"45s\"\n[git]\nremotes = [\"https://git.example.org/fleet.git\"]\n")}
	got, err := Parse(system, node)
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Name, want.Class = "stable._xnode.example.org", "edge"
	want.DNS.Resolvers = []string{"192.0.2.1"}
	want.DNS.Floor = Duration(45 * time.Second)
	want.Git.Remotes = []string{"https://git.example.org/fleet.git"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Parse (-want +got):\n%s", diff)
	}
}

func TestDefaultIsValid(t *testing.T) {
	t.Parallel()
	if err := Default().Validate(); err != nil {
		t.Error(err)
	}
}

// Each message has file, line, key and what is allowed.
func TestParseErrors(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, want string }{
		{"no TOML", "name = \n", "a.toml:1: name: expected value but found '\\n' instead"},
		{"unknown key", "class = \"edge\"\nlabel = \"x\"\n", "a.toml:2: label: there is no such key; `xnode config` shows all"},
		{"unknown key in a table", "[dns]\n\nresolver = \"192.0.2.1\"\n", "a.toml:3: dns.resolver: there is no such key; there are dns.resolvers, dns.authoritative, dns.floor, dns.backoff"},
		{"key at the wrong place", "floor = \"30s\"\n", "a.toml:1: floor: there is no such key; there is dns.floor"},
		{"unknown table", "[dsn]\nfloor = \"30s\"\n", "a.toml:1: dsn: there is no such key; `xnode config` shows all"},
		{"wrong type", "[cache]\nparallel = \"many\"\n", "a.toml:2: cache.parallel: incompatible types: TOML value has type string; destination has type integer"},
		{"no duration", "[dns]\nfloor = \"soon\"\n", "a.toml:2: dns.floor: \"soon\" is no duration; write it as \"90s\", \"5m\" or \"1h30m\""},
		{"missing value of a pair", "[dns]\nbackoff = \"10s\"\n", "a.toml:2: dns.backoff: 10s is out of range; at least 30s, at most 24h0m0s"},
		{"name", "name = \"fleet\"\n", "a.toml:1: name: \"fleet\" is no DNS name; write the record's whole name, as in \"stable._xnode.fleet.example.org\""},
		{"resolver", "[dns]\nresolvers = [\"dns.example.org\"]\n", "a.toml:2: dns.resolvers: \"dns.example.org\" is no resolver; write an address, \"192.0.2.1\", \"192.0.2.1:5353\" or \"[2001:db8::1]:53\""},
		{"remote", "[git]\nremotes = [\"git@example.org:fleet\"]\n", "a.toml:2: git.remotes: \"git@example.org:fleet\" cannot be used; write a URL with one of https://, http://, ssh://, file://"},
		{"password", "[git]\nremotes = [\"https://me:secret@example.org/\"]\n", "a.toml:2: git.remotes: a name, token or password in a URL ends in logs; use an ssh key instead"},
		{"token", "[git]\nremotes = [\"https://ghp_secret@example.org/\"]\n", "a.toml:2: git.remotes: a name, token or password in a URL ends in logs; use an ssh key instead"},
		{"token of a cache", "[cache]\nurls = [\"https://secret@example.org/\"]\n", "a.toml:2: cache.urls: a name, token or password in a URL ends in logs; use an ssh key instead"},
		{"open page", "[status]\nlisten = \"0.0.0.0:80\"\n", "a.toml:2: status.listen: \"0.0.0.0:80\" is not on loopback; the page is for this machine alone, reach it through ssh -L"},
		{"too long", strings.Repeat("#", MaxSize+1), "a.toml: 262145 bytes; an agent.toml has at most 262144"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse(Source{"a.toml", []byte(tt.text)})
			if err == nil {
				t.Fatal("Parse took it")
			}
			var place *Error
			if !errors.As(err, &place) {
				t.Errorf("%T has no *Error in its chain", err)
			}
			if diff := cmp.Diff(tt.want, err.Error()); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

// A value out of range is shown where it was set, not where it was overridden.
func TestParseNamesTheFileThatSetIt(t *testing.T) {
	t.Parallel()
	_, err := Parse(Source{"system.toml", []byte("[cache]\nparallel = 4\n")}, Source{"node.toml", []byte("\n[cache]\nparallel = 0\n")})
	if err == nil || !strings.HasPrefix(err.Error(), "node.toml:3: cache.parallel: ") {
		t.Errorf("error is %v; want it to name node.toml, line 3", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("name = \"a.b\"\n[dns]\nfloor = \"1m\"\n"))
	f.Add([]byte("[dns]\nfloor = \"soon\"\n[[x]]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse(Source{"a.toml", data})
		if err != nil {
			return
		}
		if err := c.Validate(); err != nil {
			t.Errorf("Parse took what Validate refuses: %v", err)
		}
	})
}
