package imagebuild

import (
	"crypto/sha256"
	"io"
	"os"

	"xnodeos.org/imagebuild/iso"
)

// Names on the ISO and in its EFI system partition.
const (
	isoVolumeID = "XNODEOS"
	isoESP      = "efi.img"
	isoKernel   = "boot/vmlinuz"
	isoInitrd   = "boot/initrd"
	isoLoader   = "isolinux/isolinux.bin"
	isoLdlinux  = "isolinux/ldlinux.c32"
	isoConfig   = "isolinux/isolinux.cfg"
	isoManifest = "xnode/manifest.json"
	isoPayload  = "xnode/system.squashfs"

	espLoader  = "EFI/BOOT/BOOTX64.EFI"
	espKernel  = "EFI/xnodeos/vmlinuz"
	espInitrd  = "EFI/xnodeos/initrd"
	espMenu    = "loader/loader.conf"
	espEntry   = "loader/entries/xnodeos.conf"
	espMenuTxt = "timeout 0\neditor yes\n"
)

// isolinuxConfig boots at once; a key held down gives the boot: prompt.
func isolinuxConfig(cmdline string) string {
	return "SERIAL 0 115200\nDEFAULT xnodeos\nPROMPT 0\nTIMEOUT 0\n" +
		"LABEL xnodeos\n  KERNEL /" + isoKernel + "\n  INITRD /" + isoInitrd + "\n  APPEND " + cmdline + "\n"
}

// bootEntry is a type 1 entry of the Boot Loader Specification.
func bootEntry(label, cmdline string) string {
	return "title XnodeOS " + label + "\nlinux /" + espKernel + "\ninitrd /" + espInitrd + "\noptions " + cmdline + "\n"
}

// isoParts is what an ISO is put together from, and what Inspect takes it
// apart into: the same function makes the layout of both.
type isoParts struct {
	label, cmdline string // cmdline with xnode.manifest
	time           int64
	digest         string // of the manifest
	manifestRaw    []byte
	kernel, initrd []byte
	loaders        map[string][]byte
	payloadSize    int64
	openPayload    func() (io.ReadCloser, error)
}

// layout decides every byte of the ISO. The identifiers of disk and partition
// are derived from everything that the manifest does not cover (the manifest
// itself, node config, loaders, configuration): they seal it.
func (p *isoParts) layout() (*iso.Layout, error) {
	loader := iso.UnpatchedLoader(p.loaders[blobIsolinux])
	mbr := p.loaders[blobIsohdpfx]
	config, entry := isolinuxConfig(p.cmdline), bootEntry(p.label, p.cmdline)
	return iso.New(iso.Spec{
		VolumeID: isoVolumeID,
		Time:     p.time,
		IDs: iso.DeriveIDs(seal(p.manifestRaw, p.kernel, p.initrd, loader, p.loaders[blobLdlinux], mbr,
			p.loaders[blobSystemdBoot], []byte(config), []byte(entry), []byte(espMenuTxt))),
		Loader: iso.Bytes(isoLoader, loader),
		MBR:    mbr,
		First: []iso.File{
			iso.Bytes(isoConfig, []byte(config)),
			iso.Bytes(isoLdlinux, p.loaders[blobLdlinux]),
		},
		ESPName: isoESP,
		ESP: []iso.File{
			iso.Bytes(espLoader, p.loaders[blobSystemdBoot]),
			iso.Bytes(espMenu, []byte(espMenuTxt)),
			iso.Bytes(espEntry, []byte(entry)),
			iso.Bytes(espKernel, p.kernel),
			iso.Bytes(espInitrd, p.initrd),
		},
		Shared: []iso.Shared{{Name: isoKernel, ESP: espKernel}, {Name: isoInitrd, ESP: espInitrd}},
		Files: []iso.File{
			iso.Bytes(isoManifest, p.manifestRaw),
			{Name: isoPayload, Size: p.payloadSize, Open: p.openPayload},
		},
	})
}

// seal is one hash of several parts, each at its place.
func seal(parts ...[]byte) [sha256.Size]byte {
	h := sha256.New()
	for _, part := range parts {
		sum := sha256.Sum256(part)
		h.Write(sum[:])
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// writeISO streams the ISO into the set.
func (p *Plan) writeISO(w *setWriter, made *parts, progress Progress) error {
	loaders := map[string][]byte{}
	for name, blob := range made.loaders {
		loaders[name] = blob.Data
	}
	ip := &isoParts{
		label: p.Label, cmdline: cmdlineWithManifest(p.Cmdline, made.digest), time: p.Time,
		digest: made.digest, manifestRaw: made.manifestRaw,
		kernel: made.kernel, initrd: made.initrd, loaders: loaders,
		payloadSize: made.manifest.Payload.Size,
		openPayload: func() (io.ReadCloser, error) { return os.Open(made.payload) },
	}
	layout, err := ip.layout()
	if err != nil {
		return err
	}
	stage := progress.Start("iso", layout.Size)
	err = w.file(p.isoName(), layout.Size, func(f io.Writer) error {
		return layout.Write(w.ctx, f, stage.Set)
	})
	stage.End(err)
	return err
}
