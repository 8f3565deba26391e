package vm

import (
	"fmt"
	"net"
	"time"
)

// maxFrame is the largest Ethernet frame that QEMU hands over.
const maxFrame = 68 << 10

// Wire is the bare end of a guest's network cable: whole Ethernet frames,
// without preamble and checksum. It closes when QEMU ends.
type Wire struct{ conn net.Conn }

// ReadFrame waits for the next frame from the guest.
func (w *Wire) ReadFrame() ([]byte, error) {
	buf := make([]byte, maxFrame)
	n, err := w.conn.Read(buf)
	if err != nil {
		return nil, fmt.Errorf("read from the wire: %w", err)
	}
	return buf[:n], nil
}

// WriteFrame sends one frame to the guest.
func (w *Wire) WriteFrame(frame []byte) error {
	if _, err := w.conn.Write(frame); err != nil {
		return fmt.Errorf("write to the wire: %w", err)
	}
	return nil
}

// SetReadDeadline bounds the next ReadFrame.
func (w *Wire) SetReadDeadline(t time.Time) error {
	return w.conn.SetReadDeadline(t) //nolint:wrapcheck // a plain wrapper
}
