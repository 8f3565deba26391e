package fleet

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/release"
	"xnodeos.org/internal/testkit"
)

func repository(t testing.TB, toml, node string) fstest.MapFS {
	t.Helper()
	return fstest.MapFS{FileName: {Data: []byte(toml)}, "nodes/node1.toml": {Data: []byte(node)}, "nodes/README": {Data: []byte("x")}}
}

// TestFormats renders nodes.json of docs/formats.md from its xnode.toml and
// nodes/node1.toml.
func TestFormats(t *testing.T) {
	t.Parallel()
	c, err := Load(repository(t, testkit.FormatsExample(t, "xnode.toml"), testkit.FormatsExample(t, "nodes/node1.toml")))
	if err != nil {
		t.Fatal(err)
	}
	data, err := c.NodesFile().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(testkit.FormatsExample(t, "nodes.json"), string(data)); diff != "" {
		t.Errorf("docs/formats.md, nodes.json (-page +got):\n%s", diff)
	}
	want := map[string]Class{"edge": {Flake: map[string]string{"x86_64-linux": "nixosConfigurations.edge"}, Medium: release.Installed}}
	if diff := cmp.Diff(want, c.Classes); diff != "" {
		t.Errorf("docs/formats.md, xnode.toml (-want +got):\n%s", diff)
	}
	if got := c.ReleasePolicy(); got != (release.Policy{Waves: 4, RampSeconds: 7200}) {
		t.Errorf("docs/formats.md, xnode.toml: policy %+v", got)
	}
}

const (
	goodFleet = "[fleet]\nname = \"f\"\nrecord = \"stable._xnode.example.org\"\nremotes = [\"https://git.example.org/f.git\"]\n\n[classes.edge]\nmedium = \"live\"\n"
	goodNode  = "key = \"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGfNPSmQEWMGMVvEpYEJnXbPNBkCDDHmKZFwF2Y0pbXN\"\nclass = \"edge\"\n"
)

func TestLoadRefuses(t *testing.T) {
	t.Parallel()
	if _, err := Load(repository(t, goodFleet, goodNode)); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, toml, node, want string }{
		{"no TOML", "[fleet", goodNode, "xnode.toml:1: "},
		{"unknown key", goodFleet + "barier = \"x\"\n", goodNode, "xnode.toml:8: classes.edge.barier: there is no such key"},
		{"unknown table", goodFleet + "\n[polcy]\nwaves = 1\n", goodNode, "xnode.toml:9: polcy: there is no such key"},
		{"wrong type", goodFleet + "\n[policy]\nwaves = \"x\"\n", goodNode, "policy.waves"},
		{"negative", goodFleet + "\n[policy]\nwaves = -1\n", goodNode, "xnode.toml"},
		{"ramp", goodFleet + "\n[policy]\nramp = \"6\"\n", goodNode, "xnode.toml:9: policy: ramp"},
		{"record", strings.Replace(goodFleet, "stable._xnode", "a b", 1), goodNode, "xnode.toml:3: fleet.record: "},
		{"no remote", strings.Replace(goodFleet, "\"https://git.example.org/f.git\"", "", 1), goodNode, "xnode.toml:4: fleet.remotes: "},
		{"medium", strings.Replace(goodFleet, "live", "dead", 1), goodNode, "xnode.toml:7: classes.edge.medium: medium \"dead\"; allowed are"},
		{"class name", strings.Replace(goodFleet, "classes.edge", "classes.Edge", 1), goodNode, "xnode.toml:6: classes.Edge: "},
		{"cache with a password", strings.Replace(goodFleet, "\n\n", "\ncaches = [\"https://u:secret@c.example.org\"]\n\n", 1), goodNode, "xnode.toml:5: fleet.caches: "},
		{"node without key", goodFleet, "class = \"edge\"\n", "nodes/node1.toml: key: no ssh public key"},
		{"node with another class", goodFleet, strings.Replace(goodNode, "edge", "core", 1), "nodes/node1.toml:2: class: xnode.toml has no class \"core\""},
		{"node with an unknown key", goodFleet, goodNode + "host = \"x\"\n", "nodes/node1.toml:3: host: there is no such key"},
		{"node with a bad hostname", goodFleet, goodNode + "hostname = \"a_b\"\n", "nodes/node1.toml: hostname \"a_b\""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Load(repository(t, tt.toml, tt.node))
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("Load = %v; want an error with %q", err, tt.want)
			}
		})
	}
	twice := repository(t, goodFleet, goodNode)
	twice["nodes/z.toml"] = twice["nodes/node1.toml"]
	if _, err := Load(twice); err == nil || !strings.Contains(err.Error(), "nodes/z.toml:1: key: it is also that of node1.toml") {
		t.Errorf("one key for two nodes: %v", err)
	}
	if _, err := Load(fstest.MapFS{}); err == nil || !strings.Contains(err.Error(), "xnodeos init") {
		t.Errorf("an empty folder: %v", err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(goodFleet, goodNode)
	f.Add("[classes.edge.flake]\nx86_64-linux = 'x'\n", "labels = {a = 'b'}")
	f.Fuzz(func(t *testing.T, toml, node string) {
		c, err := Load(repository(t, toml, node))
		if err != nil {
			return
		}
		c.ReleasePolicy()
		if _, err := c.NodesFile().Encode(); err != nil {
			t.Fatalf("taken, but no nodes.json can be made of it: %v", err)
		}
	})
}
