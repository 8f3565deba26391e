package imagebuild

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"xnodeos.org/imagebuild/iso"
	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/fat"
	"xnodeos.org/internal/manifest"
)

// maxBootFile bounds kernel, initrd and loaders, which are held in memory.
const maxBootFile = 1 << 30

// inspectISO checks an ISO file.
func inspectISO(ctx context.Context, path string, report *Report, progress Progress) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()                    // only read
	size, err := f.Seek(0, io.SeekEnd) // also right for a block device
	if err != nil {
		return err
	}
	report.Size = size
	img, err := openISO(f, size)
	if err != nil {
		return fmt.Errorf("%s: %w; it is neither an ISO nor a netboot folder of xnodeos", path, err)
	}
	for _, p := range img.Check() {
		report.problem("%s", p)
	}
	raw, err := readISOFile(img.file, isoManifest)
	if err != nil {
		report.problem("%v", err)
		return nil
	}
	m := checkManifest(raw, report)
	if m == nil {
		return nil
	}
	report.part(isoManifest, int64(len(raw)), "%s", report.Manifest)
	return inspectISOParts(ctx, f, img, m, raw, report, progress)
}

func inspectISOParts(ctx context.Context, f *os.File, img *isoImage, m *manifest.Manifest, raw []byte, report *Report, progress Progress) error {
	parts := &isoParts{
		label: m.Label, cmdline: cmdlineWithManifest(m.Cmdline, report.Manifest), time: m.Time,
		digest: report.Manifest, manifestRaw: raw, loaders: map[string][]byte{}, payloadSize: m.Payload.Size,
	}
	before := len(report.Problems)
	var err error
	read := func(open func(string) (*io.SectionReader, error), name string) []byte {
		data, err := readISOFile(open, name)
		if err != nil {
			report.problem("%v", err)
		}
		return data
	}
	parts.kernel, parts.initrd = read(img.file, isoKernel), read(img.file, isoInitrd)
	parts.loaders[blobIsolinux] = read(img.file, isoLoader)
	parts.loaders[blobLdlinux] = read(img.file, isoLdlinux)
	parts.loaders[blobSystemdBoot] = read(img.espFile, espLoader)
	if parts.loaders[blobIsohdpfx], err = img.MBRCode(); err != nil {
		return err
	}
	config, entry := read(img.file, isoConfig), read(img.espFile, espEntry)
	if len(report.Problems) > before {
		return nil
	}
	checkConfig(isoConfig, string(config), isolinuxConfig(parts.cmdline), report)
	checkConfig(espEntry, string(entry), bootEntry(m.Label, parts.cmdline), report)
	checkKernel(ctx, m, isoKernel, parts.kernel, report)
	checkInitrd(ctx, m, isoInitrd, parts.initrd, report)
	payload, err := img.file(isoPayload)
	if err != nil {
		report.problem("%v", err)
		return nil
	}
	if err := checkPayload(ctx, m, isoPayload, payload, report, progress); err != nil {
		return err
	}
	parts.openPayload = func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(payload, 0, payload.Size())), nil
	}
	return compareISO(ctx, f, parts, report, progress)
}

// checkConfig names the file that pins another manifest or boots otherwise.
func checkConfig(name, have, want string, report *Report) {
	if have == want {
		report.part(name, int64(len(have)), "names manifest %s", report.Manifest)
		return
	}
	if !strings.Contains(have, report.Manifest) {
		report.problem("%s: does not name manifest %s", name, report.Manifest)
		return
	}
	report.problem("%s: is not what the manifest derives to", name)
}

// compareISO derives the whole image from its parts and compares. The
// identifiers in the partition table are made from the parts, so a changed
// loader shows there.
func compareISO(ctx context.Context, f *os.File, parts *isoParts, report *Report, progress Progress) error {
	layout, err := parts.layout()
	if err != nil {
		report.problem("the parts do not make an image: %v", err)
		return nil
	}
	if err := compareImage(ctx, f, &layout.Image, report, progress); err != nil {
		return err
	}
	for _, name := range LoaderNames(ISO) {
		data := parts.loaders[name]
		report.part(name, int64(len(data)), "sha256:%s", planFile(name, data).SHA256)
	}
	return nil
}

// compareImage holds a file against the image that its parts derive to.
func compareImage(ctx context.Context, f *os.File, image *disk.Image, report *Report, progress Progress) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	stage := progress.Start("compare", image.Size)
	err := image.Write(ctx, &comparer{have: f}, stage.Set)
	stage.End(err)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if diff, ok := asDiff(err); ok {
		report.problem("%v from what the parts derive to: %s", diff, where(image, diff.Offset))
		return nil
	}
	if err != nil {
		return err
	}
	if report.Size > image.Size {
		report.problem("goes on for %d bytes after the image's end at %d", report.Size-image.Size, image.Size)
	}
	report.part("tables and directories", image.Size, "compared with what the parts derive to")
	return nil
}

// where names what a byte of the image belongs to.
func where(image *disk.Image, offset int64) string {
	for _, s := range image.Segments {
		if offset >= s.Offset && offset < s.Offset+s.Size {
			return s.Name
		}
	}
	return "padding"
}

// isoImage opens the files of an ISO and of its EFI system partition by name.
type isoImage struct {
	*iso.Image
	esp *fat.Volume
}

func openISO(r io.ReaderAt, size int64) (*isoImage, error) {
	img, err := iso.Open(r, size)
	if err != nil {
		return nil, err
	}
	esp, err := img.ESP()
	if err != nil {
		return nil, err
	}
	return &isoImage{img, esp}, nil
}

func (i *isoImage) file(name string) (*io.SectionReader, error) {
	info, err := i.Find(name)
	if err != nil {
		return nil, err
	}
	return i.Open(info), nil
}

func (i *isoImage) espFile(name string) (*io.SectionReader, error) {
	info, err := i.esp.Find(name)
	if err != nil {
		return nil, err
	}
	return i.esp.Open(info), nil
}

// readISOFile reads a file that is held in memory.
func readISOFile(open func(string) (*io.SectionReader, error), name string) ([]byte, error) {
	r, err := open(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if r.Size() > maxBootFile {
		return nil, fmt.Errorf("%s: has %d bytes, at most %d are expected", name, r.Size(), int64(maxBootFile))
	}
	data := make([]byte, r.Size())
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return data, nil
}
