package bootspec_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/bootspec"
)

func TestParseFstab(t *testing.T) {
	t.Parallel()
	got, err := bootspec.ParseFstab([]byte("# made by hand\n\n \t\ntmpfs / tmpfs mode=0755,size=50% 0 0\n" +
		"/dev/disk/by-label/a\\040b\t/mnt/\\134x ext4\r\nLABEL=X /y vfat nofail"))
	if err != nil {
		t.Fatal(err)
	}
	want := []bootspec.Mount{
		{Line: 4, Text: "tmpfs / tmpfs mode=0755,size=50% 0 0", Source: "tmpfs", Point: "/", Type: "tmpfs", Options: []string{"mode=0755", "size=50%"}},
		{Line: 5, Text: "/dev/disk/by-label/a\\040b\t/mnt/\\134x ext4", Source: "/dev/disk/by-label/a b", Point: `/mnt/\x`, Type: "ext4"},
		{Line: 6, Text: "LABEL=X /y vfat nofail", Source: "LABEL=X", Point: "/y", Type: "vfat", Options: []string{"nofail"}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ParseFstab (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"one\n", "# ok\n/dev/sda1 /\n", "a b\x00 c\n", strings.Repeat("#", 1<<20+1)} {
		if got, err := bootspec.ParseFstab([]byte(bad)); err == nil || !strings.HasPrefix(err.Error(), "fstab: ") {
			t.Errorf("ParseFstab(%.30q) = %v, %v; want an error", bad, got, err)
		}
	}
}

func TestForeign(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]bool{
		"tmpfs / tmpfs mode=0755":                                 false,
		"overlay /nix/store overlay lowerdir=/a":                  false,
		"proc /proc proc":                                         false,
		"/nix/store /store none bind":                             false,
		"efivarfs /sys/firmware/efi/efivars efivarfs noauto":      false,
		"/dev/vda1 / ext4":                                        true,
		"UUID=1 / ext4 defaults":                                  true,
		"LABEL=nixos / btrfs subvol=root":                         true,
		"PARTUUID=1 /boot vfat umask=0077":                        true,
		"/dev/disk/by-label/X /x auto defaults,nofail":            false,
		"/dev/disk/by-label/X /x ext4 noauto,x-systemd.automount": false,
		"/dev/sda2 none swap sw":                                  true,
		"/dev/sda2 none swap sw,nofail":                           false,
		"server:/export /n nfs":                                   true,
		"/dev/sda1 /x none bind":                                  true,
		"x /x none":                                               true,
		"/dev/sda1 / ext4 x-nofail":                               true,
	} {
		mounts, err := bootspec.ParseFstab([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		if got := mounts[0].Foreign(); got != want {
			t.Errorf("Foreign of %q = %v; want %v", line, got, want)
		}
	}
}

func FuzzParseFstab(f *testing.F) {
	f.Add([]byte("tmpfs / tmpfs mode=0755 0 0\n# x\n/dev/a\\0 /b c d,e"))
	f.Fuzz(func(t *testing.T, data []byte) {
		mounts, err := bootspec.ParseFstab(data)
		if err != nil {
			return
		}
		last := 0
		for _, m := range mounts {
			if m.Line <= last || m.Type == "" || m.Text == "" {
				t.Fatalf("%+v after line %d", m, last)
			}
			last = m.Line
			if m.Foreign() && len(m.Options) == 1 && m.Options[0] == "nofail" {
				t.Fatalf("%q is foreign", m.Text)
			}
		}
	})
}
