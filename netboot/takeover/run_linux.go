package takeover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/command"
)

// ReadProcess asks the kernel about this process.
func ReadProcess() (Process, error) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return Process{}, fmt.Errorf("uname: %w", err)
	}
	return Process{EUID: os.Geteuid(), Machine: unix.ByteSliceToString(u.Machine[:]), Release: unix.ByteSliceToString(u.Release[:])}, nil
}

// Prepare judges the old system and packs what is to be loaded. mapped is the
// takeover file where it is mapped into memory. What is wrong is in the plan's
// verdict; the error is the context's.
func Prepare(ctx context.Context, src Source, opt Options, mapped []byte) (*Plan, error) {
	locked := error(nil)
	if opt.Process.EUID == 0 {
		locked = lockProcess(mapped)
	}
	plan, err := prepare(ctx, src, opt, linux{opt.Root}, lockedOrNot(opt.Process.EUID == 0))
	if err != nil {
		return nil, err
	}
	if locked != nil {
		plan.Verdict.add(bad("hand-over", Fail, locked.Error(), "raise the limit of locked memory (ulimit -l unlimited)"))
	}
	return plan, nil
}

// lockedOrNot gives a dry run without root memory as it comes: such a user can
// read no secret, and the plan is refused in any case.
func lockedOrNot(root bool) func(size int) ([]byte, error) {
	if root {
		return lockedMemory
	}
	return func(size int) ([]byte, error) { return make([]byte, size), nil }
}

// Load loads the new system and returns how much memory of the old one that
// took at its peak, in bytes. Until Leave nothing else has changed, and Unload
// takes it back.
func (p *Plan) Load() (peak int64, err error) {
	before := available()
	lowest := make(chan int64)
	stop := make(chan struct{})
	go func() {
		low := before
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				lowest <- min(low, available())
				return
			case <-tick.C:
				low = min(low, available())
			}
		}
	}()
	err = p.load()
	close(stop)
	return before - <-lowest, err
}

// Unload takes a loaded system back.
func (p *Plan) Unload() error { return p.kernel.Unload() }

func available() int64 {
	data, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	return memoryLine(string(data), "MemAvailable:")
}

// JumpWord is the only argument of the process that jumps.
const JumpWord = "--jump-into-the-loaded-kernel"

// Leave starts the process that jumps, program being this program's file, and
// returns at once, so that a session over the network ends in order.
func Leave(ctx context.Context, program string) error {
	// Not bound to the context's end, and nobody waits: there is no way back from here.
	_, err := command.Start(context.WithoutCancel(ctx), command.Cmd{Name: program, Args: []string{JumpWord}, Dir: "/"})
	if err != nil {
		return fmt.Errorf("leave the old system: %w", err)
	}
	return nil
}

const (
	// sessionTime is what a session over the network gets to end.
	sessionTime = 2 * time.Second
	// readOnlyTime bounds the wait for disks to become read-only.
	readOnlyTime = 15 * time.Second
)

// Jump puts the disks to rest and starts the loaded kernel. It returns only if
// that fails; a failure is also written to the kernel's log, as nobody watches.
func Jump() error {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGPIPE)
	// Out of the session's control group: its end may kill what is in it.
	for _, group := range []string{"/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/systemd/cgroup.procs"} {
		_ = os.WriteFile(group, []byte("0"), 0) // a system without it has no such habit
	}
	time.Sleep(sessionTime)
	err := jump()
	_ = os.WriteFile("/dev/kmsg", fmt.Appendf(nil, "<3>xnode-takeover: %v\n", err), 0) // there is nobody else to tell
	return err
}

func jump() error {
	loaded, err := os.ReadFile("/sys/kernel/kexec_loaded")
	if err != nil || strings.TrimSpace(string(loaded)) != "1" {
		return errors.Join(errors.New("the new kernel is no longer loaded; nothing was changed"), err)
	}
	unix.Sync()
	// Remount every disk read-only: files that are open do not hinder it.
	if err := os.WriteFile("/proc/sysrq-trigger", []byte("u"), 0); err != nil {
		_ = os.WriteFile("/dev/kmsg", fmt.Appendf(nil, "<4>xnode-takeover: disks are only synced: %v\n", err), 0) // going on is right, and so is saying it
	}
	const look = 50 * time.Millisecond
	for range readOnlyTime / look {
		mounts, err := os.ReadFile("/proc/mounts")
		if err != nil || !diskWritable(string(mounts)) {
			break
		}
		time.Sleep(look)
	}
	unix.Sync()
	return fmt.Errorf("start the loaded kernel: %w", unix.Reboot(unix.LINUX_REBOOT_CMD_KEXEC))
}

// diskWritable says whether a file system on a block device may be written.
func diskWritable(mounts string) bool {
	for line := range strings.Lines(mounts) {
		words := strings.Fields(line)
		if len(words) >= 4 && strings.HasPrefix(words[0], "/dev/") && strings.HasPrefix(words[3]+",", "rw,") {
			return true
		}
	}
	return false
}
