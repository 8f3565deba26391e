package imagebuild

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"xnodeos.org/imagebuild/iso"
	"xnodeos.org/imagebuild/sbom"
	"xnodeos.org/internal/kmod"
	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/nix"
)

// consoles is what every artifact's command line ends with (before
// xnode.manifest): output on the screen and on the first serial port, and a
// reboot ten seconds after a kernel panic, because nobody is there to press a
// button.
const consoles = "console=tty0 console=ttyS0,115200 panic=10"

// maxCmdline leaves room for what the loaders put before the line: x86's boot
// protocol takes 2047 bytes, and what is cut off would be the manifest.
const maxCmdline = iso.MaxCommandLine

// Revisions name what the writers do; they are part of the cache keys, and
// grow whenever the same input gives other bytes.
const (
	payloadRevision = "payload-3"
	initrdRevision  = "initrd-2"
)

// Plan says what Write is going to do: every decision, no effect yet.
type Plan struct {
	Title      string      `json:"title"` // as the system calls itself, for people
	Label      string      `json:"label"` // the same as one word, for files and logs
	Arch       string      `json:"arch"`
	System     string      `json:"system"`
	Handover   string      `json:"handover"`
	Closure    PlanClosure `json:"closure"`
	Sequence   uint32      `json:"sequence"`
	Time       int64       `json:"time"`
	Cmdline    string      `json:"cmdline"`
	Kernel     PlanFile    `json:"kernel"`
	KernelVer  string      `json:"kernel_version"`
	Init       PlanFile    `json:"init"`
	Modules    []string    `json:"modules"`
	NodeConfig []string    `json:"node_config"`
	Loaders    []PlanFile  `json:"loaders"`
	PayloadKey string      `json:"payload_key"`
	InitrdKey  string      `json:"initrd_key"`
	Outputs    []string    `json:"outputs"`

	in  Inputs
	opt Options
}

// PlanClosure is the closure in three figures.
type PlanClosure struct {
	Digest  string `json:"digest"`   // of the closure list, "sha256-BASE64"
	Paths   int    `json:"paths"`    // store paths
	NarSize int64  `json:"nar_size"` // bytes, sum of the NARs
}

// PlanFile is an input file.
type PlanFile struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// NewPlan decides what is written. It fails where the inputs cannot become the
// formats that are asked for.
func NewPlan(in Inputs, opt Options) (*Plan, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	if err := in.System.CheckLive(); err != nil {
		return nil, err
	}
	list, err := nix.NewClosureList(in.Closure)
	if err != nil {
		return nil, fmt.Errorf("closure of %s: %w", in.System.Path, err)
	}
	digest := list.Digest()
	p := &Plan{
		Title: in.System.Label, Label: in.System.FileLabel(), Arch: in.System.Platform,
		System: string(in.System.Path), Handover: string(in.System.Handover),
		Closure:  PlanClosure{Digest: digest, Paths: len(in.Closure), NarSize: list.NarSize()},
		Sequence: opt.Sequence, Time: opt.Time,
		Cmdline:   strings.TrimSpace(strings.Join(in.System.KernelParams, " ") + " " + consoles),
		Kernel:    planFile(manifestKernelName, in.Kernel.Data),
		KernelVer: in.Modules.Version,
		Init:      planFile("xnode-init", in.Init.Data),
		in:        in, opt: opt,
	}
	for _, m := range in.Modules.Modules {
		p.Modules = append(p.Modules, m.Path)
	}
	if in.NodeConfig != nil {
		p.NodeConfig = in.NodeConfig.Names()
	}
	if err := p.planLoaders(); err != nil {
		return nil, err
	}
	p.PayloadKey = cacheKey(payloadRevision, digest)
	p.InitrdKey = cacheKey(append([]string{initrdRevision, p.Init.SHA256, in.Modules.Source, in.System.FirmwareDir}, p.Modules...)...)
	p.planOutputs()
	return p, p.check()
}

// needsISOFS says whether the payload lies in an ISO 9660 volume.
func (p *Plan) needsISOFS() bool {
	return slices.Contains(p.opt.Formats, ISO) || slices.Contains(p.opt.Formats, Raw)
}

// check refuses what the loaders or the first stage could not read.
func (p *Plan) check() error {
	if p.needsISOFS() && !p.in.Modules.Index.Has("isofs") {
		return &kmod.MissingError{Name: "isofs", Purpose: "a payload on an ISO"}
	}
	return p.checkCmdline()
}

func (p *Plan) planLoaders() error {
	for _, f := range p.opt.Formats {
		for _, name := range LoaderNames(f) {
			blob, ok := p.in.Loaders[name]
			if !ok {
				return MissingLoader(name, []string{"the loaders given"})
			}
			file := planFile(name, blob.Data)
			if !slices.Contains(p.Loaders, file) {
				p.Loaders = append(p.Loaders, file)
			}
		}
	}
	return nil
}

func (p *Plan) planOutputs() {
	if slices.Contains(p.opt.Formats, ISO) {
		p.Outputs = append(p.Outputs, p.isoName())
	}
	if slices.Contains(p.opt.Formats, Netboot) {
		for _, name := range netbootFiles(p.opt.EmbedPayload) {
			p.Outputs = append(p.Outputs, netbootFolder+"/"+name)
		}
	}
	if slices.Contains(p.opt.Formats, UKI) {
		p.Outputs = append(p.Outputs, p.ukiName())
	}
	if slices.Contains(p.opt.Formats, Raw) {
		p.Outputs = append(p.Outputs, p.rawName())
	}
	if slices.Contains(p.opt.Formats, Takeover) {
		p.Outputs = append(p.Outputs, p.takeoverName())
	}
	p.Outputs = append(p.Outputs, sbom.FileName, sumsName)
}

func (p *Plan) isoName() string { return "xnodeos-" + p.Label + "-x86_64.iso" }

// checkCmdline refuses a line that a loader would cut or misread. The digest
// is not known yet, its length is.
func (p *Plan) checkCmdline() error {
	if strings.ContainsAny(p.Cmdline, "\n\r\x00") {
		return fmt.Errorf("kernel parameters %q contain a line break; mend boot.kernelParams", p.Cmdline)
	}
	if n := len(ukiCmdline(p.Cmdline, manifest.DigestOf(nil), p.opt.PayloadURLs)); n > maxCmdline {
		return fmt.Errorf("the kernel command line has %d bytes, there is room for %d; shorten boot.kernelParams or the payload URLs", n, maxCmdline)
	}
	return nil
}

// cmdlineWithManifest is the line of an artifact that carries or names the
// payload.
func cmdlineWithManifest(cmdline, digest string) string {
	return cmdline + " xnode.manifest=" + digest
}

func planFile(name string, data []byte) PlanFile {
	sum := sha256.Sum256(data)
	return PlanFile{Name: name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:])}
}

// cacheKey names a cached piece by what it is made from.
func cacheKey(parts ...string) string {
	h := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)))[:32]
}
