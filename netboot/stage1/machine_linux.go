package stage1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// uptime is the time since the kernel started, as its own log lines have it.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// wallClock is the kernel's idea of the time, in seconds since 1970.
func wallClock() int64 {
	var now unix.Timeval
	if err := unix.Gettimeofday(&now); err != nil {
		return 0
	}
	return max(now.Sec, 0)
}

// raiseClock sets the clock to at least floor, in seconds since 1970: a machine
// without a battery starts in the past, where no certificate is valid yet.
func raiseClock(floor int64) (raised bool, err error) {
	var now unix.Timeval
	if err := unix.Gettimeofday(&now); err != nil {
		return false, fmt.Errorf("read clock: %w", err)
	}
	if now.Sec >= floor {
		return false, nil
	}
	if err := unix.Settimeofday(&unix.Timeval{Sec: floor}); err != nil {
		return false, fmt.Errorf("set clock: %w", err)
	}
	return true, nil
}

// consoleFile writes to a terminal of the kernel. It does not wait for one that
// takes no bytes: the rest of the line is lost there.
type consoleFile struct {
	fd int
}

// consolePatience is how long one line may take.
const consolePatience = 2 * time.Second

func (c consoleFile) Write(p []byte) (int, error) {
	done := 0
	for end := uptime() + consolePatience; done < len(p) && uptime() < end; {
		n, err := unix.Write(c.fd, p[done:])
		switch {
		case n > 0:
			done += n
		case errors.Is(err, unix.EAGAIN):
			fds := []unix.PollFd{{Fd: int32(c.fd), Events: unix.POLLOUT}}
			_, _ = unix.Poll(fds, 100)
		case err != nil && !errors.Is(err, unix.EINTR):
			return done, err
		}
	}
	return done, nil
}

// openConsoles attaches every active console of the kernel, or /dev/console
// where it names none.
func openConsoles(con *Console) {
	names := strings.Fields(readLine(os.DirFS("/sys"), "class/tty/console/active"))
	opened := 0
	for _, name := range append(names, "console") {
		if name == "console" && opened > 0 {
			continue
		}
		fd, err := unix.Open(filepath.Join("/dev", name), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
		if err != nil {
			continue // a console without hardware behind it
		}
		con.Attach(consoleFile{fd})
		opened++
	}
}

// listenUevents hands on what the kernel says of devices, until the context
// ends. Without the socket devices are found by polling.
func listenUevents(ctx context.Context) (<-chan Uevent, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("open uevent socket: %w", err)
	}
	// Group 1 is the kernel, 2 is udev.
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1})
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 200_000})
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("listen for uevents: %w", err)
	}
	events := make(chan Uevent, 1024)
	go func() {
		defer unix.Close(fd)
		buf := make([]byte, 16<<10)
		for ctx.Err() == nil {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				continue // the timeout above, or events lost: the next scan finds the devices
			}
			if e, ok := ParseUevent(buf[:n]); ok {
				select {
				case events <- e:
				case <-ctx.Done():
				}
			}
		}
	}()
	return events, nil
}

func openBlock(device string) (blockReader, error) {
	return os.Open(device)
}

// mediumKind tells people where to look: the CD drive, a stick, or a disk.
func mediumKind(device string) string {
	name := strings.TrimPrefix(device, "/dev/")
	target, err := os.Readlink(filepath.Join("/sys/class/block", name))
	switch {
	case strings.HasPrefix(name, "sr"):
		return "cd"
	case err == nil && strings.Contains(target, "/usb"):
		return "usb"
	}
	return "disk"
}

func readMemory() (Memory, error) {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return Memory{}, fmt.Errorf("read memory size: %w", err)
	}
	return ParseMeminfo(string(data))
}

func kernelRelease() (string, error) {
	u, err := uname()
	return unix.ByteSliceToString(u.Release[:]), err
}

func uname() (unix.Utsname, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return u, fmt.Errorf("ask for the kernel's release: %w", err)
	}
	return u, nil
}

// kernelMade is the time when the running kernel was made, 0 if it does not say.
func kernelMade() int64 {
	u, err := uname()
	if err != nil {
		return 0
	}
	return kernelTime(unix.ByteSliceToString(u.Version[:]))
}

// syncWait bounds the last writing to disks: a broken one must not stop a reboot.
const syncWait = 5 * time.Second

// reboot starts the machine again. It returns only if the kernel refuses.
func reboot(ctx context.Context) error {
	synced := make(chan struct{})
	go func() {
		unix.Sync()
		close(synced)
	}()
	pause(ctx, synced, syncWait)
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}
