package takeover

import "bytes"

// Offsets in x86's boot parameters ("zero page", Documentation/arch/x86/
// zero-page.rst) and in the header of a bzImage (boot.rst), which are the same.
const (
	offRSDP        = 0x070
	offExtended    = 0x0c0 // upper halves of initrd and command line
	offEFI         = 0x1c0
	offE820Count   = 0x1e8
	offSentinel    = 0x1ef
	offHeader      = 0x1f1 // setup_sects is its first byte
	offJump        = 0x201 // the header ends so many bytes behind 0x202
	offMagic       = 0x202
	offVersion     = 0x206
	offLoader      = 0x210
	offRamdisk     = 0x218
	offRamdiskSize = 0x21c
	offCmdline     = 0x228
	offInitrdMax   = 0x22c
	offAlignment   = 0x230
	offXLoad       = 0x236
	offCmdlineSize = 0x238
	offSetupData   = 0x250
	offPreferred   = 0x258
	offInitSize    = 0x260
	offE820        = 0x2d0
	maxE820        = 128
	e820Size       = 20
	otherLoader    = 0xff
)

// Offsets in the part of the boot parameters about UEFI, struct efi_info.
const (
	efiSystemTable = 0x4 // its upper half at 0x18
	efiEntrySize   = 0x8
	efiMap         = 0x10 // its upper half at 0x1c
	efiMapSize     = 0x14
	efiMapHigh     = 0x1c
	efiInfoSize    = 0x20
)

// Kinds of setup data, arch/x86/include/uapi/asm/bootparam.h.
const (
	setupE820Ext = 1
	setupEFI     = 4
)

// placement is where in memory lies what the boot parameters point to.
type placement struct {
	disk     uint64
	diskSize int64
	cmdline  uint64
	setup    uint64
	efiMap   uint64
}

// fillParams makes the new kernel's boot parameters of the running one's, which
// know screen and firmware.
func (m machineMap) fillParams(page, header []byte, at placement) {
	copy(page[:pageSize], m.params)
	// What the old boot loader placed, perhaps above 4 GiB, is gone.
	clear(page[offExtended : offExtended+12])
	page[offSentinel] = 0
	clear(page[offHeader:offE820])
	copy(page[offHeader:], header[offHeader:])
	page[offLoader] = otherLoader
	le.PutUint32(page[offRamdisk:], uint32(at.disk))
	le.PutUint32(page[offRamdiskSize:], uint32(at.diskSize))
	le.PutUint32(page[offCmdline:], uint32(at.cmdline))
	le.PutUint64(page[offSetupData:], 0)
	if len(m.ranges) > maxE820 || m.efi != nil {
		le.PutUint64(page[offSetupData:], at.setup)
	}
	if m.rsdp != 0 {
		le.PutUint64(page[offRSDP:], m.rsdp)
	}
	clear(page[offE820 : offE820+maxE820*e820Size])
	count := min(len(m.ranges), maxE820)
	page[offE820Count] = byte(count)
	copy(page[offE820:], e820(m.ranges[:count]))
	info := page[offEFI : offEFI+efiInfoSize]
	if m.efi == nil {
		clear(info)
		return
	}
	le.PutUint32(info[efiEntrySize:], efiDescriptorSize)
	le.PutUint32(info[efiMap:], uint32(at.efiMap))
	le.PutUint32(info[efiMapHigh:], uint32(at.efiMap>>32))
	le.PutUint32(info[efiMapSize:], uint32(len(m.efi.runtime)))
}

func e820(ranges []memoryRange) []byte {
	var list []byte
	for _, r := range ranges {
		list = le.AppendUint64(list, r.start)
		list = le.AppendUint64(list, r.end-r.start)
		list = le.AppendUint32(list, r.kind)
	}
	return list
}

// setupData makes the chain of what the boot parameters have no room for, as
// it lies at address at, and the map of UEFI's services behind it. Its length
// does not depend on the address.
func (m machineMap) setupData(at uint64) (data []byte, runtime uint64) {
	type node struct {
		kind uint32
		body []byte
	}
	var chain []node
	if len(m.ranges) > maxE820 {
		chain = append(chain, node{setupE820Ext, e820(m.ranges[maxE820:])})
	}
	if m.efi != nil {
		chain = append(chain, node{setupEFI, m.efi.tables()})
	}
	for i, n := range chain {
		body := append(bytes.Clone(n.body), make([]byte, -len(n.body)&7)...)
		const head = 16
		next := uint64(0)
		if i < len(chain)-1 {
			next = at + uint64(len(data)+head+len(body))
		}
		data = le.AppendUint64(data, next)
		data = le.AppendUint32(data, n.kind)
		data = le.AppendUint32(data, uint32(len(n.body)))
		data = append(data, body...)
	}
	if m.efi != nil {
		runtime = at + uint64(len(data))
		data = append(data, m.efi.runtime...)
	}
	return data, runtime
}
