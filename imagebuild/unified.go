package imagebuild

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"xnodeos.org/imagebuild/uki"
	"xnodeos.org/internal/manifest"
)

// Sections of our unified kernel image, in their order. .xnode holds the
// manifest, so that the file can be checked by itself. .linux comes last.
const (
	sectionOSRelease = ".osrel"
	sectionCmdline   = ".cmdline"
	sectionManifest  = ".xnode"
	sectionInitrd    = ".initrd"
	sectionLinux     = ".linux"
)

func osRelease(label string) string {
	return "ID=xnodeos\nNAME=XnodeOS\nVERSION_ID=" + label + "\nPRETTY_NAME=\"XnodeOS " + label + "\"\n"
}

// ukiCmdline is the line of the unified image. The payload comes from the
// URLs, from a node config that the first stage finds, or from a medium.
func ukiCmdline(cmdline, digest string, urls []string) string {
	line := cmdlineWithManifest(cmdline, digest)
	for _, u := range urls {
		line += " xnode.payload=" + u
	}
	return line
}

// checkPayloadURL refuses what the first stage could not fetch from.
func checkPayloadURL(text string) error {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return fmt.Errorf("payload URL %q: %w", text, err)
	case u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return fmt.Errorf("payload URL %q: want http://HOST/FOLDER or https://HOST/FOLDER", text)
	case strings.ContainsAny(text, " \t\r\n\"") || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("payload URL %q: a folder has no spaces, quotes, query or fragment", text)
	}
	return nil
}

func (p *Plan) ukiName() string { return "xnodeos-" + p.Label + "-x86_64.efi" }

func unifiedSections(label, cmdline string, manifestRaw, initrd, kernel []byte) []uki.Section {
	return []uki.Section{
		{Name: sectionOSRelease, Data: []byte(osRelease(label))},
		{Name: sectionCmdline, Data: []byte(cmdline)},
		{Name: sectionManifest, Data: manifestRaw},
		{Name: sectionInitrd, Data: initrd},
		{Name: sectionLinux, Data: kernel},
	}
}

func (p *Plan) writeUKI(w *setWriter, made *parts, progress Progress) (err error) {
	image, err := uki.Build(made.loaders[blobStub].Data, unifiedSections(
		p.Label, ukiCmdline(p.Cmdline, made.digest, p.opt.PayloadURLs), made.manifestRaw, made.initrd, made.kernel))
	if err != nil {
		return err
	}
	stage := progress.Start("uki", int64(len(image)))
	defer func() { stage.End(err) }()
	return w.bytes(p.ukiName(), image)
}

// inspectUKI checks an EFI program that writeUKI made.
func inspectUKI(ctx context.Context, path string, report *Report) error {
	file, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	report.Size = int64(len(file))
	stub, sections, err := uki.Parse(file, sectionOSRelease)
	if err != nil {
		report.problem("%v", err)
		return nil
	}
	part := map[string][]byte{}
	for _, s := range sections {
		part[s.Name] = s.Data
	}
	m := checkManifest(part[sectionManifest], report)
	if m == nil {
		return nil
	}
	checkKernel(ctx, m, sectionLinux, part[sectionLinux], report)
	checkInitrd(ctx, m, sectionInitrd, part[sectionInitrd], report)
	urls := checkUKICmdline(string(part[sectionCmdline]), m, report)
	want := unifiedSections(m.Label, ukiCmdline(m.Cmdline, report.Manifest, urls),
		part[sectionManifest], part[sectionInitrd], part[sectionLinux])
	image, err := uki.Build(stub, want)
	if err != nil {
		report.problem("the parts do not make an image: %v", err)
		return nil
	}
	if err := checkDerived(path, bytes.NewReader(file), func(w io.Writer) error {
		_, err := w.Write(image)
		return err
	}, report); err != nil {
		return err
	}
	report.part("EFI stub", int64(len(stub)), "covered by the PE checksum")
	return nil
}

// checkUKICmdline returns the payload URLs that the line names.
func checkUKICmdline(line string, m *manifest.Manifest, report *Report) (urls []string) {
	rest, ok := strings.CutPrefix(line, cmdlineWithManifest(m.Cmdline, report.Manifest))
	if !ok {
		report.problem("%s: does not name manifest %s", sectionCmdline, report.Manifest)
		return nil
	}
	for _, word := range strings.Fields(rest) {
		u, ok := strings.CutPrefix(word, "xnode.payload=")
		if !ok {
			report.problem("%s: word %q does not belong there", sectionCmdline, word)
			continue
		}
		urls = append(urls, u)
	}
	report.part(sectionCmdline, int64(len(line)), "payload from %s", payloadFrom(urls))
	return urls
}

func payloadFrom(urls []string) string {
	if len(urls) == 0 {
		return "node config or a medium"
	}
	return strings.Join(urls, ", ")
}
