package units

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// Notifier tells systemd about this process, as sd_notify(3) does. The zero
// value tells nobody.
type Notifier struct {
	// Socket is the environment's NOTIFY_SOCKET; empty: not under systemd.
	Socket string
}

// Ready says that the service is up and what it does.
func (n Notifier) Ready(ctx context.Context, status string) error {
	return n.send(ctx, "READY=1\nSTATUS="+oneLine(status))
}

// Status says what the service does now, for systemctl status.
func (n Notifier) Status(ctx context.Context, status string) error {
	return n.send(ctx, "STATUS="+oneLine(status))
}

// Alive feeds the watchdog of the service (WatchdogSec=).
func (n Notifier) Alive(ctx context.Context) error { return n.send(ctx, "WATCHDOG=1") }

// Stopping says that the service is on its way out.
func (n Notifier) Stopping(ctx context.Context) error { return n.send(ctx, "STOPPING=1") }

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

func (n Notifier) send(ctx context.Context, message string) error {
	if n.Socket == "" {
		return nil
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unixgram", n.Socket)
	if err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetWriteDeadline(deadline); err != nil {
			return fmt.Errorf("notify systemd: %w", err)
		}
	}
	if _, err := conn.Write([]byte(message)); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}

// WatchdogInterval reads WATCHDOG_USEC and WATCHDOG_PID of the environment
// (sd_watchdog_enabled(3)): how often Alive is to be said at least, which is
// half of what the service's WatchdogSec= allows. 0: no watchdog for the
// process with this id.
func WatchdogInterval(usec, pid string, self int) (time.Duration, error) {
	if usec == "" || pid != "" && pid != strconv.Itoa(self) {
		return 0, nil
	}
	n, err := strconv.ParseUint(usec, 10, 62)
	if err != nil || n == 0 || n > uint64((1<<62)/time.Microsecond) {
		return 0, fmt.Errorf("WATCHDOG_USEC is %q; want microseconds", usec)
	}
	return time.Duration(n) * time.Microsecond / 2, nil
}
