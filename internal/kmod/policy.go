package kmod

import (
	"fmt"
	"slices"
	"strings"
)

// MissingError says that the kernel lacks what the first stage cannot do
// without: it is neither a module nor built in.
type MissingError struct{ Name, Purpose string }

func (e *MissingError) Error() string {
	return fmt.Sprintf("kernel module %q is missing: neither a module nor built in, but the first stage needs it for %s; "+
		"add it to the kernel or to the module folder of the system", e.Name, e.Purpose)
}

type need struct{ name, purpose string }

// needed is what every live boot uses, whatever the machine.
var needed = []need{
	{"squashfs", "the payload"},
	{"overlay", "the writable store above the payload"},
	{"loop", "a payload that is a file on a medium"},
}

// folders are taken whole, by their path below kernel/; what begins with "!"
// is taken out again. Only devices decide what is loaded in the end: this is
// what may be asked for by any machine. GPU and sound never are: no driver of
// theirs helps to reach a payload, and each is a way to hang.
//
// Left out on purpose: Fibre Channel, iSCSI and InfiniBand (the first stage
// reads local media and HTTP), switch chips and PCMCIA.
var folders = []string{
	"drivers/ata/", "!drivers/ata/pata_legacy", "!drivers/ata/pata_pcmcia",
	"drivers/scsi/",
	"!drivers/scsi/device_handler/", "!drivers/scsi/pcmcia/", "!drivers/scsi/fcoe/", "!drivers/scsi/fnic/", "!drivers/scsi/libfc/",
	"!drivers/scsi/bfa/", "!drivers/scsi/bnx2fc/", "!drivers/scsi/bnx2i/", "!drivers/scsi/be2iscsi/", "!drivers/scsi/csiostor/",
	"!drivers/scsi/cxgbi/", "!drivers/scsi/cxlflash/", "!drivers/scsi/elx/", "!drivers/scsi/lpfc/", "!drivers/scsi/qedf/",
	"!drivers/scsi/qedi/", "!drivers/scsi/qla2xxx/", "!drivers/scsi/qla4xxx/", "!drivers/scsi/snic/", "!drivers/scsi/iscsi",
	"!drivers/scsi/libiscsi", "!drivers/scsi/scsi_debug", "!drivers/scsi/scsi_transport_fc", "!drivers/scsi/scsi_transport_iscsi",
	"!drivers/scsi/scsi_transport_srp", "!drivers/scsi/ch.", "!drivers/scsi/st.", "!drivers/scsi/sg.", "!drivers/scsi/ses.",
	"!drivers/scsi/dmx3191d", "!drivers/scsi/qlogicfas408",
	"drivers/message/fusion/", "!drivers/message/fusion/mptfc", "!drivers/message/fusion/mptlan", "!drivers/message/fusion/mptctl",
	"drivers/mmc/", "!drivers/mmc/core/sdio_uart", "!drivers/mmc/host/sdricoh_cs",
	"drivers/ufs/host/ufshcd-pci", "drivers/usb/storage/",
	"drivers/net/ethernet/", "!drivers/net/ethernet/broadcom/cnic",
	"!drivers/net/ethernet/mellanox/mlxsw/", "!drivers/net/ethernet/marvell/prestera/", "!drivers/net/ethernet/mscc/",
	"!drivers/net/ethernet/xircom/", "!drivers/net/ethernet/fujitsu/", "!drivers/net/ethernet/8390/axnet_cs",
	"!drivers/net/ethernet/8390/pcnet_cs", "!drivers/net/ethernet/smsc/smc91c92_cs", "!drivers/net/ethernet/3com/3c574_cs",
	"!drivers/net/ethernet/3com/3c589_cs", "!drivers/net/ethernet/amd/nmclan_cs",
	"drivers/net/phy/", "drivers/net/hyperv/", "drivers/net/vmxnet3/",
}

// modules are taken by name.
var modules = []string{
	// Buses and hosts of virtual machines, and bridges that disks hide behind.
	"virtio", "virtio_pci", "virtio_mmio", "hv_vmbus", "hv_storvsc", "hv_netvsc", "pci_hyperv", "vmd",
	// Disks and media.
	"virtio_blk", "nvme", "xen_blkfront", "loop", "sd_mod", "sr_mod", "cdrom", "mtip32xx", "dm_mod", "dm_verity",
	// File systems.
	"overlay", "squashfs", "isofs", "ext4", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859_1", "nls_utf8", "efivarfs",
	// Network.
	"virtio_net", "xen_netfront", "bonding", "8021q", "ipv6", "af_packet", "unix",
	"usbnet", "cdc_ether", "cdc_ncm", "cdc_eem", "rndis_host", "asix", "ax88179_178a", "aqc111", "r8152", "r8153_ecm",
	"smsc75xx", "smsc95xx", "lan78xx", "dm9601", "mcs7830", "sr9700", "rtl8150", "pegasus",
	// USB hosts and hubs.
	"usbcore", "xhci_hcd", "xhci_pci", "xhci_pci_renesas", "ehci_hcd", "ehci_pci", "uhci_hcd", "ohci_hcd", "ohci_pci",
	// Keyboards. hid_generic takes a keyboard whose own driver is not there.
	"hid", "hid_generic", "usbhid", "hid_hyperv", "hyperv_keyboard", "atkbd", "i8042",
	// Randomness: Go waits for it.
	"virtio_rng", "amd_rng", "intel_rng", "via_rng", "tpm_rng",
	// Checksums that drivers and file systems ask for by alias, and SHA-256 for dm-verity.
	"crc32c_generic", "crc32c_intel", "crc32_generic", "crc32_pclmul", "crct10dif_generic", "crct10dif_pclmul", "libcrc32c",
	"sha256_generic", "sha256_ssse3",
}

// forbidden folders must not come in as a dependency either.
var forbidden = []string{"sound/", "drivers/gpu/", "drivers/media/", "drivers/video/", "drivers/infiniband/"}

// FirstStage returns all modules that the first stage may need on any machine,
// with their dependencies, in an order in which they could be loaded. What a
// kernel does not have is left out, except for the few that every live boot
// uses: a lack of those is a *MissingError.
func (x *Index) FirstStage() ([]Module, error) {
	for _, n := range needed {
		if !x.Has(n.name) {
			return nil, &MissingError{Name: n.name, Purpose: n.purpose}
		}
	}
	var names []string
	for _, name := range x.Names() {
		if inFolders(below(x.modules[name].Path)) {
			names = append(names, name)
		}
	}
	for _, name := range modules {
		if _, ok := x.Lookup(name); ok {
			names = append(names, name)
		}
	}
	r := newResolver(x)
	for _, name := range names {
		with, err := x.Resolve(name)
		if err != nil {
			return nil, fmt.Errorf("choose modules of the first stage: %w", err)
		}
		if isForbidden(with) {
			if slices.ContainsFunc(needed, func(n need) bool { return n.name == name }) {
				return nil, fmt.Errorf("choose modules of the first stage: %q needs a module for displays, sound or InfiniBand: %s", name, paths(with))
			}
			continue
		}
		if err := r.visit(name, false); err != nil {
			return nil, fmt.Errorf("choose modules of the first stage: %w", err)
		}
	}
	return r.modules(), nil
}

func inFolders(file string) bool {
	in := false
	for _, prefix := range folders {
		if out, not := strings.CutPrefix(prefix, "!"); not {
			if strings.HasPrefix(file, out) {
				return false
			}
		} else if strings.HasPrefix(file, prefix) {
			in = true
		}
	}
	return in
}

// below cuts off where a module tree begins: "kernel/", or another folder for
// modules that were built outside of the kernel's own tree.
func below(file string) string {
	_, rest, ok := strings.Cut(file, "/")
	if !ok {
		return file
	}
	return rest
}

func paths(mods []Module) string {
	var all []string
	for _, m := range mods {
		all = append(all, m.Path)
	}
	return strings.Join(all, ", ")
}

func isForbidden(mods []Module) bool {
	for _, m := range mods {
		for _, prefix := range forbidden {
			if strings.HasPrefix(below(m.Path), prefix) {
				return true
			}
		}
	}
	return false
}
