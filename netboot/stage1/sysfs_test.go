package stage1

import (
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func tree(files map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, data := range files {
		fsys[name] = &fstest.MapFile{Data: []byte(data), Mode: 0o444}
	}
	return fsys
}

// The aliases are those of QEMU's "pc" and "q35" machines and of one real laptop.
func TestModaliases(t *testing.T) {
	t.Parallel()
	const (
		ide     = "pci:v00008086d00007010sv00001AF4sd00001100bc01sc01i80"
		vga     = "pci:v00001234d00001111sv00001AF4sd00001100bc03sc00i00"
		sound   = "pci:v00008086d00002668sv00001AF4sd00001100bc04sc03i00"
		e1000   = "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00"
		vnet    = "pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00"
		xhci    = "pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30"
		xhciLow = "pci:v00001B36d0000000Dsv00001AF4sd00001100bc0csc03i30"
		stick   = "usb:v46F4p0001d0000dc00dsc00dp00ic08isc06ip50in00"
		tablet  = "usb:v0627p0001d0000dc00dsc00dp00ic03isc00ip00in00"
		disk    = "scsi:t-0x00"
		vdNet   = "virtio:d00000001v00001AF4"
		vdBlk   = "virtio:d00000002v00001AF4"
		vdRng   = "virtio:d00000004v00001AF4"
		gpio    = "platform:gpio"
	)
	sys := tree(map[string]string{
		"bus/pci/devices/0000:00:01.0/modalias":  e1000 + "\n",
		"bus/pci/devices/0000:00:02.0/modalias":  vga + "\n",
		"bus/pci/devices/0000:00:03.0/modalias":  sound + "\n",
		"bus/pci/devices/0000:00:04.0/modalias":  xhciLow + "\n",
		"bus/pci/devices/0000:00:05.0/modalias":  vnet + "\n",
		"bus/pci/devices/0000:00:06.0/modalias":  ide + "\n",
		"bus/pci/devices/0000:00:07.0/modalias":  ide + "\n",
		"bus/usb/devices/1-1:1.0/modalias":       stick + "\n",
		"bus/usb/devices/1-2:1.0/modalias":       tablet + "\n",
		"bus/usb/devices/usb1/bDeviceClass":      "09\n",
		"bus/scsi/devices/0:0:0:0/modalias":      disk + "\n",
		"bus/virtio/devices/virtio0/modalias":    vdNet + "\n",
		"bus/virtio/devices/virtio1/modalias":    vdBlk + "\n",
		"bus/virtio/devices/virtio2/modalias":    vdRng + "\n",
		"bus/platform/devices/gpio.0/modalias":   gpio + "\n",
		"bus/serio/devices/serio0/modalias":      "serio:ty06pr00id00ex00\n",
		"devices/elsewhere/modalias":             "pci:never\n",
		"bus/hid/devices/0003:0627.001/modalias": "hid:b0003g0001v00000627p00000001\n",
	})
	want := []string{vnet, ide, vdBlk, vdRng, disk, xhciLow, stick, gpio, e1000, vdNet}
	if diff := cmp.Diff(want, Modaliases(sys)); diff != "" {
		t.Errorf("Modaliases, -want +got:\n%s", diff)
	}
	if aliasRank(xhci) != rankUSB && aliasRank(xhciLow) != rankUSB {
		t.Errorf("aliasRank of an xHCI controller = %d; want %d", aliasRank(xhciLow), rankUSB)
	}
	if got := Modaliases(fstest.MapFS{}); got != nil {
		t.Errorf("Modaliases of an empty tree = %q; want none", got)
	}
}

func TestBlockDevices(t *testing.T) {
	t.Parallel()
	sys := tree(map[string]string{
		"class/block/sr0/size":        "84832\n",
		"class/block/sr1/size":        "0\n",
		"class/block/vda/size":        "32768\n",
		"class/block/vda1/size":       "2048\n",
		"class/block/loop0/size":      "8\n",
		"class/block/ram3/size":       "8\n",
		"class/block/zram0/size":      "8\n",
		"class/block/cciss!c0d0/size": "100\n",
		"class/block/gone/other":      "",
	})
	want := []BlockDevice{{"cciss/c0d0", 100}, {"sr0", 84832}, {"sr1", 0}, {"vda", 32768}, {"vda1", 2048}}
	if diff := cmp.Diff(want, BlockDevices(sys)); diff != "" {
		t.Errorf("BlockDevices, -want +got:\n%s", diff)
	}
}

func TestDisksToCome(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"bus/usb/devices/usb1/bDeviceClass":       "09\n",
		"bus/usb/devices/1-1/bDeviceClass":        "00\n",
		"bus/usb/devices/1-2:1.0/bInterfaceClass": "03\n",
	}
	if !HasUSB(tree(files)) || HasUSB(tree(nil)) {
		t.Error("HasUSB does not tell a machine with USB from one without")
	}
	if DisksToCome(tree(files)) {
		t.Error("a keyboard counts as a disk to come")
	}
	files["bus/usb/devices/1-1:1.0/bInterfaceClass"] = "08\n"
	if !DisksToCome(tree(files)) {
		t.Error("a stick without a block device is not waited for")
	}
	files["bus/usb/devices/1-1:1.0/host2/target2:0:0/2:0:0:0/block/sda/size"] = "100\n"
	if DisksToCome(tree(files)) {
		t.Error("a stick with its block device is still waited for")
	}
}

func TestParseUevent(t *testing.T) {
	t.Parallel()
	msg := "add@/devices/pci0/usb1\x00ACTION=add\x00DEVPATH=/devices/pci0/usb1\x00SUBSYSTEM=usb\x00MODALIAS=usb:v1d6Bp0002\x00SEQNUM=1\x00"
	got, ok := ParseUevent([]byte(msg))
	if want := (Uevent{Action: "add", Subsystem: "usb", Modalias: "usb:v1d6Bp0002"}); !ok || got != want {
		t.Errorf("ParseUevent = %+v, %v; want %+v", got, ok, want)
	}
	for _, bad := range []string{"", "add@/x", "libudev\x00\xfe\xed\xca\xfe", "add@/x\x00SUBSYSTEM=usb\x00"} {
		if got, ok := ParseUevent([]byte(bad)); ok {
			t.Errorf("ParseUevent(%q) = %+v; want none", bad, got)
		}
	}
}

func FuzzParseUevent(f *testing.F) {
	f.Add([]byte("add@/x\x00ACTION=add\x00MODALIAS=a\x00"))
	f.Fuzz(func(t *testing.T, msg []byte) {
		u, ok := ParseUevent(msg)
		if ok && u.Action == "" {
			t.Errorf("ParseUevent(%q) = %+v without an action", msg, u)
		}
		wantedAlias(u.Modalias)
		aliasRank(u.Modalias)
	})
}
