package imagebuild

import (
	"os"
	"strings"
	"testing"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/testkit"
)

// TestRefusals gives Load and NewPlan what they must refuse, and looks for the
// remedy in the words.
func TestRefusals(t *testing.T) {
	const dir = testkit.ToyModules + "/lib/modules/6.1.0-toy/"
	boot := func(t *testing.T, s nix.Store) string {
		data, err := os.ReadFile(s.Physical(testkit.ToySystem + "/boot.json"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	replaceBoot := func(old, new string) func(*testing.T, nix.Store) {
		return func(t *testing.T, s nix.Store) {
			writeToy(t, s, testkit.ToySystem+"/boot.json", strings.Replace(boot(t, s), old, new, 1))
		}
	}
	write := func(path, data string) func(*testing.T, nix.Store) {
		return func(t *testing.T, s nix.Store) { writeToy(t, s, path, data) }
	}
	for _, tt := range []struct {
		name   string
		spoil  func(*testing.T, nix.Store) // before Load
		change func(*Inputs, *Options)     // before NewPlan
		want   []string
	}{
		{name: "no boot.json", spoil: write(testkit.ToySystem+"/boot.json", ""), want: []string{"boot.json", "boot.bootspec.enable"}},
		{name: "unknown boot.json", spoil: replaceBoot("bootspec.v1", "bootspec.v2"), want: []string{"org.nixos.bootspec.v2"}},
		{name: "no medium", spoil: replaceBoot(`"live"`, `"installed"`), want: []string{"installed", "nixos/profiles/live"}},
		{name: "overlay /etc", spoil: write(testkit.ToySystem+"/etc-metadata-image", "x"), want: []string{"system.etc.overlay.enable"}},
		{name: "nixos-init", spoil: write(testkit.ToySystem+"/init", "\x7fELF"), want: []string{"system.nixos-init.enable"}},
		{name: "foreign fstab", spoil: write(testkit.ToySystem+"/etc/fstab", "UUID=1234 / ext4 defaults 0 1\n"), want: []string{"fstab", "nixos/profiles/live"}},
		{name: "no modules", spoil: write(testkit.ToyModules+"/lib", ""), want: []string{"kernel-modules"}},
		{name: "module absent", spoil: write(dir+"modules.builtin", "kernel/fs/isofs/isofs.ko\n"), want: []string{`"loop"`, "missing"}},
		{name: "no isofs", spoil: write(dir+"modules.builtin", "kernel/drivers/block/loop.ko\n"), want: []string{`"isofs"`, "ISO"}},
		{name: "part missing", spoil: write(testkit.ToyKernel, ""), want: []string{testkit.ToyKernel}},
		{name: "no loader", change: func(in *Inputs, _ *Options) { delete(in.Loaders, blobIsolinux) }, want: []string{"isolinux.bin", "package isolinux", "--boot-dir"}},
		{name: "embed without netboot", change: func(_ *Inputs, o *Options) { o.Formats = []Format{ISO} }, want: []string{"--embed-payload", "netboot"}},
		{name: "time before 1970", change: func(_ *Inputs, o *Options) { o.Time = -1 }, want: []string{"1970"}},
		{name: "long command line", change: func(in *Inputs, _ *Options) { in.System.KernelParams = []string{strings.Repeat("x", 2000)} }, want: []string{"boot.kernelParams"}},
		{name: "line break", change: func(in *Inputs, _ *Options) { in.System.KernelParams = []string{"a\nb"} }, want: []string{"boot.kernelParams"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			store, opt := newToyStore(t), toyOptions
			if tt.spoil != nil {
				tt.spoil(t, store)
			}
			in, err := Load(t.Context(), store, testkit.ToySystem, t.TempDir(), NoProgress{})
			if err == nil {
				in.Loaders = map[string]Blob{}
				for name, data := range testkit.ToyLoaders() {
					in.Loaders[name] = Blob{Data: data}
				}
				if tt.change != nil {
					tt.change(&in, &opt)
				}
				_, err = NewPlan(in, opt)
			}
			if err == nil {
				t.Fatal("nothing was refused")
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error = %q; want it to contain %q", err, want)
				}
			}
		})
	}
}
