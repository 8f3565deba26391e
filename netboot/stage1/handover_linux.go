package stage1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/manifest"
)

// buildRoot makes the new root around the squashfs file. With a tree the kernel
// checks each block of it.
func buildRoot(modules *Modules, path string, tree *manifest.Verity) error {
	if err := modules.Load("loop", "squashfs", "overlay"); err != nil {
		return err
	}
	loop, err := attachLoop(path)
	if err != nil {
		return err
	}
	// The mount holds the loop device from here on.
	defer loop.Close()
	device := loop.Name()
	if tree != nil {
		if device, err = mapVerity(device, tree.Tree()); err != nil {
			return err
		}
	}
	for _, step := range rootMounts(device) {
		for _, dir := range step.Dirs {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return fmt.Errorf("make new root: %w", err)
			}
		}
		if err := step.Mount.do(); err != nil {
			return err
		}
	}
	if err := os.Symlink(registrationTarget, registrationLink); err != nil {
		return fmt.Errorf("make new root: %w", err)
	}
	return nil
}

// dropRoot takes a new root away that cannot be used. What still holds on to it
// goes when it can.
func dropRoot() {
	_ = unix.Unmount(newRoot, unix.MNT_DETACH)
	_ = unix.Unmount(mediumDir, unix.MNT_DETACH)
	removeVerity()
}

// switchRoot makes the new root the root of PID 1 and gives the memory of the
// old one back. Until it returns /proc may be missing: nothing on the way reads
// it.
func switchRoot() error {
	old, err := os.Open("/")
	if err != nil {
		return fmt.Errorf("open old root: %w", err)
	}
	defer old.Close()
	for _, m := range moveMounts() {
		if err := m.do(); err != nil {
			return err
		}
	}
	if err := unix.Chdir(newRoot); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move new root to /: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	return emptyRoot(old)
}

// emptyRoot deletes what lies in the old root, if that is the initramfs, and
// never what is mounted in it.
func emptyRoot(old *os.File) error {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(old.Fd()), &fs); err != nil {
		return fmt.Errorf("look at old root: %w", err)
	}
	if fs.Type != unix.RAMFS_MAGIC && fs.Type != unix.TMPFS_MAGIC {
		return fmt.Errorf("refusing to empty the old root: it is not in memory (file system type %#x)", fs.Type)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(old.Fd()), &st); err != nil {
		return fmt.Errorf("look at old root: %w", err)
	}
	return emptyDir(old, st.Dev)
}

// emptyDir deletes the content of a folder on device dev. A mount point below
// shows another device, or refuses with EBUSY; both are left alone.
func emptyDir(dir *os.File, dev uint64) error {
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("empty old root: %w", err)
	}
	var errs []error
	for _, name := range names {
		var st unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil || st.Dev != dev {
			continue
		}
		flags := 0
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			flags = unix.AT_REMOVEDIR
			errs = append(errs, emptySub(dir, name, dev))
		}
		err := unix.Unlinkat(int(dir.Fd()), name, flags)
		if err != nil && !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, fmt.Errorf("empty old root: delete %q: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

func emptySub(dir *os.File, name string, dev uint64) error {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("empty old root: open %q: %w", name, err)
	}
	sub := os.NewFile(uintptr(fd), name)
	defer sub.Close()
	return emptyDir(sub, dev)
}

// prepareLimit bounds prepare-root: activation of a large system on a slow CD
// takes a minute.
const (
	prepareLimit = 10 * time.Minute
	prepareGrace = 500 * time.Millisecond
)

// prepareRoot runs the system's prepare-root, as NixOS's systemd initrd does:
// with the one variable that tells it not to start systemd itself. It runs in
// the new root already.
func prepareRoot(ctx context.Context, con *Console, system string) error {
	ctx, cancel := context.WithTimeout(ctx, prepareLimit)
	defer cancel()
	say := func(line string) { con.Sayf("prepare-root: %s", line) }
	err := command.Run(ctx, command.Cmd{
		Name:       filepath.Join(system, "prepare-root"),
		Dir:        "/",
		Env:        []string{"IN_NIXOS_SYSTEMD_STAGE1=true"},
		StdoutLine: say,
		StderrLine: say,
		Grace:      prepareGrace,
	})
	// It ended well, and something that it left running still holds its output:
	// killLeftovers sees to that.
	if errors.Is(err, exec.ErrWaitDelay) {
		return nil
	}
	return err
}

// killLeftovers ends everything that prepare-root left running: nothing of the
// first stage goes on into the system.
func killLeftovers() error {
	if err := unix.Kill(-1, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end leftover processes: %w", err)
	}
	return nil
}

// checkSystem sees a system that does not keep its manifest's word before the
// first stage gives up its own root.
func checkSystem(m *manifest.Manifest) error {
	name := filepath.Join(newRoot, m.System)
	if _, err := os.Lstat(name); err != nil {
		return fmt.Errorf("the payload does not hold the system of its manifest: %w", err)
	}
	needed := []string{"init"}
	if m.Handover == manifest.HandoverPrepareRoot {
		needed = append(needed, "prepare-root")
	}
	for _, file := range needed {
		if _, err := os.Lstat(filepath.Join(name, file)); err != nil {
			return fmt.Errorf("hand-over %q: %w", m.Handover, err)
		}
	}
	return nil
}

// execInit becomes the system's init, with the console as its terminal and an
// empty environment, as `env -i switch_root` leaves it. It returns only on
// failure.
func execInit(system string) error {
	console, err := unix.Open("/dev/console", unix.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		console, err = unix.Open("/dev/null", unix.O_RDWR, 0)
	}
	if err == nil {
		for fd := range 3 {
			if err := unix.Dup3(console, fd, 0); err != nil && console != fd {
				return fmt.Errorf("hand over the console: %w", err)
			}
		}
		if console > 2 {
			_ = unix.Close(console)
		}
	}
	init := filepath.Join(system, "init")
	err = syscall.Exec(init, []string{init}, nil)
	if errors.Is(err, unix.ENOENT) && strings.HasPrefix(system, "/nix/store/") {
		return fmt.Errorf("start %s: %w (the file or the interpreter that it names is missing)", init, err)
	}
	return fmt.Errorf("start %s: %w", init, err)
}
