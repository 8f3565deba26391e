package imagebuild

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"xnodeos.org/imagebuild/sbom"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/trust"
)

// Names of what is said about the artifacts.
const (
	sumsName        = "SHA256SUMS"
	signatureSuffix = ".sig"

	// manifestNamespace is the role of a key that signs manifests and sums.
	manifestNamespace = trust.NamespaceManifest
)

// sums hashes finished files while others are still being written.
type sums struct {
	group errgroup.Group
	list  []*sum
}

type sum struct {
	name string
	hex  string
}

// add hashes the file at path, which is whole and will not change.
func (s *sums) add(ctx context.Context, name, path string) {
	entry := &sum{name: name}
	s.list = append(s.list, entry)
	s.group.Go(func() error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close() // only read
		h := sha256.New()
		if _, err := io.Copy(h, &ctxReader{ctx, f}); err != nil {
			return fmt.Errorf("hash %s: %w", name, err)
		}
		entry.hex = hex.EncodeToString(h.Sum(nil))
		return nil
	})
}

// text waits and returns what sha256sum --check reads, sorted by name.
func (s *sums) text() ([]byte, error) {
	if err := s.group.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(s.list, func(a, b *sum) int { return strings.Compare(a.name, b.name) })
	var b strings.Builder
	for _, entry := range s.list {
		b.WriteString(entry.hex + "  " + entry.name + "\n")
	}
	return []byte(b.String()), nil
}

// writeSBOM writes the bill of materials.
func (p *Plan) writeSBOM(w *setWriter, made *parts) error {
	loaders := map[string][]byte{}
	for name, blob := range made.loaders {
		loaders[name] = blob.Data
	}
	data, err := sbom.Build(sbom.Spec{
		Manifest: made.manifest, Closure: p.in.Closure, FirstStage: p.in.Init.Data, Loaders: loaders,
	})
	if err != nil {
		return err
	}
	return w.bytes(sbom.FileName, data)
}

// writeSums writes SHA256SUMS over everything that was written, and where
// there is a signer its signature.
func (p *Plan) writeSums(w *setWriter, signer *sshsign.Signer) error {
	text, err := w.sums.text()
	if err != nil {
		return err
	}
	if err := w.bytes(sumsName, text); err != nil {
		return err
	}
	return writeSignature(w, signer, sumsName, text)
}

// writeSignature writes NAME.sig, an SSHSIG over data; nothing without a signer.
func writeSignature(w *setWriter, signer *sshsign.Signer, name string, data []byte) error {
	if signer == nil {
		return nil
	}
	signature, err := signer.Sign(w.ctx, manifestNamespace, data)
	if err != nil {
		return fmt.Errorf("sign %s: %w", name, err)
	}
	return w.bytes(name+signatureSuffix, signature)
}

// removeStale takes away what an earlier build left and this one does not
// write: a payload.cpio with that build's system, signatures of files that are
// no more.
func (p *Plan) removeStale(out string, signed bool) error {
	var stale []string
	if slices.Contains(p.opt.Formats, Netboot) && !p.opt.EmbedPayload {
		stale = append(stale, netbootFolder+"/"+payloadCPIOName)
	}
	if !signed {
		stale = append(stale, sumsName+signatureSuffix)
		if slices.Contains(p.opt.Formats, Netboot) {
			stale = append(stale, netbootFolder+"/"+manifestFileName+signatureSuffix)
		}
	}
	var errs []error
	for _, name := range stale {
		if err := os.Remove(filepath.Join(out, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove %s of an earlier build: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
