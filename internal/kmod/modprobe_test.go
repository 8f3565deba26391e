package kmod

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// kmodTool runs depmod or modprobe, which are outside of a user's PATH on
// Debian.
func kmodTool(t *testing.T, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if path, err = exec.LookPath("/usr/sbin/" + name); err != nil {
			t.Fatalf("%s is not installed; run scripts/setup", name)
		}
	}
	out, err := exec.CommandContext(t.Context(), path, args...).Output()
	if err != nil {
		t.Fatalf("%s %q: %v", name, args, err)
	}
	return string(out)
}

// TestAgainstModprobe has depmod index modules made for this test, and compares
// with what modprobe makes of them.
func TestAgainstModprobe(t *testing.T) {
	t.Parallel()
	const version = "9.9"
	base := t.TempDir()
	dir := filepath.Join(base, "lib", "modules", version)
	for path, fields := range map[string][]string{
		"kernel/net/card-one.ko":     {"license=GPL", "alias=pci:v00001AF4d0000100[0-3]sv*sd*bc*sc*i*", "softdep=pre: helper"},
		"kernel/net/card_two.ko.zst": {"license=GPL", "alias=pci:v00001AF4d*sv*sd*bc02sc*i*"},
		"kernel/lib/helper.ko.xz":    {"license=GPL", "alias=crypto-help", "softdep=post: late-one no_such"},
		"kernel/lib/late_one.ko":     {"license=GPL", "alias=platform:late-thing", "alias=dmi*:svnACME:*"},
		"kernel/lib/odd.ko":          {"license=GPL", "alias=of:N*T*Cacme,odd", "alias=usb:v1234p5[!0-9]78d*"},
	} {
		file := filepath.Join(dir, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		ext := path[strings.Index(path, ".ko"):]
		if err := os.WriteFile(file, compressed(t, ext, module(t, fields...)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{"modules.builtin": "kernel/fs/inside.ko\n", "modules.order": ""} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	kmodTool(t, "depmod", "-b", base, version)
	x, err := Open(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	modprobe := func(args ...string) []string {
		none := t.TempDir() // no modprobe.d of this machine
		out := kmodTool(t, "modprobe", append([]string{"-C", none, "-d", base, "-S", version}, args...)...)
		var names []string
		for line := range strings.Lines(out) {
			line = strings.TrimPrefix(strings.TrimSpace(line), "insmod ")
			names = append(names, nameOf(line))
		}
		return names
	}
	for _, alias := range []string{
		"pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00", "pci:v00001AF4d00001002sv00001AF4sd00000001bc01sc00i00",
		"pci:v00001AF4d00001004sv00001AF4sd00000001bc02sc00i00", "platform:late-thing", "platform:late_thing",
		"dmi:bvnX:svnACME:pn", "crypto-help", "usb:v1234p5A78d00", "of:NxTyCacme,odd",
	} {
		want, got := modprobe("-R", alias), slices.Clone(x.Match(alias))
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Match(%q) (-modprobe +got):\n%s", alias, diff)
		}
	}
	for _, name := range []string{"card-one", "card_two", "helper", "late-one", "odd"} {
		mods, err := x.Resolve(name)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range mods {
			got = append(got, m.Name)
		}
		if diff := cmp.Diff(modprobe("--show-depends", name), got); diff != "" {
			t.Errorf("Resolve(%q) (-modprobe +got):\n%s", name, diff)
		}
	}
}
