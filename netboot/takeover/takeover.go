package takeover

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/nodeconfig"
)

// maxCmdline is what x86's boot protocol takes, without the closing NUL.
const maxCmdline = 2047

// Source is the new system, as the takeover file carries it. Initrd has the
// image's node config at its end. Payload is empty where none is embedded.
// The slices may be pages of a mapped file.
type Source struct {
	ManifestRaw []byte
	Kernel      []byte
	Initrd      []byte
	Payload     []byte
	Cmdline     string
}

// Options are the operator's choices and what was found out elsewhere.
type Options struct {
	Root       fs.FS // the machine's root folder
	Process    Process
	Words      []string // of the network, for the new system
	Cards      []string // cards over which default routes lead
	Lost       []Loss   // of the network, not carried
	NodeConfig *nodeconfig.Config
	URLs       []string // folders to fetch the payload from
	Append     []string // words for the kernel command line
	Methods    []Method // in order of preference
	SudoUser   string   // who became root to run this; empty if nobody
}

// Plan is a takeover that is ready to be loaded.
type Plan struct {
	Verdict Verdict

	source Source
	initrd *ramdisk
	secret []byte // the hand-over, in locked memory
	kernel kernel
}

// kernel is what a plan asks of the running kernel.
type kernel interface {
	// Try asks whether a method would be accepted, and takes it back.
	Try(m Method, image []byte, cmdline string) error
	Load(m Method, image []byte, initrd *ramdisk, cmdline string) error
	Unload() error
}

// preparer collects the verdict.
type preparer struct {
	src  Source
	opt  Options
	plan *Plan
	// payloadSize is the manifest's: in the end it is in memory, embedded or
	// fetched.
	payloadSize int64
}

// prepare judges everything and packs the initrd. lock gives memory that is
// never swapped out. The error is that of the context; everything else that is
// wrong is in the verdict.
func prepare(ctx context.Context, src Source, opt Options, k kernel, lock func(size int) ([]byte, error)) (*Plan, error) {
	p := &preparer{src: src, opt: opt, plan: &Plan{source: src, kernel: k, Verdict: Verdict{
		V: 1, Status: OK, Manifest: manifest.DigestOf(src.ManifestRaw), Network: append([]string{}, opt.Words...),
		Payload: []string{}, HandOver: []nodeconfig.FileInfo{},
	}}}
	v := &p.plan.Verdict
	facts := ReadFacts(opt.Root, opt.Process, opt.Cards)
	v.add(judge(facts)...)
	if err := p.checkImage(ctx); err != nil {
		return nil, err
	}
	v.add(checkNetwork(opt.Words, opt.Lost)...)
	in, err := readInitrd(bytes.NewReader(src.Initrd))
	if err != nil {
		v.add(bad("image", Fail, err.Error(), "build the takeover file again"))
		return p.plan, nil
	}
	v.add(checkCards(facts.Cards, in)...)
	p.checkPayload(facts, in)
	p.pack(in, lock)
	if p.plan.initrd == nil {
		return p.plan, nil
	}
	v.Memory = measure(facts, p.plan.initrd.size+int64(len(src.Kernel)), initSize(src.Kernel), in.unpacked+p.payloadSize)
	v.add(v.Memory.check())
	if v.failed() {
		return p.plan, nil // a trial would say less than what is known already
	}
	var try func(Method) error
	if facts.KexecLoaded != "1" && (facts.LoadLimit == "" || facts.LoadLimit == "-1") {
		try = func(m Method) error { return k.Try(m, src.Kernel, v.Cmdline) }
	}
	method, check := choose(v.Memory, opt.Methods, try)
	if check.Status == Fail && locked(facts.Lockdown) {
		check.Remedy = lockedRemedy
	}
	v.Method = method
	v.add(check)
	return p.plan, nil
}

// checkImage holds the parts against the manifest, and the manifest against
// the command line. The error is the context's.
func (p *preparer) checkImage(ctx context.Context) error {
	v := &p.plan.Verdict
	m, err := manifest.Parse(p.src.ManifestRaw)
	if err == nil {
		v.Label, p.payloadSize = m.Label, m.Payload.Size
		err = p.src.compare(ctx, m)
	}
	v.add(imageCheck(err, v.Manifest))
	return ctx.Err()
}

func imageCheck(err error, digest string) Check {
	if err != nil {
		return bad("image", Fail, "the takeover file is damaged or was changed: "+err.Error(), "copy or build the takeover file again")
	}
	return good("image", "every part is what manifest %s says", digest)
}

// compare finds the first part that is not what the manifest says.
func (s Source) compare(ctx context.Context, m *manifest.Manifest) error {
	digest := manifest.DigestOf(s.ManifestRaw)
	switch {
	case m.Arch != "x86_64-linux":
		return fmt.Errorf("it is for %s", m.Arch)
	case !slices.Contains(strings.Fields(s.Cmdline), "xnode.manifest="+digest):
		return fmt.Errorf("its command line does not name its manifest %s", digest)
	}
	base := s.Initrd[:min(int64(len(s.Initrd)), m.Initrd.Size)]
	if err := errors.Join(checkFile(m.Kernel, s.Kernel), checkFile(m.Initrd, base)); err != nil || len(s.Payload) == 0 {
		return err
	}
	if int64(len(s.Payload)) != m.Payload.Size {
		return fmt.Errorf("%s has %d bytes; the manifest says %d", m.Payload.Name, len(s.Payload), m.Payload.Size)
	}
	return m.Payload.Verify(ctx, bytes.NewReader(s.Payload), nil)
}

func checkFile(want manifest.File, data []byte) error {
	sum := sha256.Sum256(data)
	if got := hex.EncodeToString(sum[:]); got != want.SHA256 || int64(len(data)) != want.Size {
		return fmt.Errorf("%s has %d bytes and sha256 %s; the manifest says %d and %s", want.Name, len(data), got, want.Size, want.SHA256)
	}
	return nil
}

// checkPayload puts the command line together and sees where the payload is to
// come from.
func (p *preparer) checkPayload(f Facts, in *contents) {
	v := &p.plan.Verdict
	words := strings.Fields(p.src.Cmdline)
	for _, u := range p.opt.URLs {
		words = append(words, "xnode.payload="+u)
	}
	words = append(words, consoleWords(f.Cmdline, strings.Join(words, " "))...)
	words = append(words, p.opt.Append...)
	v.Cmdline = strings.Join(words, " ")
	if len(v.Cmdline) > maxCmdline {
		v.add(bad("cmdline", Fail, fmt.Sprintf("the new kernel's command line has %d bytes; it takes %d", len(v.Cmdline), maxCmdline), "leave out --append or --payload-url words"))
	}
	if len(p.src.Payload) > 0 {
		v.Payload = append(v.Payload, "embedded")
	}
	for _, w := range words {
		if u, ok := strings.CutPrefix(w, "xnode.payload="); ok {
			v.Payload = append(v.Payload, u)
		}
	}
	config := in.config
	if own := p.opt.NodeConfig; own != nil && own.Files["payload"] != nil {
		config = own
	}
	v.Payload = append(v.Payload, config.Payload()...)
	if len(v.Payload) == 0 {
		v.add(bad("payload", Fail, "the file has no payload in it and names no URL", "name a folder with manifest.json and system.squashfs by --payload-url"))
		return
	}
	v.add(good("payload", "%s", strings.Join(v.Payload, ", ")))
}

// pack makes hand-over and initrd.
func (p *preparer) pack(in *contents, lock func(size int) ([]byte, error)) {
	v := &p.plan.Verdict
	collected, notes := collect(p.opt.Root, p.opt.SudoUser, p.opt.Words)
	config, more := complete(collected, in.config, p.opt.NodeConfig)
	for _, n := range append(notes, more...) {
		v.add(bad("hand-over", Warn, n, ""))
	}
	v.HandOver = config.Info()
	if config.Files["authorized_keys"] == nil {
		v.add(bad("hand-over", Warn, "no ssh key may log in to the new system", "put authorized_keys into a folder and name it by --node-config"))
	}
	var size sizer
	err := config.WriteTakeover(&size)
	if err == nil {
		p.plan.secret, err = lock(int(size))
	}
	if err == nil {
		err = config.WriteTakeover(&filler{p.plan.secret[:size]})
	}
	if err == nil {
		p.plan.initrd, err = compose(p.src.Initrd, p.plan.secret[:size], p.src.ManifestRaw, p.src.Payload)
	}
	if err != nil {
		v.add(bad("hand-over", Fail, err.Error(), "free memory, or raise the limit of locked memory (ulimit -l unlimited)"))
		return
	}
	v.add(good("hand-over", "%s, in memory that is never swapped out", strings.Join(config.Names(), ", ")))
}

// sizer counts what is written.
type sizer int64

func (s *sizer) Write(b []byte) (int, error) {
	*s += sizer(len(b))
	return len(b), nil
}

// filler writes into memory that is there already, so that no copy of a secret
// is left behind by a growing buffer.
type filler struct{ left []byte }

func (f *filler) Write(b []byte) (int, error) {
	n := copy(f.left, b)
	f.left = f.left[n:]
	if n < len(b) {
		return n, errors.New("BUG: the hand-over grew while it was packed")
	}
	return n, nil
}

// load hands the plan to the kernel. On an error nothing is left loaded.
func (p *Plan) load() error {
	if err := p.Verdict.Err(); err != nil {
		return err
	}
	var tried []error
	err := p.kernel.Load(p.Verdict.Method, p.source.Kernel, p.initrd, p.Verdict.Cmdline)
	if err == nil {
		return nil
	}
	tried = append(tried, fmt.Errorf("%s: %w", p.Verdict.Method, err), p.kernel.Unload())
	if p.Verdict.Method == FileLoad {
		// The trial was without an initrd; what the kernel says of the whole may differ.
		if err = p.kernel.Load(SegmentLoad, p.source.Kernel, p.initrd, p.Verdict.Cmdline); err == nil {
			p.Verdict.Method = SegmentLoad
			return nil
		}
		tried = append(tried, fmt.Errorf("%s: %w", SegmentLoad, err), p.kernel.Unload())
	}
	return fmt.Errorf("load the new kernel: %w; nothing was changed", errors.Join(tried...))
}
