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
)

// payloadDir is the folder of manifest and payload, on a medium and in the
// initramfs.
const (
	mediumPayloadDir   = "xnode"
	embeddedPayloadDir = "xnode/payload"
)

// wantedManifest is the check that ties a payload to the command line.
type wantedManifest string

// read returns the manifest in dir if it is the wanted one.
func (w wantedManifest) read(dir string) (*manifest.Manifest, error) {
	f, err := os.Open(filepath.Join(dir, manifest.FileName))
	if err != nil {
		return nil, fmt.Errorf("open manifest: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, manifest.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if got := manifest.DigestOf(data); got != string(w) {
		return nil, fmt.Errorf("%s is %s, the command line names %s: the medium belongs to another kernel and initrd, or was changed",
			manifest.FileName, got, string(w))
	}
	m, err := manifest.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	return m, nil
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
	m, err := e.want.read(dir)
	if err != nil {
		return nil, fmt.Errorf("payload in the initrd: %w", err)
	}
	return &Candidate{Manifest: m, Medium: "the initrd", Path: filepath.Join(dir, m.Payload.Name)}, nil
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
	m, err := l.want.read(place)
	if err != nil {
		l.mounter.Unmount(dir)
		return nil, err
	}
	return &Candidate{
		Manifest: m,
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
