package stage1

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/nodeconfig"
)

func TestParseCmdline(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, line string
		want       []Word
	}{
		{"empty", " \n", nil},
		{"flag and value", "quiet a=b\n", []Word{{Key: "quiet"}, {"a", "b", true}}},
		{"empty value", "a=", []Word{{"a", "", true}}},
		{"second equals sign", "a=b=c", []Word{{"a", "b=c", true}}},
		{"quoted value", `a="b c" d`, []Word{{"a", "b c", true}, {Key: "d"}}},
		{"quoted word", `"a=b c" d`, []Word{{"a", "b c", true}, {Key: "d"}}},
		{"quoted flag", `"a b" c`, []Word{{Key: "a b"}, {Key: "c"}}},
		{"quotes inside stay", `a=b"c d"e`, []Word{{"a", `b"c d"e`, true}}},
		{"open quote runs to the end", `a="b c`, []Word{{"a", "b c", true}}},
		{"leading equals sign is part of the key", "=a=b", []Word{{"=a", "b", true}}},
		{"all kinds of space", "a\tb\vc\fd\re", []Word{{Key: "a"}, {Key: "b"}, {Key: "c"}, {Key: "d"}, {Key: "e"}}},
		{"bytes that are not UTF-8", "\xff\xa0\xfe=\xff", []Word{{Key: "\xff"}, {"\xfe", "\xff", true}}},
		{"words of init are left out", "a -- b c", []Word{{Key: "a"}}},
		{"three dashes are a word", "a --- b", []Word{{Key: "a"}, {Key: "---"}, {Key: "b"}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, ParseCmdline(tt.line)); diff != "" {
				t.Errorf("ParseCmdline(%q), -want +got:\n%s", tt.line, diff)
			}
		})
	}
}

func FuzzParseCmdline(f *testing.F) {
	for _, seed := range []string{"", "a=b", `a="b c" "d=e f" -- x`, `""""`, "=", `"=`, "a\xa0b"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, line string) {
		words := ParseCmdline(line)
		for _, w := range words {
			if w.HasValue && w.Key == "" {
				t.Errorf("ParseCmdline(%q) has a value without a key: %+v", line, w)
			}
			if !strings.Contains(line, w.Key) || !strings.Contains(line, w.Value) {
				t.Errorf("ParseCmdline(%q) made up %+v", line, w)
			}
		}
		// Without quotes it is the splitting at white space that everybody expects.
		if !strings.ContainsAny(line, `"`) && !strings.Contains(line, "--") {
			var want []string
			for _, field := range strings.FieldsFunc(line, func(r rune) bool { return r < 0x80 && strings.ContainsRune(" \t\n\v\f\r", r) }) {
				if strings.Contains(field, "\xa0") {
					return
				}
				want = append(want, field)
			}
			var got []string
			for _, w := range words {
				got = append(got, w.String())
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("ParseCmdline(%q), -want +got:\n%s", line, diff)
			}
		}
		ParseOptions(words)
	})
}

func TestParseOptions(t *testing.T) {
	t.Parallel()
	line := `console=ttyS0 xnode.manifest=sha256:ab xnode.panic=5 xnode.debug ip=dhcp nameserver=9.9.9.9 vlan=a:b ` +
		`xnode.verify=whole xnode.state=new:/dev/vda XNODE_UUID=u-1 XNODE_ACCESS_TOKEN=hush XNODE_CONFIG_REMOTE="https://h/p q"`
	got, notes := ParseOptions(ParseCmdline(line))
	want := Options{
		Manifest: "sha256:ab", Panic: 5 * time.Second, Debug: true,
		Whole: true, State: nodeconfig.StateDisk{Name: "/dev/vda", New: true},
		Network:  []string{"ip=dhcp", "nameserver=9.9.9.9", "vlan=a:b"},
		Upstream: Upstream{UUID: "u-1", AccessToken: "hush", ConfigRemote: "https://h/p q"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseOptions(%q), -want +got:\n%s", line, diff)
	}
	if len(notes) > 0 {
		t.Errorf("ParseOptions(%q) notes = %q; want none", line, notes)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", got, got, got, got.Upstream.AccessToken); strings.Contains(text, "hush") {
		t.Errorf("printing the options shows the access token: %s", text)
	}
}

func TestParseOptionsNotes(t *testing.T) {
	t.Parallel()
	tests := []struct{ line, want string }{
		{"xnode.panic=soon", "0 to 86400 seconds"},
		{"xnode.panic=99999999", "0 to 86400 seconds"},
		{"xnode.panic=-1", "0 to 86400 seconds"},
		{"xnode.payload=ftp://h/", "want http://"},
		{"xnode.state=", "names no disk"},
		{"xnode.state=a,b", "want a disk like vda"},
		{"xnode.verify=no", "allowed are whole and blocks"},
		{"xnode.manifst=sha256:ab", "no such word"},
	}
	for _, tt := range tests {
		o, notes := ParseOptions(ParseCmdline(tt.line))
		if len(notes) != 1 || !strings.Contains(notes[0], tt.want) {
			t.Errorf("ParseOptions(%q) notes = %q; want one with %q", tt.line, notes, tt.want)
		}
		if o.Panic != DefaultPanic {
			t.Errorf("ParseOptions(%q).Panic = %v; want the default", tt.line, o.Panic)
		}
	}
	if o, _ := ParseOptions(ParseCmdline("xnode.debug=0")); o.Debug {
		t.Error("xnode.debug=0 turned debugging on")
	}
}
