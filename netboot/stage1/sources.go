package stage1

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/netboot/stage1/fetch"
)

// payloadDir is the folder of manifest and payload, on a medium and in the
// initramfs.
const (
	mediumPayloadDir   = "xnode"
	embeddedPayloadDir = "xnode/payload"
)

// wantedManifest is the check that ties a payload to the command line, or to the
// keys of the node config.
type wantedManifest struct{ fetch.Check }

// read returns the manifest in dir and its digest if it is a wanted one.
func (w wantedManifest) read(dir string) (*manifest.Manifest, string, error) {
	data, err := readBounded(filepath.Join(dir, fetch.ManifestName), manifest.MaxSize)
	if err != nil {
		return nil, "", fmt.Errorf("read manifest: %w", err)
	}
	var signature []byte
	if w.NeedsSignature() {
		signature, err = readBounded(filepath.Join(dir, fetch.SignatureName), fetch.MaxSignature)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // without one, Accept says what to do
			return nil, "", fmt.Errorf("read manifest: %w", err)
		}
	}
	m, err := w.Accept(data, signature)
	return m, manifest.DigestOf(data), err
}

// readBounded reads a file up to one byte past its limit.
func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit+1))
}

// embeddedSource is the payload that came inside the initrd.
type embeddedSource struct {
	root string // of the initramfs
	want wantedManifest
	gone bool
}

func (e *embeddedSource) Next(_ context.Context, _ func(string, error)) (*Candidate, error) {
	dir := filepath.Join(e.root, embeddedPayloadDir)
	if e.gone {
		return nil, errNoMore
	}
	e.gone = true
	if _, err := os.Lstat(filepath.Join(dir, manifest.FileName)); errors.Is(err, fs.ErrNotExist) {
		return nil, errNoMore
	}
	m, digest, err := e.want.read(dir)
	if err != nil {
		return nil, fmt.Errorf("payload in the initrd: %w", err)
	}
	return &Candidate{Manifest: m, Digest: digest, Medium: "the initrd", Path: filepath.Join(dir, m.Payload.Name)}, nil
}

func (e *embeddedSource) Report() []string { return nil }

// mediumMounter makes the files of a volume readable.
type mediumMounter interface {
	// Mount returns the folder of the volume's root.
	Mount(v Volume) (dir string, err error)
	// Unmount undoes Mount.
	Unmount(dir string)
	// Keep moves a mounted volume to where it stays after the hand-over.
	Keep(dir string) (string, error)
}

// localSource is the payload on a CD, stick or disk.
type localSource struct {
	volumes *Volumes
	mounter mediumMounter
	want    wantedManifest
	kind    func(device string) string // "cd", "usb" or "disk"
	tried   map[string]bool
}

func (l *localSource) Next(ctx context.Context, reject func(string, error)) (*Candidate, error) {
	for ctx.Err() == nil {
		changed := l.volumes.Changed.C()
		for _, v := range l.volumes.Of(VolumeISO) {
			if l.tried[v.Device] {
				continue
			}
			l.tried[v.Device] = true
			c, err := l.try(v)
			if err == nil {
				return c, nil
			}
			reject(l.name(v), err)
		}
		pause(ctx, changed, time.Second)
	}
	return nil, ctx.Err()
}

func (l *localSource) name(v Volume) string { return l.kind(v.Device) + " " + v.Device }

func (l *localSource) try(v Volume) (*Candidate, error) {
	dir, err := l.mounter.Mount(v)
	if err != nil {
		return nil, err
	}
	place := filepath.Join(dir, mediumPayloadDir)
	m, digest, err := l.want.read(place)
	if err != nil {
		l.mounter.Unmount(dir)
		return nil, err
	}
	return &Candidate{
		Manifest: m,
		Digest:   digest,
		Medium:   l.name(v),
		Path:     filepath.Join(place, m.Payload.Name),
		Keep: func() (string, error) {
			kept, err := l.mounter.Keep(dir)
			return filepath.Join(kept, mediumPayloadDir, m.Payload.Name), err
		},
		Release: func() { l.mounter.Unmount(dir) },
	}, nil
}

func (l *localSource) Report() []string { return l.volumes.Report() }
