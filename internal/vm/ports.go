package vm

import (
	"context"
	"fmt"
	"net"
)

// FreePort returns a TCP port of the loopback that is free now. QEMU cannot be
// handed an open socket for a forward, so another program may take the port
// before QEMU does; QEMU then refuses to start and says so.
func FreePort(ctx context.Context) (uint16, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	addr, ok := l.Addr().(*net.TCPAddr)
	if err := l.Close(); err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	if !ok {
		return 0, fmt.Errorf("find a free port: listener has address %v", l.Addr())
	}
	return uint16(addr.Port), nil //nolint:gosec // a TCP port has 16 bits
}
