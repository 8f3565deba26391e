package qemu

import (
	"strings"
	"testing"

	"xnodeos.org/internal/vm"
)

// TestArtifactRaw boots the disk image under both firmwares: GRUB under BIOS,
// systemd-boot under UEFI, the payload from the disk's own partition.
func TestArtifactRaw(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	for _, firmware := range []vm.Firmware{vm.BIOS, vm.UEFI} {
		t.Run(string(firmware), func(t *testing.T) {
			n, line := scenario{firmware: firmware, as: vm.Disk, iso: img.raw}.boot(t, img, ready, stageFailed, kernelPanic)
			facts := n.checkUp(t, line, extra{})
			if record := parseBootRecord(t, facts["record"]); !strings.HasSuffix(record.Medium, "3") {
				t.Errorf("the payload came from %q; want the disk's third partition", record.Medium)
			}
		})
	}
}

// TestArtifactVerity has the kernel check each block of the payload as it is
// read, and reads all of it.
func TestArtifactVerity(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	n, line := scenario{append: "xnode.verify=blocks"}.boot(t, img, ready, stageFailed, kernelPanic)
	n.checkUp(t, line, extra{verifyStore: true})
	mounts := n.facts(t, map[string]string{"mounts": "grep ' squashfs ' /proc/mounts"})["mounts"]
	if !strings.HasPrefix(mounts, "/dev/dm-") && !strings.HasPrefix(mounts, "/dev/mapper/") {
		t.Errorf("the payload is mounted as %q; want a device of the device mapper", mounts)
	}
}
