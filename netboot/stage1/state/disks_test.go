package state

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// machine is the part of /sys that tells disks, as Linux 6.1 has it for one disk
// of each kind.
func machine() fstest.MapFS {
	sys := fstest.MapFS{}
	file := func(name, data string) { sys[name] = &fstest.MapFile{Data: []byte(data), Mode: 0o444} }
	block := func(dir, sectors string) {
		name := dir[strings.LastIndex(dir, "/")+1:]
		sys["class/block/"+name] = &fstest.MapFile{Data: []byte("../../" + dir), Mode: fs.ModeSymlink | 0o777}
		file(dir+"/size", sectors+"\n")
		file(dir+"/ro", "0\n")
	}
	const pci = "devices/pci0000:00/"
	block(pci+"0000:00:04.0/virtio1/block/vda", "2097152")
	file(pci+"0000:00:04.0/virtio1/block/vda/serial", "state-1")
	file(pci+"0000:00:04.0/virtio1/block/vda/queue/logical_block_size", "512\n")
	block(pci+"0000:00:04.0/virtio1/block/vda/vda1", "2000000")
	file(pci+"0000:00:04.0/virtio1/block/vda/vda1/partition", "1\n")
	file(pci+"0000:00:04.0/virtio1/block/vda/vda1/uevent", "MAJOR=254\nDEVNAME=vda1\nDEVTYPE=partition\nPARTN=1\nPARTNAME=XNODE-STATE\n")
	block(pci+"0000:00:01.0/0000:01:00.0/nvme/nvme0/nvme0n1", "1000")
	file(pci+"0000:00:01.0/0000:01:00.0/nvme/nvme0/serial", "S6PXNJ0R         \n")
	file(pci+"0000:00:01.0/0000:01:00.0/nvme/nvme0/nvme0n1/wwid", "eui.0025385b71b00001\n")
	file(pci+"0000:00:01.0/0000:01:00.0/nvme/nvme0/nvme0n1/queue/logical_block_size", "4096\n")
	for i, d := range []struct{ name, serial, wwid string }{{"sda", "WD-WCC1", "naa.50014ee2b0000001"}, {"sdb", "TWIN", "t10.ATA     X"}, {"sdc", "TWIN", ""}} {
		dir := pci + "0000:00:1f.2/ata" + string(rune('1'+i)) + "/host0/target0:0:0/0:0:0:0"
		block(dir+"/block/"+d.name, "4000")
		file(dir+"/vpd_pg80", "\x00\x80\x00\x08  "+d.serial)
		file(dir+"/wwid", d.wwid+"\n")
	}
	block(pci+"0000:00:14.0/usb1/1-2/1-2:1.0/host9/target9:0:0/9:0:0:0/block/sdd", "4000")
	file(pci+"0000:00:14.0/usb1/1-2/serial", "AA0 7\n")
	file(pci+"0000:00:14.0/usb1/serial", "0000:00:14.0\n")
	block("devices/pci0000:00/0000:00:15.0/usb2/2-1/host8/block/sde", "4000")
	file("devices/pci0000:00/0000:00:15.0/usb2/serial", "0000:00:15.0\n")
	block("devices/virtual/block/loop0", "4000")
	block("devices/pci0000:00/0000:00:1f.2/ata9/host1/target1:0:0/1:0:0:0/block/sr0", "4000")
	block("devices/pci0000:00/0000:00:1f.3/mmc0:0001/block/mmcblk0", "0") // no medium
	return sys
}

func TestListDisks(t *testing.T) {
	t.Parallel()
	got := ListDisks(machine())
	sata := Disk{Sectors: 4000, SectorSize: 512, PCI: "0000:00:1f.2"}
	sda, sdb, sdc := sata, sata, sata
	sda.Name, sda.Serial, sda.WWN = "sda", "WD-WCC1", "0x50014ee2b0000001"
	sdb.Name, sdb.Serial = "sdb", "TWIN"
	sdc.Name, sdc.Serial = "sdc", "TWIN"
	want := []Disk{
		{Name: "nvme0n1", Sectors: 1000, Serial: "S6PXNJ0R", WWN: "eui.0025385b71b00001", PCI: "0000:01:00.0", SectorSize: 4096},
		sda, sdb, sdc,
		{Name: "sdd", Sectors: 4000, Serial: "AA0 7", PCI: "0000:00:14.0", SectorSize: 512},
		{Name: "sde", Sectors: 4000, PCI: "0000:00:15.0", SectorSize: 512},
		{Name: "vda", Sectors: 2097152, Serial: "state-1", PCI: "0000:00:04.0", SectorSize: 512},
		{Name: "vda1", Sectors: 2000000, Parent: "vda", Number: 1, Label: "XNODE-STATE", Serial: "state-1", PCI: "0000:00:04.0", SectorSize: 512},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ListDisks (-want +got):\n%s", diff)
	}
	if got := ListDisks(fstest.MapFS{}); got != nil {
		t.Errorf("ListDisks of nothing = %v", got)
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	disks := ListDisks(machine())
	for name, want := range map[string]string{
		"vda": "vda", "/dev/vda": "vda", "vda1": "vda1", "/dev/nvme0n1": "nvme0n1",
		"serial:state-1": "vda", "serial:state-1-part1": "vda1", "serial:AA0_7": "sdd",
		"/dev/disk/by-id/virtio-state-1":                   "vda",
		"/dev/disk/by-id/virtio-state-1-part1":             "vda1",
		"/dev/disk/by-id/ata-WDC_WD10EZEX-00BN5A0_WD-WCC1": "sda",
		"/dev/disk/by-id/wwn-0x50014ee2b0000001":           "sda",
		"/dev/disk/by-id/nvme-Samsung_SSD_980_S6PXNJ0R":    "nvme0n1",
		"/dev/disk/by-id/nvme-eui.0025385b71b00001":        "nvme0n1",
		"/dev/disk/by-id/usb-Maker_Stick_AA0_7":            "sdd",
		"/dev/disk/by-path/pci-0000:00:04.0":               "vda",
		"/dev/disk/by-path/pci-0000:00:04.0-part1":         "vda1",
		"/dev/disk/by-path/pci-0000:01:00.0":               "nvme0n1",
		"vdb":                                              "none: no such disk",
		"sr0":                                              "none: no such disk",
		"serial:":                                          "none: no such disk",
		"serial:TATE-1":                                    "none: no such disk",
		"serial:state-1-part2":                             "none: no such disk",
		"/dev/disk/by-id/virtio-tate-1":                    "none: no such disk",
		"/dev/disk/by-id/plain":                            "none: no such disk",
		"serial:TWIN":                                      "none: may be any of /dev/sdb (serial TWIN), /dev/sdc (serial TWIN); name one",
		"/dev/disk/by-path/pci-0000:00:1f.2":               "none: may be any of",
	} {
		got, err := Find(disks, name)
		if reason, bad := strings.CutPrefix(want, "none: "); bad {
			if err == nil || !strings.Contains(err.Error(), reason) || errors.Is(err, ErrNotThere) != (reason == "no such disk") {
				t.Errorf("Find(%q) = %v, %v; want the error %q", name, got, err, reason)
			}
			continue
		}
		if err != nil || got.Name != want {
			t.Errorf("Find(%q) = %v, %v; want %s", name, got, err, want)
		}
	}
}
