package imagebuild

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"xnodeos.org/internal/bootspec"
	"xnodeos.org/internal/kmod"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nodeconfig"
)

// Format is one way of booting that Write can make.
type Format string

// The formats of this release, in the order in which they are written.
const (
	ISO     Format = "iso"     // hybrid ISO: BIOS and UEFI, as CD and as disk
	Netboot Format = "netboot" // folder that any HTTP server can serve
	UKI     Format = "uki"     // one EFI program with kernel and initrd, no payload
	Raw     Format = "raw"     // disk image: BIOS and UEFI, payload in a partition
	// Takeover is a program that replaces a running Linux by kexec.
	Takeover Format = "takeover"
)

// formats is what ParseFormats accepts, in the order of writing.
var formats = []Format{ISO, Netboot, UKI, Raw, Takeover}

// FormatNames lists the formats for messages and completion.
func FormatNames() []string {
	names := make([]string, len(formats))
	for i, f := range formats {
		names[i] = string(f)
	}
	return names
}

// ParseFormats reads a list of formats from the command line. Order and
// repetition do not matter.
func ParseFormats(words []string) ([]Format, error) {
	var picked []Format
	for _, f := range formats {
		if slices.Contains(words, string(f)) {
			picked = append(picked, f)
		}
	}
	for _, w := range words {
		if !slices.Contains(formats, Format(w)) {
			return nil, fmt.Errorf("format %q is not one of %s", w, strings.Join(FormatNames(), ", "))
		}
	}
	if len(picked) == 0 {
		return nil, errNoFormat()
	}
	return picked, nil
}

func errNoFormat() error {
	return fmt.Errorf("no format named; choose from %s", strings.Join(FormatNames(), ", "))
}

// Options are the choices of the person who builds.
type Options struct {
	Formats      []Format
	EmbedPayload bool     // netboot: also write payload.cpio, a second initrd
	PayloadURLs  []string // uki, takeover: folders to fetch the payload from, in order
	Sequence     uint32   // release number that the manifest names
	Time         int64    // Unix seconds that the manifest and all files carry
}

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	switch {
	case len(o.Formats) == 0:
		return errNoFormat()
	case o.EmbedPayload && !slices.Contains(o.Formats, Netboot):
		return fmt.Errorf("--embed-payload belongs to the netboot tree; add netboot to --format")
	case o.Time < 0 || o.Time > maxTime:
		return fmt.Errorf("time %d is outside 0 (1970) to %d (2100)", o.Time, int64(maxTime))
	case len(o.PayloadURLs) > 0 && !slices.Contains(o.Formats, UKI) && !slices.Contains(o.Formats, Takeover):
		return fmt.Errorf("--payload-url belongs to the unified kernel image and the takeover program; add uki or takeover to --format")
	}
	for _, u := range o.PayloadURLs {
		if err := checkPayloadURL(u); err != nil {
			return err
		}
	}
	return nil
}

// maxTime is 2100-01-01: an ISO 9660 record holds a year as one byte from
// 1900, and FAT ends in 2107.
const maxTime = 4102444800

// Inputs is everything that a build reads, already read or found.
type Inputs struct {
	System     *bootspec.System
	Store      nix.Store
	Closure    []nix.PathInfo     // of System, sorted by path
	Kernel     Blob               // the system's kernel image
	Modules    ModuleSet          // what the first stage may load
	Init       Blob               // xnode-init
	Takeover   Blob               // xnode-takeover, for that format
	Loaders    map[string]Blob    // boot loaders by the names in LoaderNames
	NodeConfig *nodeconfig.Config // nil: none
}

// Blob is a file that is small enough to be held in memory.
type Blob struct {
	Path string // where it was read, for messages
	Data []byte
}

// ModuleSet is the part of a system's kernel modules that goes into the
// initramfs, in the order in which kmod lists it.
type ModuleSet struct {
	Version  string        // kernel version, the folder's name below lib/modules
	Source   string        // store path of the modules; names the set in caches
	FS       fs.FS         // rooted at lib/modules/<version>
	Index    *kmod.Index   // of FS
	Modules  []kmod.Module // what the first stage may need
	Firmware fs.FS         // rooted at lib/firmware; nil: the system has none
}

// Names of the boot loaders, each with where it comes from.
const (
	blobIsolinux    = "isolinux.bin"
	blobLdlinux     = "ldlinux.c32"
	blobIsohdpfx    = "isohdpfx.bin"
	blobSystemdBoot = "systemd-bootx64.efi"
	blobStub        = "linuxx64.efi.stub"
	blobGRUBBoot    = "grub-boot.img"
	blobGRUBCore    = "grub-core.img"
)

// loaderPackages tells which Debian package brings which loader, for the
// message when one is missing.
var loaderPackages = map[string]string{
	blobIsolinux:    "isolinux",
	blobLdlinux:     "syslinux-common",
	blobIsohdpfx:    "isolinux",
	blobSystemdBoot: "systemd-boot-efi",
	blobStub:        "systemd-boot-efi",
	blobGRUBBoot:    "grub-pc-bin",
	blobGRUBCore:    "grub-pc-bin",
}

// LoaderNames lists the loaders that a format needs.
func LoaderNames(f Format) []string {
	switch f {
	case ISO:
		return []string{blobIsohdpfx, blobIsolinux, blobLdlinux, blobSystemdBoot}
	case UKI:
		return []string{blobStub}
	case Raw:
		return []string{blobGRUBBoot, blobGRUBCore, blobSystemdBoot}
	default:
		return nil
	}
}

// MissingLoader is the error for a loader that was not found.
func MissingLoader(name string, looked []string) error {
	return fmt.Errorf("boot loader %s not found in %s; it comes with Debian's package %s: run scripts/setup, or name its folder with --boot-dir",
		name, strings.Join(looked, ", "), loaderPackages[name])
}
