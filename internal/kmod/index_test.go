package kmod

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// tree makes a folder lib/modules/<kver> of index files.
func tree(dep, alias, softdep, builtin string) fstest.MapFS {
	return fstest.MapFS{
		"modules.dep":     {Data: []byte(dep)},
		"modules.alias":   {Data: []byte(alias)},
		"modules.softdep": {Data: []byte(softdep)},
		"modules.builtin": {Data: []byte(builtin)},
	}
}

const (
	someDep = `kernel/a.ko.xz: kernel/b-b.ko.xz kernel/c.ko.xz
kernel/b-b.ko.xz: kernel/c.ko.xz
kernel/c.ko.xz:
kernel/sum_generic.ko.xz:
kernel/sum-fast.ko.xz:
kernel/late.ko.xz: kernel/c.ko.xz
kernel/ring1.ko:
kernel/ring2.ko:
kernel/lame.ko: kernel/gone.ko
kernel/wish.ko:
kernel/tight.ko: kernel/sum-fast.ko.xz
extra/own.ko.zst: kernel/inside.ko
`
	someAlias = `# Aliases extracted from modules themselves.
alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci
alias pci:v*d*sv*sd*bc01sc06i01* ahci
alias pci:v0000[18]086d*sv* odd
alias crypto-sum sum_generic
alias crypto-sum sum_fast
alias dmi*:svnACME:pnBoard-1:* board
alias platform:late-thing late
alias of:N*T*Cacme,x with space
`
	someSoftdep = `# Soft dependencies extracted from modules themselves.
softdep c pre: crypto-sum post: late
softdep ring1 pre: ring2
softdep ring2 post: ring1
softdep wish pre: lame nothing crypto-none
softdep odd a b
`
	someBuiltin = "kernel/inside.ko\nkernel/fs/ext-4.ko\n"
)

func open(tb testing.TB, dep, alias, softdep, builtin string) *Index {
	tb.Helper()
	x, err := Open(tree(dep, alias, softdep, builtin))
	if err != nil {
		tb.Fatal(err)
	}
	return x
}

func names(mods []Module) string {
	var all []string
	for _, m := range mods {
		name := m.Name
		if m.Soft {
			name += "?"
		}
		all = append(all, name)
	}
	return strings.Join(all, " ")
}

func TestResolve(t *testing.T) {
	t.Parallel()
	x := open(t, someDep, someAlias, someSoftdep, someBuiltin)
	tests := []struct{ names, want string }{
		{"c", "sum_generic? sum_fast? c late?"},
		{"a", "sum_generic? sum_fast? c late? b_b a"},
		{"b-b", "sum_generic? sum_fast? c late? b_b"},
		{"b_b a c", "sum_generic? sum_fast? c late? b_b a"},
		{"crypto-sum", "sum_generic sum_fast"},
		{"crypto_sum", "sum_generic sum_fast"},
		{"ring1", "ring2? ring1"},
		{"ring2", "ring2 ring1?"},
		{"wish", "wish"},
		{"own", "own"},
		{"inside ext-4 ext_4", ""},
		{"c late", "sum_generic? sum_fast? c late"},
		{"c tight", "sum_generic? sum_fast c late? tight"},
		{"platform:late-thing", "sum_generic? sum_fast? c late"},
		{"", ""},
	}
	for _, test := range tests {
		got, err := x.Resolve(strings.Fields(test.names)...)
		if err != nil || names(got) != test.want {
			t.Errorf("Resolve(%s) = %s, %v; want %s", test.names, names(got), err, test.want)
		}
	}
	for _, name := range []string{"gone", "lame", "", "crypto-none"} {
		var unknown *UnknownError
		if got, err := x.Resolve("c", name); !errors.As(err, &unknown) {
			t.Errorf("Resolve(%q) = %s, %v; want an UnknownError", name, names(got), err)
		}
	}
}

func TestLookup(t *testing.T) {
	t.Parallel()
	x := open(t, someDep, someAlias, someSoftdep, someBuiltin)
	if m, ok := x.Lookup("b-b"); !ok || m.Path != "kernel/b-b.ko.xz" || m.Name != "b_b" || m.UncompressedPath() != "kernel/b-b.ko" {
		t.Errorf("Lookup = %+v, %v", m, ok)
	}
	for name, want := range map[string]bool{"a": true, "ext_4": true, "ext-4": true, "gone": false, "virtio_pci": false} {
		if got := x.Has(name); got != want {
			t.Errorf("Has(%q) = %v; want %v", name, got, want)
		}
	}
}

func TestOpenFormats(t *testing.T) {
	t.Parallel()
	// A colon with a space behind it, CR LF, an empty line: all were seen.
	x := open(t, "a.ko: \r\n\nkernel/b.ko:a.ko\n", "", "", "")
	if got, err := x.Resolve("b"); err != nil || names(got) != "a b" {
		t.Errorf("Resolve(b) = %s, %v", names(got), err)
	}
	bare := tree("a.ko:\n", "", "", "")
	delete(bare, "modules.softdep")
	delete(bare, "modules.builtin")
	if _, err := Open(bare); err != nil {
		t.Errorf("Open without softdep and builtin: %v", err)
	}
	for _, name := range []string{"modules.dep", "modules.alias"} {
		lacking := tree("", "", "", "")
		delete(lacking, name)
		if _, err := Open(lacking); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "depmod") {
			t.Errorf("Open without %s: %v", name, err)
		}
	}
	for _, dep := range []string{"../../etc/a.ko:\n", "/a.ko:\n", "a.ko\n", "a.ko: ../b.ko\n", "README:\n"} {
		if _, err := Open(tree(dep, "", "", "")); err == nil || !strings.Contains(err.Error(), "modules.dep: line 1") {
			t.Errorf("Open of %q: %v", dep, err)
		}
	}
}

func TestMatch(t *testing.T) {
	t.Parallel()
	x := open(t, someDep, someAlias, someSoftdep, someBuiltin)
	tests := []struct{ alias, want string }{
		{"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", "virtio_pci"},
		{"pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", "ahci odd"},
		{"pci:v00009086d00002922sv00001AF4sd00001100bc01sc05i01", ""},
		{"dmi:bvnX:svnACME:pnBoard-1:rvn", "board"},
		{"dmi:svnACME:pnBoard_1:rvn", "board"},
		{"crypto-sum", "sum_generic sum_fast"},
		{"platform:late_thing", "late"},
		{"usb:v1234p5678", ""},
		{"of:N*T*Cacme,x with", "space"},
		{"", ""},
	}
	for _, test := range tests {
		if got := strings.Join(x.Match(test.alias), " "); got != test.want {
			t.Errorf("Match(%q) = %q; want %q", test.alias, got, test.want)
		}
	}
}

func TestGlob(t *testing.T) {
	t.Parallel()
	tests := []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"a", "", false}, {"*", "", true}, {"**", "abc", true},
		{"a*c", "abbc", true}, {"a*c", "abcb", false}, {"*b*b", "abab", true}, {"?b", "ab", true}, {"?", "", false},
		{"[abc]", "b", true}, {"[abc]", "d", false}, {"[a-c]", "b", true}, {"[!a-c]", "b", false}, {"[^a-c]", "d", true},
		{"[]x]", "]", true}, {"[]x]", "x", true}, {"[!]x]", "]", false}, {"[a-]", "-", true}, {"[--0]", ".", true},
		{"[", "[", true}, {"[a", "[a", true}, {"[a", "a", false}, {"a]", "a]", true},
		{`\*`, "*", true}, {`\*`, "a", false}, {`[\]]`, "]", true}, {`a\`, `a\`, true},
		{"a-b", "a_b", true}, {"a_b", "a-b", true}, {"[a-c]-", "b_", true}, {"[_]", "-", false},
		{"*1*2*3", "0102030123", true}, {"v[0-9]d*", "v5d77", true}, {"v[0-9A-F]d*", "vCd77", true}, {"v[0-9A-F]d*", "vGd77", false},
	}
	for _, test := range tests {
		if got := glob(test.pattern, test.text); got != test.want {
			t.Errorf("glob(%q, %q) = %v; want %v", test.pattern, test.text, got, test.want)
		}
	}
	// Exponential matchers do not come back from this one.
	if glob(strings.Repeat("*a", 1000)+"b", strings.Repeat("a", 10000)) {
		t.Error("glob finds a b among a's")
	}
}

func TestWriteSubset(t *testing.T) {
	t.Parallel()
	x := open(t, someDep, someAlias, someSoftdep, someBuiltin)
	mods, err := x.Resolve("a", "late")
	if err != nil {
		t.Fatal(err)
	}
	got := x.WriteSubset(mods)
	want := map[string]string{
		"modules.dep": `kernel/a.ko: kernel/b-b.ko kernel/c.ko
kernel/b-b.ko: kernel/c.ko
kernel/c.ko:
kernel/late.ko: kernel/c.ko
kernel/sum-fast.ko:
kernel/sum_generic.ko:
`,
		"modules.alias": `alias crypto_sum sum_fast
alias crypto_sum sum_generic
alias platform:late-thing late
`,
		"modules.softdep": "softdep c pre: crypto-sum post: late\n",
		"modules.builtin": "kernel/ext_4.ko\nkernel/inside.ko\n",
	}
	for name, text := range want {
		if diff := cmp.Diff(text, string(got[name])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	slices.Reverse(mods)
	if diff := cmp.Diff(got, x.WriteSubset(append(mods, mods...))); diff != "" {
		t.Errorf("the order of the modules changes the bytes:\n%s", diff)
	}
	files := fstest.MapFS{}
	for name, data := range got {
		files[name] = &fstest.MapFile{Data: data}
	}
	small, err := Open(files)
	if err != nil {
		t.Fatal(err)
	}
	again, err := small.Resolve("a", "late")
	if err != nil || names(again) != "sum_fast? sum_generic? c late b_b a" && names(again) != "sum_generic? sum_fast? c late b_b a" {
		t.Errorf("Resolve in the subset = %s, %v", names(again), err)
	}
	if !small.Has("ext-4") || !slices.Contains(small.Match("platform:late-thing"), "late") {
		t.Error("the subset forgot a built-in or an alias")
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(someDep, someAlias, someSoftdep, someBuiltin, "a c")
	f.Add("a.ko: b.ko\nb.ko: a.ko\n", "alias * a\nalias a* b\n", "softdep a pre: b post: a\n", "", "a x:y")
	f.Fuzz(func(t *testing.T, dep, alias, softdep, builtin, wanted string) {
		x, err := Open(tree(dep, alias, softdep, builtin))
		if err != nil {
			return
		}
		mods, err := x.Resolve(strings.Fields(wanted)...)
		if err != nil {
			return
		}
		at := make(map[string]int)
		for n, m := range mods {
			if _, twice := at[m.Name]; twice {
				t.Fatalf("%s comes twice in %s", m.Name, names(mods))
			}
			at[m.Name] = n
		}
		subset := x.WriteSubset(mods)
		files := fstest.MapFS{}
		for name, data := range subset {
			files[name] = &fstest.MapFile{Data: data}
		}
		small, err := Open(files)
		if err != nil {
			t.Fatalf("Open refuses what WriteSubset wrote: %v\n%s", err, subset["modules.dep"])
		}
		for _, m := range mods {
			if _, err := small.Resolve(m.Name); err != nil && !m.Soft {
				t.Fatalf("%s resolves no more in the subset: %v", m.Name, err)
			}
		}
		_ = fmt.Sprint(x.FirstStage())
	})
}

func FuzzGlob(f *testing.F) {
	f.Add("pci:v0000[1-8]086d*sv?", "pci:v00008086d1svx")
	f.Add(`[!]\]*[`, "x[")
	f.Fuzz(func(t *testing.T, pattern, text string) {
		if glob(pattern, text) && pattern == "" && text != "" {
			t.Fatal("an empty pattern matches something")
		}
		if !glob("*", text) || !strings.ContainsAny(text, `*?[\`) && !glob(text, text) {
			t.Fatalf("%q does not match itself", text)
		}
	})
}
