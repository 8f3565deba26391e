package imagebuild

import (
	"context"
	"fmt"
	"io"
	"os"

	"xnodeos.org/imagebuild/raw"
	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/manifest"
)

const espGRUBConfig = "grub/grub.cfg"

// grubConfig boots at once. Nothing here waits for a key: a disk that does not
// boot reboots, because nobody may be there.
func grubConfig(cmdline string) string {
	return "serial --unit=0 --speed=115200\n" +
		"terminal_input console serial\nterminal_output console serial\n" +
		"if linux /" + espKernel + " " + cmdline + "; then\n" +
		"  if initrd /" + espInitrd + "; then\n    boot\n  fi\nfi\n" +
		"echo 'XnodeOS: the kernel could not be started; this machine reboots in 30 seconds'\n" +
		"sleep 30\nreboot\n"
}

// rawParts is what a disk image is put together from and taken apart into.
type rawParts struct {
	label, cmdline string
	time           int64
	manifestRaw    []byte
	kernel, initrd []byte
	systemdBoot    []byte
	boot, core     []byte // GRUB's images
	payloadSize    int64
	openPayload    func() (io.ReadCloser, error)
}

// layout decides every byte of the disk. Its identifiers seal what the
// manifest does not cover, as on the ISO.
func (p *rawParts) layout() (*disk.Image, error) {
	config, entry := grubConfig(p.cmdline), bootEntry(p.label, p.cmdline)
	boot, core := raw.UnpatchedBoot(p.boot), raw.UnpatchedCore(p.core)
	return raw.New(raw.Spec{
		Time:     p.time,
		VolumeID: isoVolumeID,
		IDs: raw.DeriveIDs(seal(p.manifestRaw, p.kernel, p.initrd, boot, core, p.systemdBoot,
			[]byte(config), []byte(entry), []byte(espMenuTxt))),
		GRUBBoot: boot,
		GRUBCore: core,
		ESP: []disk.File{
			disk.Bytes(espLoader, p.systemdBoot),
			disk.Bytes(espMenu, []byte(espMenuTxt)),
			disk.Bytes(espEntry, []byte(entry)),
			disk.Bytes(espGRUBConfig, []byte(config)),
			disk.Bytes(espKernel, p.kernel),
			disk.Bytes(espInitrd, p.initrd),
		},
		Payload: []disk.File{
			disk.Bytes(isoManifest, p.manifestRaw),
			{Name: isoPayload, Size: p.payloadSize, Open: p.openPayload},
		},
	})
}

func (p *Plan) rawName() string { return "xnodeos-" + p.Label + "-x86_64.img" }

// writeRaw streams the disk image; its free space becomes holes.
func (p *Plan) writeRaw(w *setWriter, made *parts, progress Progress) error {
	rp := &rawParts{
		label: p.Label, cmdline: cmdlineWithManifest(p.Cmdline, made.digest), time: p.Time,
		manifestRaw: made.manifestRaw, kernel: made.kernel, initrd: made.initrd,
		systemdBoot: made.loaders[blobSystemdBoot].Data,
		boot:        made.loaders[blobGRUBBoot].Data, core: made.loaders[blobGRUBCore].Data,
		payloadSize: made.manifest.Payload.Size,
		openPayload: func() (io.ReadCloser, error) { return os.Open(made.payload) },
	}
	image, err := rp.layout()
	if err != nil {
		return err
	}
	stage := progress.Start("raw disk", image.Size)
	err = w.sparse(p.rawName(), image.Size, func(f io.Writer) error {
		return image.Write(w.ctx, f, stage.Set)
	})
	stage.End(err)
	return err
}

// inspectRaw checks a disk image.
func inspectRaw(ctx context.Context, path string, report *Report, progress Progress) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	if report.Size, err = f.Seek(0, io.SeekEnd); err != nil {
		return err
	}
	d, err := raw.Open(f, report.Size)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, text := range d.Problems {
		report.problem("%s", text)
	}
	img := &isoImage{d.Payload, d.ESP}
	manifestRaw, err := readISOFile(img.file, isoManifest)
	if err != nil {
		report.problem("%v", err)
		return nil
	}
	m := checkManifest(manifestRaw, report)
	if m == nil {
		return nil
	}
	report.part(isoManifest, int64(len(manifestRaw)), "%s", report.Manifest)
	parts := &rawParts{
		label: m.Label, cmdline: cmdlineWithManifest(m.Cmdline, report.Manifest), time: m.Time,
		manifestRaw: manifestRaw, boot: d.GRUBBoot, core: d.GRUBCore, payloadSize: m.Payload.Size,
	}
	if ok, err := inspectRawParts(ctx, img, m, parts, report, progress); err != nil || !ok {
		return err
	}
	image, err := parts.layout()
	if err != nil {
		report.problem("the parts do not make an image: %v", err)
		return nil
	}
	return compareImage(ctx, f, image, report, progress)
}

// inspectRawParts reads and checks the files; false means that too little is
// there to go on.
func inspectRawParts(ctx context.Context, img *isoImage, m *manifest.Manifest, parts *rawParts, report *Report, progress Progress) (bool, error) {
	before := len(report.Problems)
	read := func(name string) []byte {
		data, err := readISOFile(img.espFile, name)
		if err != nil {
			report.problem("%v", err)
		}
		return data
	}
	parts.kernel, parts.initrd, parts.systemdBoot = read(espKernel), read(espInitrd), read(espLoader)
	config, entry := read(espGRUBConfig), read(espEntry)
	payload, err := img.file(isoPayload)
	if err != nil {
		report.problem("%v", err)
	}
	if len(report.Problems) > before {
		return false, nil
	}
	checkConfig(espGRUBConfig, string(config), grubConfig(parts.cmdline), report)
	checkConfig(espEntry, string(entry), bootEntry(m.Label, parts.cmdline), report)
	checkKernel(ctx, m, espKernel, parts.kernel, report)
	checkInitrd(ctx, m, espInitrd, parts.initrd, report)
	report.part(blobGRUBCore, int64(len(parts.core)), "sha256:%s", planFile(blobGRUBCore, parts.core).SHA256)
	report.part(blobSystemdBoot, int64(len(parts.systemdBoot)), "sha256:%s", planFile(blobSystemdBoot, parts.systemdBoot).SHA256)
	parts.openPayload = func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(payload, 0, payload.Size())), nil
	}
	return true, checkPayload(ctx, m, isoPayload, payload, report, progress)
}
