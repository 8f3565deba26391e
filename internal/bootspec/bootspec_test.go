package bootspec_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/bootspec"
)

const top = "/nix/store/00000000000000000000000000000000-system"

// v1 is the inside of org.nixos.bootspec.v1; replacements are pairs.
func v1(replacements ...string) string {
	return strings.NewReplacer(replacements...).Replace(`{
  "system": "x86_64-linux",
  "init": "` + top + `/init",
  "initrd": "/nix/store/11111111111111111111111111111111-initrd/initrd",
  "kernel": "/nix/store/22222222222222222222222222222222-linux/bzImage",
  "kernelParams": ["loglevel=4", "dyndbg=\"file x +p\""],
  "label": "NixOS 26.05 (Linux 6.12)",
  "toplevel": "` + top + `"
}`)
}

func bootJSON(boot, more string) string {
	return fmt.Sprintf(`{"org.nixos.bootspec.v1": %s%s}`, boot, more)
}

func want() *bootspec.Spec {
	return &bootspec.Spec{
		Platform: "x86_64-linux", Label: "NixOS 26.05 (Linux 6.12)", Toplevel: top, Init: top + "/init",
		Kernel:       "/nix/store/22222222222222222222222222222222-linux/bzImage",
		Initrd:       "/nix/store/11111111111111111111111111111111-initrd/initrd",
		KernelParams: []string{"loglevel=4", `dyndbg="file x +p"`},
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	live := want()
	live.Medium = bootspec.MediumLive
	noInitrd := want()
	noInitrd.Initrd = ""
	inner := want()
	inner.Label = "variant"
	special := want()
	special.Specialisations = map[string]*bootspec.Spec{"variant": inner}
	for name, tt := range map[string]struct {
		text string
		want *bootspec.Spec
	}{
		"plain":          {bootJSON(v1(), ""), want()},
		"live":           {bootJSON(v1(), `, "org.xnodeos.v1": {"medium": "live", "later": 1}`), live},
		"unknown keys":   {bootJSON(v1("{", `{"new": [1],`), `, "org.nixos.systemd-boot": {"sortKey": "nixos"}, "v2": null`), want()},
		"no initrd":      {bootJSON(v1(`"initrd": "/nix/store/11111111111111111111111111111111-initrd/initrd",`, ""), ""), noInitrd},
		"specialisation": {bootJSON(v1(), `, "org.nixos.specialisation.v1": {"variant": `+bootJSON(v1("NixOS 26.05 (Linux 6.12)", "variant"), `, "org.nixos.specialisation.v1": {}`)+`}`), special},
		"empty ones":     {bootJSON(v1(), `, "org.nixos.specialisation.v1": {}`), want()},
	} {
		got, err := bootspec.Parse([]byte(tt.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func badBootJSON() map[string]struct{ text, want string } {
	deeper := `, "org.nixos.specialisation.v1": {"b": ` + bootJSON(v1(), "") + `}`
	return map[string]struct{ text, want string }{
		"nothing":             {"", "boot.json: unexpected end"},
		"cut off":             {bootJSON(v1(), "")[:100], "boot.json: unexpected end"},
		"list":                {"[]", "boot.json: json: cannot unmarshal"},
		"no version":          {"{}", "boot.bootspec.enable"},
		"draft":               {`{"v1": ` + v1() + `}`, `boot.json has ["v1"]`},
		"newer":               {`{"org.nixos.bootspec.v2": {}}`, "update xnodeos"},
		"null":                {`{"org.nixos.bootspec.v1": null}`, "toplevel"},
		"wrong type":          {bootJSON(v1(`["loglevel=4", "dyndbg=\"file x +p\""]`, `"quiet"`), ""), "kernelParams"},
		"toplevel below":      {bootJSON(v1(`"toplevel": "`+top, `"toplevel": "`+top+"/x"), ""), "toplevel"},
		"init elsewhere":      {bootJSON(v1(top+"/init", "/sbin/init"), ""), "init"},
		"kernel elsewhere":    {bootJSON(v1("/nix/store/22222222222222222222222222222222-linux/bzImage", "/boot/vmlinuz"), ""), "kernel"},
		"initrd elsewhere":    {bootJSON(v1("/nix/store/11111111111111111111111111111111-initrd/initrd", "initrd"), ""), "initrd"},
		"newline in label":    {bootJSON(v1("NixOS 26.05", `a\nb`), ""), "label"},
		"broken UTF-8":        {bootJSON(v1("NixOS 26.05", "\xff"), ""), "label"},
		"newline in a param":  {bootJSON(v1("loglevel=4", `a\nlinux /evil`), ""), "kernelParams"},
		"long param":          {bootJSON(v1("loglevel=4", strings.Repeat("x", 5000)), ""), "longer than 4096 bytes"},
		"no platform":         {bootJSON(v1("x86_64-linux", ""), ""), "system: empty"},
		"unknown medium":      {bootJSON(v1(), `, "org.xnodeos.v1": {"medium": "tape"}`), `medium is "tape"; want "live" or "installed"`},
		"medium is no text":   {bootJSON(v1(), `, "org.xnodeos.v1": {"medium": 1}`), "org.xnodeos.v1"},
		"nested deeper":       {bootJSON(v1(), `, "org.nixos.specialisation.v1": {"a": `+bootJSON(v1(), deeper)+`}`), `specialisation "a"`},
		"bad specialisation":  {bootJSON(v1(), `, "org.nixos.specialisation.v1": {"a": {}}`), `specialisation "a"`},
		"specialisation list": {bootJSON(v1(), `, "org.nixos.specialisation.v1": []`), "org.nixos.specialisation.v1"},
		"too long":            {strings.Repeat(" ", 4<<20+1), "longer than"},
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, tt := range badBootJSON() {
		got, err := bootspec.Parse([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: Parse = %v, %v; want %q", name, got, err, tt.want)
		}
	}
	var version *bootspec.VersionError
	if _, err := bootspec.Parse([]byte(badBootJSON()["newer"].text)); !errors.As(err, &version) {
		t.Errorf("Parse of a newer version = %v; want *VersionError", err)
	}
}

func TestFileLabel(t *testing.T) {
	t.Parallel()
	for label, want := range map[string]string{
		"pocket-1":                 "pocket-1",
		"NixOS 26.05 (Linux 6.12)": "nixos-26.05-linux-6.12",
		"../../etc/passwd":         "etc-passwd",
		"":                         "system",
		"--":                       "system",
		"Ünïcode":                  "n-code",
		"a..b":                     "a.b",
		strings.Repeat("ab-", 40):  strings.Repeat("ab-", 21) + "a",
	} {
		if got := (&bootspec.Spec{Label: label}).FileLabel(); got != want {
			t.Errorf("FileLabel of %q = %q; want %q", label, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(bootJSON(v1(), `, "org.xnodeos.v1": {"medium": "live"}`)))
	f.Add([]byte(bootJSON(v1(), `, "org.nixos.specialisation.v1": {"a": `+bootJSON(v1(), "")+`}`)))
	for _, tt := range badBootJSON() {
		if len(tt.text) < 100000 {
			f.Add([]byte(tt.text))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		spec, err := bootspec.Parse(data)
		if err != nil {
			return
		}
		for _, path := range []string{spec.Toplevel, spec.Init, spec.Kernel} {
			if !strings.HasPrefix(path, "/nix/store/") {
				t.Fatalf("accepted %q", path)
			}
		}
		for _, word := range append(spec.KernelParams, spec.Label) {
			if strings.ContainsAny(word, "\n\r\x00") {
				t.Fatalf("accepted the word %q", word)
			}
		}
		label := spec.FileLabel()
		if label == "" || len(label) > 64 || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" || label[0] == '.' || label[0] == '-' {
			t.Fatalf("FileLabel of %q = %q", spec.Label, label)
		}
	})
}
