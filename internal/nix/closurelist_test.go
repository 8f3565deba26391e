package nix_test

import (
	"bytes"
	"crypto/sha256"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/nix"
)

func sampleInfos() []nix.PathInfo {
	a, b, c := storePath("0", "a"), storePath("1", "b"), storePath("2", "c")
	return []nix.PathInfo{
		{Path: c, NarHash: sha256.Sum256([]byte("c")), NarSize: 4096, References: []string{}},
		{Path: a, NarHash: sha256.Sum256([]byte("a")), NarSize: 120, References: []string{a, b, c}},
		{Path: b, NarHash: sha256.Sum256([]byte("b")), NarSize: 1 << 40, References: []string{c}},
	}
}

const sampleList = `xnode-closure 1
/nix/store/00000000000000000000000000000000-a sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs= 120 00000000000000000000000000000000-a 11111111111111111111111111111111-b 22222222222222222222222222222222-c
/nix/store/11111111111111111111111111111111-b sha256-PiPoFgA5WUoziU9lZOGxNIu9egCI1CxKy3PurtWcAJ0= 1099511627776 22222222222222222222222222222222-c
/nix/store/22222222222222222222222222222222-c sha256-Ln0sA6lQeuJl7PW1NWiFpTOTogKdJBOUmXJloaJa78Y= 4096
`

func TestClosureListText(t *testing.T) {
	t.Parallel()
	infos := sampleInfos()
	list, err := nix.NewClosureList(infos)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(sampleList, string(list.Encode())); diff != "" {
		t.Errorf("Encode (-want +got):\n%s", diff)
	}
	if got, want := list.Digest(), nix.Hash(sha256.Sum256([]byte(sampleList))).String(); got != want {
		t.Errorf("Digest = %s; want %s", got, want)
	}
	if got := list.NarSize(); got != 120+1<<40+4096 {
		t.Errorf("NarSize = %d", got)
	}
	back, err := nix.ParseClosureList([]byte(sampleList))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(list, back); diff != "" {
		t.Errorf("ParseClosureList(Encode) (-want +got):\n%s", diff)
	}
	if infos[0].Path != storePath("2", "c") {
		t.Error("NewClosureList sorted its caller's slice")
	}
}

func TestNewClosureListRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(infos []nix.PathInfo) []nix.PathInfo
		want   string
	}{
		"empty":            {func([]nix.PathInfo) []nix.PathInfo { return nil }, "it is empty"},
		"not closed":       {func(i []nix.PathInfo) []nix.PathInfo { return i[1:] }, "which has no line of its own"},
		"twice":            {func(i []nix.PathInfo) []nix.PathInfo { return append(i, i[0]) }, "must be sorted and differ"},
		"no store path":    {func(i []nix.PathInfo) []nix.PathInfo { return append(i, nix.PathInfo{Path: "/etc"}) }, "not a store path"},
		"negative":         {func(i []nix.PathInfo) []nix.PathInfo { i[0].NarSize = -1; return i }, "size -1"},
		"refs not sorted":  {func(i []nix.PathInfo) []nix.PathInfo { i[2].References = []string{i[0].Path, i[1].Path}; return i }, "references must be sorted"},
		"refs not unique":  {func(i []nix.PathInfo) []nix.PathInfo { i[2].References = []string{i[0].Path, i[0].Path}; return i }, "references must be sorted"},
		"ref is no path":   {func(i []nix.PathInfo) []nix.PathInfo { i[2].References = []string{"x"}; return i }, "which has no line of its own"},
		"ref below a path": {func(i []nix.PathInfo) []nix.PathInfo { i[2].References[0] += "/bin"; return i }, "which has no line of its own"},
	} {
		if _, err := nix.NewClosureList(tt.change(sampleInfos())); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: NewClosureList = %v; want %q", name, err, tt.want)
		}
	}
}

// badLists are changes of the good text, each of which must be refused.
func badLists() map[string]string {
	change := func(old, with string) string { return strings.Replace(sampleList, old, with, 1) }
	lines := strings.SplitAfter(sampleList, "\n")
	return map[string]string{
		"nothing":          "",
		"header only":      lines[0],
		"other version":    change("closure 1", "closure 2"),
		"last line open":   strings.TrimSuffix(sampleList, "\n"),
		"blank line":       sampleList + "\n",
		"CRLF":             strings.ReplaceAll(sampleList, "\n", "\r\n"),
		"two spaces":       change(" 120", "  120"),
		"space at the end": change("4096\n", "4096 \n"),
		"leading zero":     change(" 120", " 0120"),
		"plus":             change(" 120", " +120"),
		"negative":         change(" 120", " -120"),
		"huge":             change(" 120", " 99999999999999999999"),
		"hash in base 32":  change("sha256-ypeBEsobvcr6wjGzmiPcTaeG7/gUfE5yuYB3ha/uSLs=", nix.Hash(sha256.Sum256([]byte("a"))).Base32()),
		"hash cut off":     change("ha/uSLs=", "="),
		"unsorted":         lines[0] + lines[2] + lines[1] + lines[3],
		"twice":            lines[0] + lines[1] + lines[1] + lines[2] + lines[3],
		"not closed":       lines[0] + lines[1] + lines[2],
		"full reference":   change(" 22222222222222222222222222222222-c\n", " /nix/store/22222222222222222222222222222222-c\n"),
		"no size":          change(" 4096", ""),
		"NUL":              sampleList + "\x00\n",
	}
}

func TestParseClosureListRefuses(t *testing.T) {
	t.Parallel()
	for name, text := range badLists() {
		if text == sampleList {
			t.Errorf("%s: the text is not changed", name)
		}
		if list, err := nix.ParseClosureList([]byte(text)); err == nil {
			t.Errorf("%s: ParseClosureList took it: %v", name, list)
		} else if !strings.HasPrefix(err.Error(), "closure list: ") {
			t.Errorf("%s: error %q does not say what it is about", name, err)
		}
	}
	if _, err := nix.ParseClosureList(make([]byte, 64<<20+1)); err == nil {
		t.Error("a list of more than 64 MiB was taken")
	}
}

func FuzzParseClosureList(f *testing.F) {
	f.Add([]byte(sampleList))
	for _, text := range badLists() {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		list, err := nix.ParseClosureList(data)
		if err != nil {
			return
		}
		if !bytes.Equal(list.Encode(), data) {
			t.Fatal("two texts for one list")
		}
		again, err := nix.NewClosureList(list.Paths)
		if err != nil || again.Digest() != list.Digest() {
			t.Fatalf("NewClosureList of what was parsed: %v", err)
		}
	})
}

func FuzzReadRegistration(f *testing.F) {
	var text strings.Builder
	if err := nix.WriteRegistration(&text, sampleInfos()); err != nil {
		f.Fatal(err)
	}
	f.Add(text.String())
	f.Add(storePath("0", "a") + "\n" + strings.Repeat("0", 64) + "\n1\n" + storePath("1", "b.drv") + "\n99999999\n")
	f.Fuzz(func(t *testing.T, text string) {
		infos, err := nix.ReadRegistration(strings.NewReader(text))
		if err != nil {
			return
		}
		var out strings.Builder
		if err := nix.WriteRegistration(&out, infos); err != nil {
			t.Fatal(err)
		}
		again, err := nix.ReadRegistration(strings.NewReader(out.String()))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(infos, again); diff != "" {
			t.Fatalf("read, written and read again (-first +second):\n%s", diff)
		}
	})
}
