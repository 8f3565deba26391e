package debs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const lockRetry = 100 * time.Millisecond

// lock waits until no other process fetches into the cache.
func (c Cache) lock(ctx context.Context) (unlock func(), err error) {
	path := filepath.Join(c.Dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("lock package cache: %w", err)
	}
	said := false
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock package cache %q: %w", path, err)
		}
		if !said {
			c.Log("waiting for another program that fetches packages into " + c.Dir)
			said = true
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("wait for package cache: %w", context.Cause(ctx))
		case <-time.After(lockRetry):
		}
	}
}
