package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"xnodeos.org/agent/units"
)

// statusSocket is where the agent answers.
const statusSocket = "/run/xnode/agent/status.sock"

// follow stands in for the agent's unprivileged half: it is up, feeds its
// watchdog and answers on its socket.
func follow(ctx context.Context) error {
	if os.Geteuid() == 0 {
		return fmt.Errorf("the follower runs as root")
	}
	if err := os.WriteFile("/etc/agentunits", nil, 0o644); err == nil {
		return fmt.Errorf("the follower may write /etc")
	}
	for _, dir := range []string{"/var/lib/xnode/follower", "/var/lib/xnode/cache", filepath.Dir(statusSocket)} {
		if err := os.WriteFile(filepath.Join(dir, "probe"), nil, 0o644); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(statusSocket), "motd"), []byte("the agent is well\n"), 0o644); err != nil {
		return err
	}
	_ = os.Remove(statusSocket)
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", statusSocket)
	if err != nil {
		return err
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
		}
	}()
	notify := units.Notifier{Socket: os.Getenv("NOTIFY_SOCKET")}
	if err := notify.Ready(ctx, "standing in"); err != nil {
		return err
	}
	interval, err := units.WatchdogInterval(os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID"), os.Getpid())
	if err != nil || interval == 0 {
		return fmt.Errorf("the unit has no watchdog: %w", err)
	}
	for {
		if err := notify.Alive(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return notify.Stopping(context.WithoutCancel(ctx))
		case <-time.After(interval):
		}
	}
}

// apply stands in for the root half: it has nothing to recover and ends.
func apply() error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("the applier does not run as root")
	}
	return nil
}
