package release

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/testkit"
)

const (
	someSystem  = "/nix/store/z5k8yz3aq3l2i7v4i3p4v8f0d2p1wzsx-xnodeos-pocket-1"
	someClosure = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	someKey     = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
)

func example(nodes string) *Release {
	return &Release{
		V: Version, Seq: 1042, Published: 1795180800, Caches: []string{"https://cache.example.org"}, Nodes: nodes,
		Policy: Policy{Waves: 4, RampSeconds: 7200},
		Classes: map[string]map[string]Target{"edge": {"x86_64-linux": {
			System: someSystem, Closure: someClosure, Medium: Installed,
		}}},
	}
}

func encoded(t testing.TB, r *Release) string {
	t.Helper()
	data, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFormats(t *testing.T) {
	t.Parallel()
	nodes := testkit.FormatsExample(t, "nodes.json")
	r := example(DigestText([]byte(nodes)))
	if diff := cmp.Diff(testkit.FormatsExample(t, "release.json"), encoded(t, r)); diff != "" {
		t.Errorf("docs/formats.md, release.json (-page +got):\n%s", diff)
	}
	n, err := r.OpenNodes([]byte(nodes))
	if err != nil {
		t.Fatal(err)
	}
	again, err := n.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(nodes, string(again)); diff != "" {
		t.Errorf("docs/formats.md, nodes.json (-page +got):\n%s", diff)
	}
}

func TestOpen(t *testing.T) {
	t.Parallel()
	data := []byte(encoded(t, example("")))
	r, err := Open(data, Digest(data), 1042)
	if err != nil {
		t.Fatal(err)
	}
	want := example("")
	want.Critical = []string{}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Errorf("Open (-want +got):\n%s", diff)
	}
	var mismatch *MismatchError
	if _, err := Open(append(data, '\n'), Digest(data), 1042); !errors.As(err, &mismatch) {
		t.Errorf("other bytes: %v", err)
	}
	var sequence *SequenceError
	if _, err := Open(data, Digest(data), 1043); !errors.As(err, &sequence) {
		t.Errorf("another sequence: %v", err)
	}
	if n, err := r.OpenNodes([]byte("anything")); n != nil || err != nil {
		t.Errorf("no nodes named: %v, %v", n, err)
	}
	r.Nodes = DigestText([]byte("{}"))
	if _, err := r.OpenNodes([]byte("{} ")); !errors.As(err, &mismatch) {
		t.Errorf("other nodes: %v", err)
	}
	// What the digest binds counts, however it is written.
	loose := []byte(strings.ReplaceAll(string(data), "\n", ""))
	if _, err := Open(loose, Digest(loose), 1042); err != nil {
		t.Errorf("without line ends: %v", err)
	}
}

func TestFor(t *testing.T) {
	t.Parallel()
	r := example("")
	if got, err := r.For("edge", "x86_64-linux"); err != nil || got.System != someSystem {
		t.Errorf("For = %v, %v", got, err)
	}
	var none *NoTargetError
	if _, err := r.For("core", "x86_64-linux"); !errors.As(err, &none) || none.Arch != "" {
		t.Errorf("another class: %v", err)
	}
	if _, err := r.For("edge", "aarch64-linux"); !errors.As(err, &none) || none.Arch == "" {
		t.Errorf("another architecture: %v", err)
	}
	n := &Nodes{Nodes: map[string]Node{someKey: {Class: "core"}}}
	if got := n.ClassOf(someKey, "edge"); got != "core" {
		t.Errorf("ClassOf a listed node = %q", got)
	}
	if got := n.ClassOf("SHA256:x", "edge") + (*Nodes)(nil).ClassOf(someKey, "edge"); got != "edgeedge" {
		t.Errorf("ClassOf other nodes = %q", got)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	good := encoded(t, example(DigestText([]byte("{}\n"))))
	swap := func(old, with string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in %s", old, good)
		}
		return strings.Replace(good, old, with, 1)
	}
	for _, tt := range []struct{ name, text, want string }{
		{"as it is", good, ""},
		{"unknown keys", swap(`"seq"`, `"later": [1], "seq"`), ""},
		{"unknown key in a target", swap(`"barrier": null`, `"barrier": null, "later": {}`), ""},
		{"unknown policy", swap(`"waves": 4`, `"waves": 4, "later": 1`), ""},
		{"a barrier", swap(`"barrier": null`, `"barrier": "kubo-repo-17"`), ""},
		{"a critical key that we know", swap(`"critical": []`, `"critical": ["seq", "barrier"]`), ""},
		{"a critical key that we do not", swap(`"critical": []`, `"critical": ["later"]`), `critical key "later"`},
		{"the same, of another type", swap(`"critical": [],`, `"critical": ["later"], "classes": 5,`), `critical key "later"`},
		{"another version", swap(`"v": 1`, `"v": 2`), "version 2"},
		{"no JSON", "<html>", "not JSON"},
		{"more behind it", good + "{}", "something follows"},
		{"sequence 0", swap(`"seq": 1042`, `"seq": 0`), "seq is 0"},
		{"sequence too large", swap(`"seq": 1042`, `"seq": 4294967296`), "not JSON as it should be"},
		{"no classes", `{"v":1,"seq":1,"classes":{}}`, "0 classes"},
		{"no architecture", `{"v":1,"seq":1,"classes":{"edge":{}}}`, "0 architectures"},
		{"class name", swap(`"edge"`, `"../edge"`), "class name"},
		{"architecture", swap(`"x86_64-linux"`, `"X86"`), "architecture"},
		{"system", swap(someSystem, "/nix/store/../etc/passwd"), "system"},
		{"closure in hex", swap(someClosure, "sha256:"+strings.Repeat("0", 64)), "closure"},
		{"no medium that is known", swap(`"installed"`, `"cloud"`), "0 classes"},
		{"medium", swap(`"installed"`, `"a cloud"`), "medium"},
		{"barrier", swap(`"barrier": null`, `"barrier": "a b"`), "barrier"},
		{"cache", swap("https://cache.example.org", "cache.example.org"), "caches[0]"},
		{"cache with a password", swap("https://", "https://u:p@"), "user or password"},
		{"nodes", swap(DigestText([]byte("{}\n")), "x"), "nodes"},
		{"negative ramp", swap("7200", "-1"), "ramp_seconds"},
		{"too long", good + strings.Repeat(" ", MaxSize), "allowed are"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(tt.text))
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("Parse = %v; want an error with %q", err, tt.want)
			}
		})
	}
	two := example("")
	two.Classes["edge"]["aarch64-linux"] = Target{System: someSystem, Closure: someClosure, Medium: Live}
	if _, err := two.Encode(); err == nil || !strings.Contains(err.Error(), "one medium") {
		t.Errorf("two media in a class: %v", err)
	}
}

func TestParseNodes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"one node", `{"v":1,"nodes":{"` + someKey + `":{"class":"edge","hostname":"n1.example.org","labels":{"rack":"b7"}}}}`, ""},
		{"none", `{"v":1}`, ""},
		{"unknown keys", `{"v":1,"x":1,"nodes":{"` + someKey + `":{"class":"edge","x":1}}}`, ""},
		{"critical", `{"v":1,"critical":["x"]}`, `critical key "x"`},
		{"no fingerprint", `{"v":1,"nodes":{"node1":{"class":"edge"}}}`, "fingerprint"},
		{"no class", `{"v":1,"nodes":{"` + someKey + `":{}}}`, "class name"},
		{"hostname", `{"v":1,"nodes":{"` + someKey + `":{"class":"edge","hostname":"-"}}}`, "hostname"},
		{"label", `{"v":1,"nodes":{"` + someKey + `":{"class":"edge","labels":{"a b":""}}}}`, "label"},
		{"label value", `{"v":1,"nodes":{"` + someKey + `":{"class":"edge","labels":{"a":"\n"}}}}`, "printable"},
	} {
		_, err := ParseNodes([]byte(tt.text))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: ParseNodes = %v; want an error with %q", tt.name, err, tt.want)
		}
	}
}

// TestWaves: every node has a group, groups are about equally large, and other
// nodes are first in the next release.
func TestWaves(t *testing.T) {
	t.Parallel()
	p := Policy{Waves: 4, RampSeconds: 7200}
	const published = 1795180800
	count := map[time.Duration]int{}
	same := 0
	for i := range 4000 {
		key := someKey + strings.Repeat("x", i%7) + string(rune('a'+i%26)) + time.Duration(i).String()
		wait := p.Start(published, 7, key).Sub(time.Unix(published, 0))
		count[wait]++
		if p.Start(published, 8, key).Sub(time.Unix(published, 0)) == wait {
			same++
		}
	}
	for _, wait := range []time.Duration{0, 30 * time.Minute, time.Hour, 90 * time.Minute} {
		if n := count[wait]; n < 800 || n > 1200 {
			t.Errorf("%d of 4000 nodes begin after %v", n, wait)
		}
	}
	if len(count) != 4 || same < 800 || same > 1200 {
		t.Errorf("%d groups, %d nodes in the same group of two releases", len(count), same)
	}
	for _, p := range []Policy{{}, {Waves: 1, RampSeconds: 7200}, {RampSeconds: 5}} {
		if got := p.Start(published, 7, someKey); !got.Equal(time.Unix(published, 0)) {
			t.Errorf("%+v: Start = %v; want at once", p, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(encoded(f, example(DigestText(nil)))))
	f.Add([]byte(`{"v":1,"critical":["x"]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse(data)
		if err != nil {
			return
		}
		text := encoded(t, r)
		again, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if second := encoded(t, again); second != text {
			t.Fatalf("two encodings: %q and %q", text, second)
		}
	})
}

func FuzzParseNodes(f *testing.F) {
	f.Add([]byte(`{"v":1,"nodes":{"` + someKey + `":{"class":"edge","labels":{"rack":"b7"}}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		n, err := ParseNodes(data)
		if err != nil {
			return
		}
		text, err := n.Encode()
		if err != nil {
			t.Fatalf("taken, but not written: %v", err)
		}
		if again, err := ParseNodes(text); err != nil || cmp.Diff(len(n.Nodes), len(again.Nodes)) != "" {
			t.Fatalf("%q: %v", text, err)
		}
	})
}
