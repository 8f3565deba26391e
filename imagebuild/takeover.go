package imagebuild

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"xnodeos.org/imagebuild/takeoverfile"
	"xnodeos.org/internal/disk"
	"xnodeos.org/internal/manifest"
)

func (p *Plan) takeoverName() string { return "xnodeos-takeover-" + p.Label + "-x86_64" }

// writeTakeover writes the program that replaces a running Linux. It carries
// the payload unless it is told where to fetch it.
func (p *Plan) writeTakeover(w *setWriter, made *parts, progress Progress) error {
	spec := takeoverfile.Spec{
		Program: p.in.Takeover.Data, Kernel: made.kernel, Initrd: made.initrd, Manifest: made.manifestRaw,
		Cmdline: ukiCmdline(p.Cmdline, made.digest, p.opt.PayloadURLs),
	}
	if len(p.opt.PayloadURLs) == 0 {
		spec.Payload = &disk.File{
			Name: takeoverfile.PayloadName, Size: made.manifest.Payload.Size,
			Open: func() (io.ReadCloser, error) { return os.Open(made.payload) },
		}
	}
	image, err := takeoverfile.Layout(spec)
	if err != nil {
		return err
	}
	stage := progress.Start("takeover program", image.Size)
	err = w.program(p.takeoverName(), image.Size, func(f io.Writer) error {
		return image.Write(w.ctx, f, stage.Set)
	})
	stage.End(err)
	return err
}

// inspectTakeover checks a takeover program. Its trailer has a hash over all of
// it but the payload, which the manifest judges.
func inspectTakeover(ctx context.Context, path string, report *Report, progress Progress) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // only read
	info, err := f.Stat()
	if err != nil {
		return err
	}
	report.Size = info.Size()
	file, err := takeoverfile.Open(f, info.Size())
	var damaged *takeoverfile.DamagedError
	if errors.As(err, &damaged) {
		report.problem("%v", err)
		return nil
	} else if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := file.Verify(ctx); errors.As(err, &damaged) {
		report.problem("%v", err)
	} else if err != nil {
		return err
	}
	raw, err := file.Bytes(file.Manifest)
	if err != nil {
		return err
	}
	m := checkManifest(raw, report)
	if m == nil {
		return nil
	}
	return inspectTakeoverParts(ctx, file, m, report, progress)
}

func inspectTakeoverParts(ctx context.Context, file *takeoverfile.File, m *manifest.Manifest, report *Report, progress Progress) error {
	kernel, err := file.Bytes(file.Kernel)
	if err != nil {
		return err
	}
	initrd, err := file.Bytes(file.Initrd)
	if err != nil {
		return err
	}
	line, err := file.Line()
	if err != nil {
		report.problem("%v", err)
	}
	report.part(file.Program.Name, file.Program.Size, "covered by the trailer's hash")
	checkKernel(ctx, m, takeoverfile.KernelName, kernel, report)
	checkInitrd(ctx, m, takeoverfile.InitrdName, initrd, report)
	urls := checkUKICmdline(line, m, report)
	switch {
	case file.Payload != nil:
		return checkPayload(ctx, m, takeoverfile.PayloadName, file.Section(*file.Payload), report, progress)
	case len(urls) == 0:
		report.problem("it neither carries the payload nor names where to fetch it")
	}
	return nil
}
