package kmod

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"
)

var update = flag.Bool("update", false, "write golden files anew")

// debian returns the index files of Debian 12's kernel 6.1.0-56-amd64 as
// depmod left them: 4023 modules, 26222 aliases.
func debian(tb testing.TB) fstest.MapFS {
	tb.Helper()
	files := fstest.MapFS{}
	for _, name := range []string{"modules.dep", "modules.alias", "modules.softdep", "modules.builtin"} {
		packed, err := os.ReadFile(filepath.Join("testdata", "debian-6.1", name+".xz"))
		if err != nil {
			tb.Fatal(err)
		}
		r, err := xz.NewReader(bytes.NewReader(packed))
		if err != nil {
			tb.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			tb.Fatal(err)
		}
		files[name] = &fstest.MapFile{Data: data}
	}
	return files
}

func debianIndex(tb testing.TB) *Index {
	tb.Helper()
	x, err := Open(debian(tb))
	if err != nil {
		tb.Fatal(err)
	}
	return x
}

// TestFirstStageOfDebian keeps the choice for a full distribution kernel in a
// file that a change of the policy shows up in.
func TestFirstStageOfDebian(t *testing.T) {
	t.Parallel()
	x := debianIndex(t)
	mods, err := x.FirstStage()
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	loadable := make(map[string]bool)
	for _, m := range mods {
		for _, dep := range x.modules[m.Name].deps {
			if !loadable[dep] && !x.builtin[dep] {
				t.Errorf("%s comes before %s, which it needs", m.Name, dep)
			}
		}
		loadable[m.Name] = true
		paths = append(paths, m.Path)
		for _, bad := range []string{"/sound/", "/gpu/", "/media/", "/video/", "/infiniband/", "/wireless/", "/bluetooth/"} {
			if strings.Contains(m.Path, bad) {
				t.Errorf("%s is in the first stage", m.Path)
			}
		}
	}
	slices.Sort(paths)
	got := strings.Join(paths, "\n") + "\n"
	golden := filepath.Join("testdata", "debian-6.1", "first-stage.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("modules of the first stage (-golden +got):\n%s", diff)
	}
}

// TestDebianDevices has the modaliases of real devices; each must find its
// driver, and the driver must be in the first stage.
func TestDebianDevices(t *testing.T) {
	t.Parallel()
	x := debianIndex(t)
	mods, err := x.FirstStage()
	if err != nil {
		t.Fatal(err)
	}
	chosen := make(map[string]bool)
	for _, m := range mods {
		chosen[m.Name] = true
	}
	for _, test := range []struct{ what, modalias, want string }{
		{"virtio block, PCI", "pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00", "virtio_pci"},
		{"virtio block", "virtio:d00000002v00001AF4", "virtio_blk"},
		{"virtio net", "virtio:d00000001v00001AF4", "virtio_net"},
		{"virtio SCSI", "virtio:d00000008v00001AF4", "virtio_scsi"},
		{"virtio RNG", "virtio:d00000004v00001AF4", "virtio_rng"},
		{"Q35 AHCI", "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01", "ahci"},
		{"PIIX IDE", "pci:v00008086d00007010sv00001AF4sd00001100bc01sc01i80", "ata_piix"},
		{"e1000", "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00", "e1000"},
		{"e1000e", "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00", "e1000e"},
		{"NVMe", "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02", "nvme"},
		{"xHCI", "pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30", "xhci_pci"},
		{"EHCI", "pci:v00008086d000024CDsv00001AF4sd00001100bc0Csc03i20", "ehci_pci"},
		{"UHCI", "pci:v00008086d00007020sv00001AF4sd00001100bc0Csc03i00", "uhci_hcd"},
		{"USB disk", "usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00", "usb_storage"},
		{"USB keyboard", "usb:v0627p0001d0000dc00dsc00dp00ic03isc01ip01in00", "usbhid"},
		{"USB network", "usb:v0BDAp8153d3100dc00dsc00dp00icFFiscFFip00in00", "r8152"},
		{"SCSI disk", "scsi:t-0x00", "sd_mod"},
		{"SCSI CD", "scsi:t-0x05", "sr_mod"},
		{"X710", "pci:v00008086d00001572sv00008086sd00000001bc02sc00i00", "i40e"},
		{"ConnectX-5", "pci:v000015B3d00001017sv000015B3sd00000020bc02sc00i00", "mlx5_core"},
		{"BCM57416", "pci:v000014E4d000016D8sv000014E4sd00004160bc02sc00i00", "bnxt_en"},
		{"RTL8168", "pci:v000010ECd00008168sv00001849sd00008168bc02sc00i00", "r8169"},
		{"AWS ENA", "pci:v00001D0Fd0000EC20sv00001D0Fsd0000EC20bc02sc00i00", "ena"},
		{"Hyper-V disk", "vmbus:d96361baa104294db60572e2ffb1dc7f", "hv_storvsc"},
		{"Hyper-V network", "vmbus:635161f83edfc546913ff2d2f965ed0e", "hv_netvsc"},
		{"Xen disk", "xen:vbd", "xen_blkfront"},
		{"VMware PVSCSI", "pci:v000015ADd000007C0sv000015ADsd000007C0bc01sc07i00", "vmw_pvscsi"},
		{"VMXNET3", "pci:v000015ADd000007B0sv000015ADsd000007B0bc02sc00i00", "vmxnet3"},
		{"MegaRAID", "pci:v00001000d0000005Dsv00001000sd00009361bc01sc04i00", "megaraid_sas"},
		{"SD card", "mmc:block", "mmc_block"},
		{"MANA", "pci:v00001414d000000BAsv00001414sd00000000bc02sc00i00", "mana"},
		{"gVNIC", "pci:v00001AE0d00000042sv00001AE0sd00000058bc02sc00i00", "gve"},
	} {
		if got := x.Match(test.modalias); !slices.Contains(got, test.want) {
			t.Errorf("%s: Match(%q) = %q; want %q among them", test.what, test.modalias, got, test.want)
		}
		if !chosen[test.want] {
			t.Errorf("%s: %s is not in the first stage", test.what, test.want)
		}
	}
}

func TestFirstStageNeedsSome(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"squashfs", "overlay", "loop"} {
		files := debian(t)
		var kept []string
		for line := range strings.Lines(string(files["modules.dep"].Data)) {
			if !strings.Contains(line[:strings.Index(line, ":")], "/"+name+".ko") {
				kept = append(kept, line)
			}
		}
		files["modules.dep"] = &fstest.MapFile{Data: []byte(strings.Join(kept, ""))}
		x, err := Open(files)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := x.FirstStage(); err == nil || !strings.Contains(err.Error(), `kernel module "`+name+`" is missing`) {
			t.Errorf("FirstStage without %s: %v", name, err)
		}
		files["modules.builtin"] = &fstest.MapFile{Data: []byte("kernel/" + name + ".ko\n")}
		if x, err = Open(files); err != nil {
			t.Fatal(err)
		}
		if _, err := x.FirstStage(); err != nil {
			t.Errorf("FirstStage with %s built in: %v", name, err)
		}
	}
}

func TestFirstStageRefusesDisplays(t *testing.T) {
	t.Parallel()
	x := open(t, `kernel/fs/squashfs.ko:
kernel/fs/overlay.ko:
kernel/drivers/block/loop.ko:
kernel/drivers/gpu/drm/drm.ko:
kernel/drivers/net/ethernet/odd/odd.ko: kernel/drivers/gpu/drm/drm.ko
`, "", "softdep loop pre: drm\n", "")
	if _, err := x.FirstStage(); err == nil || !strings.Contains(err.Error(), `"loop" needs a module for displays`) {
		t.Errorf("a needed module that drags a display in: %v", err)
	}
	x = open(t, `kernel/fs/squashfs.ko:
kernel/fs/overlay.ko:
kernel/drivers/block/loop.ko:
kernel/drivers/gpu/drm/drm.ko:
kernel/drivers/net/ethernet/odd/odd.ko: kernel/drivers/gpu/drm/drm.ko
`, "", "", "")
	mods, err := x.FirstStage()
	if err != nil || strings.Contains(names(mods), "drm") || strings.Contains(names(mods), "odd") {
		t.Errorf("FirstStage = %s, %v; want neither odd nor drm", names(mods), err)
	}
}

// TestMatchIsFast bounds what a machine with 60 devices costs; the limit is 20
// times what it takes, to hold on a busy machine too.
func TestMatchIsFast(t *testing.T) {
	x := debianIndex(t)
	start := time.Now()
	for range 60 {
		x.Match("pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00")
	}
	if took := time.Since(start); took > 500*time.Millisecond {
		t.Errorf("60 devices took %v", took)
	}
}

func BenchmarkOpen(b *testing.B) {
	files := debian(b)
	for b.Loop() {
		if _, err := Open(files); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	x := debianIndex(b)
	for b.Loop() {
		x.Match("pci:v00001AF4d00001001sv00001AF4sd00000002bc01sc00i00")
	}
}
