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
)

// Formats lists what ParseFormats accepts.
var formats = []Format{ISO, Netboot}

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
			return nil, fmt.Errorf("format %q is not one of iso, netboot", w)
		}
	}
	if len(picked) == 0 {
		return nil, fmt.Errorf("no format named; choose from iso, netboot")
	}
	return picked, nil
}

// Options are the choices of the person who builds.
type Options struct {
	Formats      []Format
	EmbedPayload bool   // netboot: also write payload.cpio, a second initrd
	Sequence     uint32 // release number that the manifest names
	Time         int64  // Unix seconds that the manifest and all files carry
}

// Validate says what is wrong with the options.
func (o Options) Validate() error {
	switch {
	case len(o.Formats) == 0:
		return fmt.Errorf("no format named; choose from iso, netboot")
	case o.EmbedPayload && !slices.Contains(o.Formats, Netboot):
		return fmt.Errorf("--embed-payload belongs to the netboot tree; add netboot to --format")
	case o.Time < 0 || o.Time > maxTime:
		return fmt.Errorf("time %d is outside 0 (1970) to %d (2100)", o.Time, int64(maxTime))
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
)

// loaderPackages tells which Debian package brings which loader, for the
// message when one is missing.
var loaderPackages = map[string]string{
	blobIsolinux:    "isolinux",
	blobLdlinux:     "syslinux-common",
	blobIsohdpfx:    "isolinux",
	blobSystemdBoot: "systemd-boot-efi",
}

// LoaderNames lists the loaders that a format needs.
func LoaderNames(f Format) []string {
	if f == ISO {
		return []string{blobIsohdpfx, blobIsolinux, blobLdlinux, blobSystemdBoot}
	}
	return nil
}

// MissingLoader is the error for a loader that was not found.
func MissingLoader(name string, looked []string) error {
	return fmt.Errorf("boot loader %s not found in %s; it comes with Debian's package %s: run scripts/setup, or name its folder with --boot-dir",
		name, strings.Join(looked, ", "), loaderPackages[name])
}
