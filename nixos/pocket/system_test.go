package pocket_test

import (
	"bytes"
	"debug/elf"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/bootspec"
	"xnodeos.org/internal/kmod"
	"xnodeos.org/internal/nix"
	"xnodeos.org/nixos/pocket"
)

// maxClosure is the budget for a system without services.
const maxClosure = 145_000_000

// build builds into the cache that xnodeos itself uses: packages are fetched
// once for all.
func build(t *testing.T, opt pocket.Options) (nix.Store, nix.StorePath) {
	t.Helper()
	if opt.Cache == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		opt.Cache = filepath.Join(cache, "xnodeos")
	}
	opt.Log = func(line string) { t.Log(line) }
	p, store, err := pocket.Build(t.Context(), opt)
	if err != nil {
		t.Fatalf("%v; run scripts/setup", err)
	}
	return store, p
}

func closure(t *testing.T, store nix.Store, p nix.StorePath) []nix.PathInfo {
	t.Helper()
	infos, err := store.Closure(t.Context(), nix.ClosureOptions{}, string(p))
	if err != nil {
		t.Fatal(err)
	}
	return infos
}

func readPart(t *testing.T, store nix.Store, p nix.StorePath, name string) string {
	t.Helper()
	data, err := store.ReadFile(string(p)+"/"+name, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// paths are the closure's paths whose names do not begin with one of the words.
func paths(infos []nix.PathInfo, without ...string) []string {
	var found []string
	for _, info := range infos {
		name := nix.StorePath(info.Path).Name()
		if !slices.ContainsFunc(without, func(word string) bool { return strings.HasPrefix(name, word) }) {
			found = append(found, info.Path)
		}
	}
	return found
}

func TestContract(t *testing.T) {
	for handover, want := range map[string]bootspec.Handover{
		"script": bootspec.HandoverScript, "prepare-root": bootspec.HandoverPrepareRoot,
	} {
		t.Run(handover, func(t *testing.T) {
			store, p := build(t, pocket.Options{Handover: handover})
			system, err := bootspec.Read(store, p)
			if err != nil {
				t.Fatal(err)
			}
			if err := system.CheckLive(); err != nil {
				t.Error(err)
			}
			if system.Handover != want || system.Medium != bootspec.MediumLive || system.Label != "pocket-1" {
				t.Errorf("hand-over %q, medium %q, label %q; want %q, live, pocket-1", system.Handover, system.Medium, system.Label, want)
			}
			if params := readPart(t, store, p, "kernel-params"); params != strings.Join(system.KernelParams, " ") {
				t.Errorf("kernel-params %q and boot.json %q differ", params, system.KernelParams)
			}
			for _, part := range []string{
				"activate", "bin/switch-to-configuration", "dry-activate", "etc/NIXOS", "etc/nix/nix.conf", "init", "initrd",
				"init-interface-version", "nixos-version", "sw/bin/nix-store", "sw/bin/sh", "system", "systemd/lib/systemd/systemd",
			} {
				if f, err := store.Open(string(p) + "/" + part); err != nil {
					t.Errorf("the system has no %s: %v", part, err)
				} else {
					f.Close()
				}
			}
		})
	}
}

func TestClosure(t *testing.T) {
	store, p := build(t, pocket.Options{})
	infos := closure(t, store, p)
	var size int64
	for _, info := range infos {
		size += info.NarSize
	}
	t.Logf("closure: %.1f MB in %d paths", float64(size)/1e6, len(infos))
	if size > maxClosure {
		t.Errorf("closure is %d bytes; the budget is %d", size, maxClosure)
	}
	if foreign := paths(infos, "pocket-", "busybox-static", "xnodeos-pocket-1"); len(foreign) > 0 {
		t.Errorf("paths that no rule of this folder makes: %v", foreign)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	for _, info := range infos {
		eachFile(t, store, info.Path, func(name string, data []byte) {
			if bytes.Contains(data, []byte(home+"/.cache")) {
				t.Errorf("%s names a folder of this machine", name)
			}
			checkELF(t, store, name, data)
		})
	}
}

// eachFile visits the regular files of a store path.
func eachFile(t *testing.T, store nix.Store, p string, visit func(name string, data []byte)) {
	t.Helper()
	err := filepath.WalkDir(store.Physical(p), func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		if err == nil {
			visit(name, data)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// checkELF makes sure that a program finds its loader and its libraries in the
// store: a library that it found on the machine would be missing on the node.
func checkELF(t *testing.T, store nix.Store, name string, data []byte) {
	t.Helper()
	if !bytes.HasPrefix(data, []byte(elf.ELFMAG)) {
		return
	}
	file, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	for _, prog := range file.Progs {
		if prog.Type != elf.PT_INTERP || path.Base(name) == "libc.so.6" { // the C library can be run, and nobody does
			continue
		}
		loader := make([]byte, prog.Filesz)
		if _, err := prog.ReadAt(loader, 0); err != nil || !strings.HasPrefix(string(loader), nix.StoreDir+"/") {
			t.Errorf("%s: its program loader is %q, %v; want one of the store", name, loader, err)
		}
	}
	runpath, _ := file.DynString(elf.DT_RUNPATH)
	rpath, _ := file.DynString(elf.DT_RPATH)
	if len(runpath) > 0 {
		t.Errorf("%s: its run path is %q; want a library path, which its libraries inherit", name, runpath)
	}
	for _, folder := range strings.Split(strings.Join(rpath, ":"), ":") {
		if folder != "" && !strings.HasPrefix(folder, nix.StoreDir+"/") {
			t.Errorf("%s: its library path names %q, outside the store", name, folder)
		}
	}
	needed, _ := file.ImportedLibraries()
	if len(rpath) == 0 { // a library: it uses its program's path
		return
	}
	for _, library := range needed {
		if !slices.ContainsFunc(strings.Split(rpath[0], ":"), func(folder string) bool {
			_, err := os.Stat(store.Physical(path.Join(folder, library)))
			return err == nil
		}) {
			t.Errorf("%s needs %s, which is not in %q", name, library, rpath[0])
		}
	}
}

func TestModules(t *testing.T) {
	store, p := build(t, pocket.Options{})
	system, err := bootspec.Read(store, p)
	if err != nil {
		t.Fatal(err)
	}
	index, err := kmod.Open(system.ModulesFS())
	if err != nil {
		t.Fatal(err)
	}
	first, err := index.FirstStage()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range first {
		names = append(names, m.Name)
	}
	for _, want := range []string{"virtio_blk", "virtio_net", "e1000e", "nvme", "ahci", "sr_mod", "usb_storage", "squashfs", "overlay", "loop", "vfat"} {
		if !slices.Contains(names, want) {
			t.Errorf("the first stage would not get module %s; add it to modules.txt", want)
		}
	}
	for _, want := range []string{"softdog", "i6300esb", "bonding", "8021q", "ext4", "dm_verity", "nf_tables", "efivarfs", "qemu_fw_cfg"} {
		if !index.Has(want) {
			t.Errorf("module %s is missing", want)
		}
	}
	err = fs.WalkDir(system.ModulesFS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if strings.Contains(name, "/gpu/") || strings.HasPrefix(name, "kernel/sound") {
			t.Errorf("a node has no use for %s", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The node's Nix is the one of the contract, whatever this machine's is.
func TestNixConf(t *testing.T) {
	store, p := build(t, pocket.Options{})
	got := make(map[string]string)
	for line := range strings.Lines(readPart(t, store, p, "etc/nix/nix.conf")) {
		if key, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(line, "#") {
			got[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	for key, want := range map[string]string{
		"build-users-group": "nixbld", "sandbox": "true", "sandbox-fallback": "false", "allowed-users": "root xnode", "trusted-users": "",
		"require-sigs": "true", "substituters": "", "trusted-public-keys": "",
	} {
		if value, ok := got[key]; !ok || value != want {
			t.Errorf("nix.conf: %s = %q (there: %t); want %q", key, value, ok, want)
		}
	}
	if group := readPart(t, store, p, "etc/group"); !strings.Contains(group, "nixbld:x:30000:nixbld1") {
		t.Errorf("etc/group has no build users:\n%s", group)
	}
}

// A second generation costs two small paths; text of any kind reaches its files.
func TestGeneration(t *testing.T) {
	text := "a \"$motd\" of ${two}\n\ttabs, '' quotes and a \\ too\n"
	store, one := build(t, pocket.Options{})
	_, two := build(t, pocket.Options{
		Label:    "pocket-2",
		Files:    map[string]string{"motd": text, "xnode/probes.toml": "x = 1\n"},
		Units:    map[string]string{"extra.service": "[Service]\nExecStart=/usr/bin/sleep 1\n"},
		WantedBy: map[string]string{"extra.service": "multi-user.target"},
	})
	before, after := closure(t, store, one), closure(t, store, two)
	if diff := cmp.Diff(paths(before, "pocket-etc", "xnodeos-"), paths(after, "pocket-etc", "xnodeos-")); diff != "" {
		t.Errorf("more than etc and the toplevel is new: %s", diff)
	}
	if one == two || len(before) != len(after) {
		t.Errorf("generations %s and %s have %d and %d paths", one, two, len(before), len(after))
	}
	if got := readPart(t, store, two, "etc/motd"); got != text {
		t.Errorf("etc/motd is %q; want %q", got, text)
	}
	if got := readPart(t, store, two, "etc/systemd/system/multi-user.target.wants/extra.service"); !strings.Contains(got, "sleep 1") {
		t.Errorf("the wanted unit reads %q", got)
	}
}

func TestGreeting(t *testing.T) {
	store, p := build(t, pocket.Options{Label: "greets", Greeting: "Hello, node!"})
	if got := readPart(t, store, p, "etc/motd"); got != "Hello, node!\n" {
		t.Errorf("etc/motd is %q", got)
	}
	if got := readPart(t, store, p, "etc/systemd/system/multi-user.target.wants/pocket-greeting.service"); !strings.Contains(got, "Description=Greeting: Hello, node!\n") {
		t.Errorf("the unit reads %q", got)
	}
}

func TestBroken(t *testing.T) {
	for broken, check := range map[string]struct{ file, text string }{
		"activation": {"activate", "\nexit 1\nexit 0\n"},
		"hang":       {"activate", "\nexec sleep 1000000\nexit 0\n"},
		"unit":       {"etc/systemd/system/multi-user.target.wants/pocket-broken.service", `sh -c "exit 1"`},
		"late":       {"etc/systemd/system/multi-user.target.wants/pocket-broken.service", `sh -c "sleep 30; exit 1"`},
		"freeze":     {"etc/systemd/system/multi-user.target.wants/pocket-broken.service", "kill -SEGV 1"},
		"network":    {"etc/systemd/network/00-broken.network", "ActivationPolicy=down"},
		"panic":      {"etc/systemd/system/multi-user.target.wants/pocket-panic.service", "ConditionKernelCommandLine=xnode.test.panic"},
	} {
		t.Run(broken, func(t *testing.T) {
			store, p := build(t, pocket.Options{Label: "bad-" + broken, Broken: broken})
			if got := readPart(t, store, p, check.file); !strings.Contains(got, check.text) {
				t.Errorf("%s has no %q:\n%s", check.file, check.text, got)
			}
			good, sound := build(t, pocket.Options{})
			if _, err := good.ReadFile(string(sound)+"/"+check.file, 1<<20); err == nil && check.file != "activate" {
				t.Errorf("the sound system has %s as well", check.file)
			}
		})
	}
	store, p := build(t, pocket.Options{Label: "bad-switch", SwitchEnds: "signal 9"})
	if got := readPart(t, store, p, "bin/switch-to-configuration"); !strings.Contains(got, `ends="signal 9"`) {
		t.Errorf("switch-to-configuration was not told how to end")
	}
}
