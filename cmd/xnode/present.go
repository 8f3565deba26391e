package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"xnodeos.org/agent/statusapi"
	"xnodeos.org/agent/units"
)

// notifyLimit is how long a word to systemd may take.
const notifyLimit = 2 * time.Second

// chronicle has the newest events of the history at hand, and reads the file
// again when it has changed: a download shows itself many times a second.
type chronicle struct {
	at     layout
	stamp  string
	events []statusapi.Event
}

func (c *chronicle) newest() []statusapi.Event {
	stamp := ""
	if info, err := os.Stat(c.at.state(historyFile)); err == nil {
		stamp = fmt.Sprint(info.ModTime().UnixNano(), info.Size())
	}
	if stamp == c.stamp {
		return c.events
	}
	all, err := c.at.history()
	if err != nil {
		return c.events
	}
	c.stamp = stamp
	c.events = append([]statusapi.Event(nil), all[:min(len(all), statusapi.HistoryShown)]...) // not the rest with it
	return c.events
}

// feedWatchdog tells systemd that the process lives, as often as it wants to
// hear it. Alive returns only if it does.
func feedWatchdog(ctx context.Context, notify units.Notifier, alive func(), log *slog.Logger) error {
	every, err := units.WatchdogInterval(os.Getenv("WATCHDOG_USEC"), os.Getenv("WATCHDOG_PID"), os.Getpid())
	if err != nil || every == 0 {
		return err
	}
	beat(ctx, every, notify, alive, log)
	return nil
}

// beat goes on although systemd does not hear it for a moment, as while it
// executes itself anew in a switch: whether that was too long is its to say.
func beat(ctx context.Context, every time.Duration, notify units.Notifier, alive func(), log *slog.Logger) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		alive()
		brief, cancel := context.WithTimeout(ctx, notifyLimit)
		err := notify.Alive(brief)
		cancel()
		if err != nil && ctx.Err() == nil {
			log.Warn("the watchdog is not told", "error", err)
		}
	}
}
