package imagebuild

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"xnodeos.org/internal/atomicfile"
	"xnodeos.org/internal/cpio"
	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/sshsign"
)

// Result is what Write made.
type Result struct {
	Dir      string       `json:"dir"`
	Manifest string       `json:"manifest"` // "sha256:HEX" of manifest.json
	Files    []ResultFile `json:"files"`
}

// ResultFile is one finished file, its name relative to Result.Dir.
type ResultFile struct {
	Name string `json:"name"`
	Size int64  `json:"size"`
}

// maxCPIOFile is the largest file of a newc archive: eight hex digits.
const maxCPIOFile = 1<<32 - 1

// parts are the pieces that artifacts are put together from.
type parts struct {
	manifest    *manifest.Manifest
	manifestRaw []byte
	digest      string // of manifestRaw, "sha256:HEX"
	kernel      []byte
	initrd      []byte // with node config
	payload     string // file name of the squashfs
	loaders     map[string]Blob
}

// Write makes the plan's outputs in the folder out, which is made if needed.
// Cache is a folder for pieces that later builds take again. No output gets
// its final name before all of them are whole and durable; on any error, ctx's
// end included, nothing is left.
//
// The netboot folder is filled file by file and never replaced as a whole,
// because a person may keep other files there. Its manifest gets its name
// last: a machine that asks in between finds old and new files that do not
// fit, refuses them and asks again.
//
// With a signer, manifest and sums get signatures beside them.
func (p *Plan) Write(ctx context.Context, out, cache string, signer *sshsign.Signer, progress Progress) (res *Result, err error) {
	made, err := p.makeParts(ctx, cache, progress)
	if err != nil {
		return nil, err
	}
	var set atomicfile.Set
	defer func() { err = errors.Join(err, set.Abort()) }()
	if err := set.MkdirAll(out, 0o777); err != nil {
		return nil, err
	}
	res = &Result{Dir: out, Manifest: made.digest}
	w := &setWriter{ctx: ctx, set: &set, res: res}
	// Hashing goes on behind the writing; nothing may be left running.
	defer func() { err = errors.Join(err, w.sums.group.Wait()) }()
	if err := p.writeAll(w, made, signer, progress); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := set.Commit(); err != nil {
		return nil, err
	}
	return res, p.removeStale(out, signer != nil)
}

// writeAll writes the formats, then what is said about them.
func (p *Plan) writeAll(w *setWriter, made *parts, signer *sshsign.Signer, progress Progress) (err error) {
	for _, format := range p.opt.Formats {
		switch format {
		case ISO:
			err = p.writeISO(w, made, progress)
		case Netboot:
			err = p.writeNetboot(w, made, signer, progress)
		case UKI:
			err = p.writeUKI(w, made, progress)
		case Raw:
			err = p.writeRaw(w, made, progress)
		case Takeover:
			err = p.writeTakeover(w, made, progress)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", format, err)
		}
	}
	if err := p.writeSBOM(w, made); err != nil {
		return fmt.Errorf("bill of materials: %w", err)
	}
	return p.writeSums(w, signer)
}

// setWriter adds files below the output folder to one set.
type setWriter struct {
	ctx  context.Context //nolint:containedctx // lives only as long as one Write
	set  *atomicfile.Set
	res  *Result
	sums sums
}

// file writes one output of a size that is known before.
func (w *setWriter) file(name string, size int64, write func(io.Writer) error) error {
	return w.create(name, 0o666, size, write)
}

// program is file for an output that is run.
func (w *setWriter) program(name string, size int64, write func(io.Writer) error) error {
	return w.create(name, 0o777, size, write)
}

func (w *setWriter) create(name string, perm fs.FileMode, size int64, write func(io.Writer) error) error {
	path := filepath.Join(w.res.Dir, name)
	if err := w.set.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	f, err := w.set.Create(path, perm)
	if err != nil {
		return err
	}
	if err := f.Expect(size); err != nil {
		return err
	}
	w.res.Files = append(w.res.Files, ResultFile{Name: name, Size: size})
	if err := write(f); err != nil {
		return err
	}
	if name != sumsName {
		w.sums.add(w.ctx, name, f.TempPath())
	}
	return nil
}

// sparse is file for an output that is mostly zeros: they become holes.
func (w *setWriter) sparse(name string, size int64, write func(io.Writer) error) error {
	return w.file(name, 0, func(f io.Writer) error {
		w.res.Files[len(w.res.Files)-1].Size = size
		file, ok := f.(*atomicfile.File)
		if !ok {
			return write(f)
		}
		if err := file.Truncate(size); err != nil {
			return err
		}
		return write(&holeWriter{f: file})
	})
}

// holeWriter leaves out whole blocks of zeros of a file that has its length.
type holeWriter struct {
	f  io.WriterAt
	at int64
}

// holeSize is a multiple of what file systems allocate.
const holeSize = 64 << 10

var zeroBlock [holeSize]byte

func (h *holeWriter) Write(b []byte) (int, error) {
	for done := 0; done < len(b); {
		n := min(len(b)-done, holeSize-int(h.at%holeSize))
		part := b[done : done+n]
		if !bytes.Equal(part, zeroBlock[:n]) {
			if _, err := h.f.WriteAt(part, h.at); err != nil {
				return done, err
			}
		}
		h.at, done = h.at+int64(n), done+n
	}
	return len(b), nil
}

// bytes writes a small output.
func (w *setWriter) bytes(name string, data []byte) error {
	return w.file(name, int64(len(data)), func(f io.Writer) error {
		_, err := f.Write(data)
		return err
	})
}

// copy writes an output that is an existing file.
func (w *setWriter) copy(name, from string, size int64) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() // only read
	return w.file(name, size, func(f io.Writer) error {
		n, err := io.Copy(f, &ctxReader{w.ctx, in})
		if err == nil && n != size {
			err = fmt.Errorf("%s has %d bytes, expected %d; it changed while it was read", from, n, size)
		}
		return err
	})
}

func (p *Plan) makeParts(ctx context.Context, cache string, progress Progress) (*parts, error) {
	var payloadFile string
	var payload manifest.Payload
	var initrd []byte
	// The initrd is packed by one core, beside the payload.
	group, both := errgroup.WithContext(ctx)
	group.Go(func() (err error) {
		payloadFile, payload, err = p.cachedPayload(both, cache, progress)
		return err
	})
	group.Go(func() (err error) {
		initrd, err = p.cachedInitrd(both, cache, progress)
		return err
	})
	if err := group.Wait(); err != nil {
		return nil, err
	}
	if p.opt.EmbedPayload && payload.Size > maxCPIOFile {
		return nil, fmt.Errorf("the payload has %d bytes, a cpio archive takes %d a file; leave --embed-payload out", payload.Size, int64(maxCPIOFile))
	}
	m := p.manifest(initrd, payload)
	raw, err := m.Encode()
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	full := initrd[:len(initrd):len(initrd)]
	if p.in.NodeConfig != nil {
		var node bytes.Buffer
		if err := p.in.NodeConfig.WriteCPIO(&node); err != nil {
			return nil, fmt.Errorf("node config: %w", err)
		}
		full = append(full, node.Bytes()...)
	}
	return &parts{
		manifest: m, manifestRaw: raw, digest: manifest.DigestOf(raw),
		kernel: p.in.Kernel.Data, initrd: full, payload: payloadFile, loaders: p.in.Loaders,
	}, nil
}

func (p *Plan) manifest(initrd []byte, payload manifest.Payload) *manifest.Manifest {
	return &manifest.Manifest{
		V: manifest.Version, Critical: []string{}, Label: p.Label, Arch: p.Arch, System: p.System,
		Closure: p.Closure.Digest, Handover: manifest.Handover(p.Handover),
		Sequence: p.Sequence, Time: p.Time, Cmdline: p.Cmdline,
		Kernel:  manifestFile(manifestKernelName, p.in.Kernel.Data),
		Initrd:  manifestFile(manifestInitrdName, initrd),
		Payload: payload,
	}
}

func manifestFile(name string, data []byte) manifest.File {
	return manifest.File(planFile(name, data))
}

// writeNetboot makes the folder that an HTTP server serves, the manifest last.
func (p *Plan) writeNetboot(w *setWriter, made *parts, signer *sshsign.Signer, progress Progress) (err error) {
	size := made.manifest.Payload.Size
	stage := progress.Start("netboot tree", size)
	defer func() { stage.End(err) }()
	script := bootIPXE(p.Label, cmdlineWithManifest(p.Cmdline, made.digest), p.opt.EmbedPayload)
	for _, step := range []func() error{
		func() error { return w.copy(netbootFolder+"/"+manifestPayloadName, made.payload, size) },
		func() error { return w.bytes(netbootFolder+"/"+manifestKernelName, made.kernel) },
		func() error { return w.bytes(netbootFolder+"/"+manifestInitrdName, made.initrd) },
		func() error { return p.writeEmbedded(w, made) },
		func() error { return w.bytes(netbootFolder+"/"+bootScriptName, []byte(script)) },
		func() error {
			return writeSignature(w, signer, netbootFolder+"/"+manifestFileName, made.manifestRaw)
		},
		func() error { return w.bytes(netbootFolder+"/"+manifestFileName, made.manifestRaw) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// writeEmbedded makes payload.cpio.
func (p *Plan) writeEmbedded(w *setWriter, made *parts) error {
	if !p.opt.EmbedPayload {
		return nil
	}
	in, err := os.Open(made.payload)
	if err != nil {
		return err
	}
	defer in.Close() // only read
	// The archive's own size is not known before; the payload's is near.
	size := made.manifest.Payload.Size
	counted := &counter{}
	err = w.file(netbootFolder+"/"+payloadCPIOName, size, func(f io.Writer) error {
		counted.w = f
		return writePayloadCPIO(counted, made.manifestRaw, &ctxReader{w.ctx, in}, size)
	})
	w.res.Files[len(w.res.Files)-1].Size = counted.n
	return err
}

// writePayloadCPIO makes the second initrd that carries payload and manifest.
func writePayloadCPIO(w io.Writer, manifestRaw []byte, payload io.Reader, size int64) error {
	c := cpio.NewWriter(w)
	if err := addFile(c, embeddedFolder+"/"+manifestFileName, 0o444, manifestRaw); err != nil {
		return err
	}
	if err := c.File(embeddedFolder+"/"+manifestPayloadName, 0o444, size, payload); err != nil {
		return err
	}
	return c.Close()
}

// counter counts what goes through it.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// ctxReader ends a long copy when its context ends.
type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (r *ctxReader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}
