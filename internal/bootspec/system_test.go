package bootspec_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/bootspec"
	"xnodeos.org/internal/nix"
)

// system is a toplevel as NixOS lays it out, most parts behind absolute
// symlinks; its map is changed by the tests before it is written. A value
// beginning with "->" is a symlink.
type system map[string]string

const (
	etc     = "/nix/store/33333333333333333333333333333333-etc"
	modules = "/nix/store/44444444444444444444444444444444-modules"
	linux   = "/nix/store/22222222222222222222222222222222-linux"
)

func liveSystem() system {
	return system{
		top + "/boot.json":      bootJSON(v1(), `, "org.xnodeos.v1": {"medium": "live"}`),
		top + "/init":           "#!/bin/sh\n",
		top + "/activate":       "#!/bin/sh\n",
		top + "/nixos-version":  "26.05pre\n",
		top + "/kernel":         "->" + linux + "/bzImage",
		top + "/etc":            "->" + etc + "/etc",
		top + "/sw":             "->/nix/store/55555555555555555555555555555555-sw",
		top + "/kernel-modules": "->" + modules,
		top + "/firmware":       "->/nix/store/66666666666666666666666666666666-firmware/lib/firmware",
		"/nix/store/66666666666666666666666666666666-firmware/lib/firmware/a.bin": "f",
		"/nix/store/55555555555555555555555555555555-sw/bin/sh":                   "sh",
		"/nix/store/11111111111111111111111111111111-initrd/initrd":               "initrd",
		linux + "/bzImage":                                  "kernel",
		linux + "/lib/modules/6.12.1/modules.dep":           "x.ko:",
		modules + "/lib/modules/6.12.1":                     "->" + linux + "/lib/modules/6.12.1",
		etc + "/etc/fstab":                                  "->/nix/store/77777777777777777777777777777777-fstab",
		"/nix/store/77777777777777777777777777777777-fstab": "tmpfs / tmpfs mode=0755 0 0\n",
	}
}

func (s system) write(t *testing.T) nix.Store {
	t.Helper()
	store := nix.Store{Dir: t.TempDir()}
	for path, content := range s {
		if content == "" {
			continue // taken out by a test
		}
		at := store.Physical(path)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		target, link := strings.CutPrefix(content, "->")
		var err error
		if link {
			err = os.Symlink(target, at)
		} else {
			err = os.WriteFile(at, []byte(content), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return store
}

func read(t *testing.T, s system) (*bootspec.System, error) {
	t.Helper()
	return bootspec.Read(s.write(t), top)
}

func TestReadLiveSystem(t *testing.T) {
	t.Parallel()
	got, err := read(t, liveSystem())
	if err != nil {
		t.Fatal(err)
	}
	spec := want()
	spec.Medium = bootspec.MediumLive
	wanted := &bootspec.System{
		Spec: *spec, Store: got.Store, Path: top, NixosVersion: "26.05pre", Handover: bootspec.HandoverScript,
		Fstab:         []bootspec.Mount{{Line: 1, Text: "tmpfs / tmpfs mode=0755 0 0", Source: "tmpfs", Point: "/", Type: "tmpfs", Options: []string{"mode=0755"}}},
		KernelRelease: "6.12.1", ModulesDir: linux + "/lib/modules/6.12.1",
		FirmwareDir: "/nix/store/66666666666666666666666666666666-firmware/lib/firmware",
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("Read (-want +got):\n%s", diff)
	}
	if err := got.CheckLive(); err != nil {
		t.Errorf("CheckLive = %v; want nil", err)
	}
	for name, fsys := range map[string]fs.FS{"modules.dep": got.ModulesFS(), "a.bin": got.FirmwareFS()} {
		if data, err := fs.ReadFile(fsys, name); err != nil || len(data) == 0 {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
}

func TestHandover(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		init, prepareRoot string
		want              bootspec.Handover
	}{
		"script":              {"#!/bin/sh\n", "", bootspec.HandoverScript},
		"prepare-root":        {"\x7fELF", "#!/bin/sh\n", bootspec.HandoverPrepareRoot},
		"both":                {"#!/bin/sh\n", "#!/bin/sh\n", bootspec.HandoverPrepareRoot},
		"nixos-init":          {"\x7fELF", "", bootspec.HandoverNone},
		"one byte":            {"#", "", bootspec.HandoverNone},
		"link to a script":    {"->/nix/store/55555555555555555555555555555555-sw/bin/script", "", bootspec.HandoverScript},
		"prepare-root linked": {"\x7fELF", "->/nix/store/55555555555555555555555555555555-sw/bin/script", bootspec.HandoverPrepareRoot},
	} {
		s := liveSystem()
		s[top+"/init"], s[top+"/prepare-root"] = tt.init, tt.prepareRoot
		s["/nix/store/55555555555555555555555555555555-sw/bin/script"] = "#!/bin/sh\n"
		got, err := read(t, s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got.Handover != tt.want {
			t.Errorf("%s: Handover = %q; want %q", name, got.Handover, tt.want)
		}
	}
}

func TestFirmwareBelow(t *testing.T) {
	t.Parallel()
	s := liveSystem()
	s[top+"/firmware"] = "->/nix/store/66666666666666666666666666666666-firmware"
	got, err := read(t, s)
	if err != nil {
		t.Fatal(err)
	}
	if want := "/nix/store/66666666666666666666666666666666-firmware/lib/firmware"; got.FirmwareDir != want {
		t.Errorf("FirmwareDir = %q; want %q", got.FirmwareDir, want)
	}
	delete(s, top+"/firmware")
	if got, err = read(t, s); err != nil || got.FirmwareDir != "" || got.FirmwareFS() != nil {
		t.Errorf("without firmware: %q, %v", got.FirmwareDir, err)
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	gone := "->/nix/store/99999999999999999999999999999999-gone/x"
	for name, tt := range map[string]struct {
		change system
		want   string
	}{
		"no boot.json":         {system{top + "/boot.json": ""}, "boot.bootspec.enable"},
		"dangling boot.json":   {system{top + "/boot.json": gone}, "boot.json"},
		"other system's":       {system{top + "/boot.json": bootJSON(v1(`"toplevel": "`+top, `"toplevel": "`+linux), "")}, "that of another system, " + linux},
		"unknown version":      {system{top + "/boot.json": `{"org.nixos.bootspec.v9": {}}`}, "org.nixos.bootspec.v9"},
		"no kernel":            {system{linux + "/bzImage": ""}, "bzImage"},
		"no init":              {system{top + "/init": ""}, "/init"},
		"dangling init":        {system{top + "/init": gone}, "/init"},
		"init is a folder":     {system{top + "/init": "->."}, "not a regular file"},
		"dangling modules":     {system{top + "/kernel-modules": gone}, "kernel-modules"},
		"two kernels":          {system{modules + "/lib/modules/5.10": "->" + linux}, `modules of 2 kernels, ["5.10" "6.12.1"]`},
		"dangling firmware":    {system{top + "/firmware": gone}, "firmware"},
		"firmware outside":     {system{top + "/firmware": "->/lib/firmware"}, "leads out of the store"},
		"dangling preparation": {system{top + "/prepare-root": gone}, "prepare-root"},
	} {
		s := liveSystem()
		for path, content := range tt.change {
			s[path] = content
		}
		got, err := read(t, s)
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "read system "+top) {
			t.Errorf("%s: Read = %v, %v; want %q", name, got, err, tt.want)
		}
	}
	if _, err := bootspec.Read(nix.Store{Dir: t.TempDir()}, top); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Read of nothing = %v; want fs.ErrNotExist", err)
	}
}

// reasons takes CheckLive's error apart.
func reasons(err error) []bootspec.Reason {
	var got []bootspec.Reason
	var walk func(err error)
	walk = func(err error) {
		if refusal, ok := err.(*bootspec.Refusal); ok { //nolint:errorlint // the tree is walked here
			got = append(got, refusal.Reason)
		}
		switch u := err.(type) { //nolint:errorlint // as above
		case interface{ Unwrap() error }:
			walk(u.Unwrap())
		case interface{ Unwrap() []error }:
			for _, e := range u.Unwrap() {
				walk(e)
			}
		}
	}
	walk(err)
	return got
}

func TestCheckLiveRefuses(t *testing.T) {
	t.Parallel()
	fstab := "/nix/store/77777777777777777777777777777777-fstab"
	for name, tt := range map[string]struct {
		change system
		want   []bootspec.Reason
		text   []string
	}{
		"overlay /etc": {system{top + "/etc-metadata-image": "erofs", etc + "/etc/fstab": "", etc + "/etc/hosts": "x"}, []bootspec.Reason{bootspec.OverlayEtc}, []string{"system.etc.overlay.enable = false"}},
		"nixos-init":   {system{top + "/init": "\x7fELF"}, []bootspec.Reason{bootspec.NixosInit}, []string{"system.nixos-init.enable = false"}},
		"disk root": {system{fstab: "# hardware\n/dev/disk/by-uuid/1 / ext4 defaults 0 1\ntmpfs /tmp tmpfs\nUUID=2 /boot vfat\n"}, []bootspec.Reason{bootspec.ForeignFstab},
			[]string{`line 2: "/dev/disk/by-uuid/1 / ext4 defaults 0 1"`, `line 4: "UUID=2 /boot vfat"`, "import nixos/profiles/live"}},
		"no fstab":     {system{etc + "/etc/fstab": "", etc + "/etc/hosts": "x"}, []bootspec.Reason{bootspec.ForeignFstab}, []string{"cannot be read", "import nixos/profiles/live"}},
		"broken fstab": {system{fstab: "what\n"}, []bootspec.Reason{bootspec.ForeignFstab}, []string{`line 1: "what"`}},
		"no medium":    {system{top + "/boot.json": bootJSON(v1(), "")}, []bootspec.Reason{bootspec.NotLive}, []string{"names no medium", "import nixos/profiles/live"}},
		"installed": {system{top + "/boot.json": bootJSON(v1(), `, "org.xnodeos.v1": {"medium": "installed"}`)}, []bootspec.Reason{bootspec.NotLive},
			[]string{`"installed"`}},
		"arm": {system{top + "/boot.json": bootJSON(v1("x86_64", "aarch64"), `, "org.xnodeos.v1": {"medium": "live"}`)}, []bootspec.Reason{bootspec.WrongPlatform},
			[]string{`"aarch64-linux"`}},
		"no modules":      {system{top + "/kernel-modules": ""}, []bootspec.Reason{bootspec.MissingParts}, []string{"kernel-modules"}},
		"no activate, sw": {system{top + "/activate": "", top + "/sw": ""}, []bootspec.Reason{bootspec.MissingParts}, []string{"activate, sw"}},
		"several at once": {system{top + "/init": "\x7fELF", fstab: "LABEL=x / ext4\n"}, []bootspec.Reason{bootspec.ForeignFstab, bootspec.NixosInit}, nil},
	} {
		s := liveSystem()
		for path, content := range tt.change {
			s[path] = content
		}
		got, err := read(t, s)
		if err != nil {
			t.Errorf("%s: Read: %v", name, err)
			continue
		}
		err = got.CheckLive()
		found := reasons(err)
		slices.Sort(found)
		if diff := cmp.Diff(tt.want, found); diff != "" {
			t.Errorf("%s: reasons (-want +got):\n%s\n%v", name, diff, err)
			continue
		}
		for _, part := range append(tt.text, top) {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s: %q does not say %q", name, err, part)
			}
		}
	}
}
