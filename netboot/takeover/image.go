package takeover

import (
	"bytes"
	"fmt"
	"io"

	"xnodeos.org/internal/cpio"
	"xnodeos.org/internal/nodeconfig"
)

const pageSize = 4096

// Names in the initramfs of a payload that comes with the initrd.
const (
	embeddedManifest = "xnode/payload/manifest.json"
	embeddedPayload  = "xnode/payload/system.squashfs"
)

// ramdisk is the new system's initrd in pieces. Each begins at a multiple of
// the page size, where the kernel that unpacks it skips the zeros between two
// archives: so the large ones are loaded from where they lie, without a copy.
type ramdisk struct {
	pieces []piece
	size   int64
}

type piece struct {
	at   int64
	data []byte
}

func (r *ramdisk) add(data []byte) {
	if len(data) == 0 {
		return
	}
	at := pageUp(r.size)
	r.pieces = append(r.pieces, piece{at, data})
	r.size = at + int64(len(data))
}

// compose lines up the image's initrd, the hand-over and, if there is one, the
// payload with its manifest.
func compose(initrd, handOver, manifestRaw, payload []byte) (*ramdisk, error) {
	r := &ramdisk{}
	r.add(initrd)
	r.add(handOver)
	if len(payload) == 0 {
		return r, nil
	}
	head, tail, err := payloadArchive(manifestRaw, int64(len(payload)))
	if err != nil {
		return nil, fmt.Errorf("pack payload: %w", err)
	}
	// The head ends at a page's end, so that the payload begins a page; the
	// payload's last, broken page goes into memory together with the tail.
	whole := len(payload) / pageSize * pageSize
	r.add(append(make([]byte, pageUp(int64(len(head)))-int64(len(head))), head...))
	r.add(payload[:whole])
	r.add(append(bytes.Clone(payload[whole:]), tail...))
	return r, nil
}

// payloadArchive makes a newc archive in two parts: what comes before the
// payload and what comes after it.
func payloadArchive(manifestRaw []byte, size int64) (head, tail []byte, err error) {
	var out split
	w := cpio.NewWriter(&out)
	if err := w.File(embeddedManifest, 0o444, int64(len(manifestRaw)), bytes.NewReader(manifestRaw)); err != nil {
		return nil, nil, err
	}
	if err := w.File(embeddedPayload, 0o444, size, &hole{out: &out, left: size}); err != nil {
		return nil, nil, err
	}
	if err := w.Close(); err != nil {
		return nil, nil, err
	}
	return out.head, out.now, nil
}

// split keeps what is written, except for the content of one file.
type split struct {
	head, now []byte
	skip      int64
}

func (s *split) Write(b []byte) (int, error) {
	n := min(s.skip, int64(len(b)))
	s.skip -= n
	s.now = append(s.now, b[n:]...)
	return len(b), nil
}

// hole stands for the content; its first read ends the head.
type hole struct {
	out   *split
	left  int64
	begun bool
}

func (h *hole) Read(b []byte) (int, error) {
	if !h.begun {
		h.begun = true
		h.out.head, h.out.now, h.out.skip = h.out.now, nil, h.left
	}
	if h.left == 0 {
		return 0, io.EOF
	}
	n := min(h.left, int64(len(b)))
	clear(b[:n])
	h.left -= n
	return int(n), nil
}

func pageUp(n int64) int64 { return (n + pageSize - 1) / pageSize * pageSize }

// WriteInitrd writes the initrd that a takeover would start the new system
// with, for a virtual machine that is to start with it at once. No memory is
// locked for it: handOver should hold no secret that matters.
func WriteInitrd(w io.Writer, src Source, handOver *nodeconfig.Config) error {
	var packed bytes.Buffer
	if err := handOver.WriteTakeover(&packed); err != nil {
		return err
	}
	r, err := compose(src.Initrd, packed.Bytes(), src.ManifestRaw, src.Payload)
	if err != nil {
		return err
	}
	at := int64(0)
	for _, p := range r.pieces {
		if _, err := w.Write(make([]byte, p.at-at)); err != nil {
			return err
		}
		if _, err := w.Write(p.data); err != nil {
			return err
		}
		at = p.at + int64(len(p.data))
	}
	return nil
}
