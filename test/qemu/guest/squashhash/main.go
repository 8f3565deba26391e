// Command squashhash is the only program of a test guest: as its init it
// mounts the squashfs on /dev/vda with the kernel's own driver, prints the
// treesum of what it sees, and switches the machine off.
//
// Whatever goes wrong is printed and also ends in switching off, so that the
// test that started the guest never waits for its deadline.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/imagebuild/squashfs"
	"xnodeos.org/internal/kmod"
	"xnodeos.org/test/qemu/guest/squashhash/treesum"
)

const (
	device   = "/dev/vda"
	mountAt  = "/mnt"
	patience = 30 * time.Second // until the device is there; an emulated machine is slow
)

func main() {
	sum, err := run()
	if err != nil {
		fmt.Println("squashhash: error:", err)
	} else {
		fmt.Println("squashhash: sum", sum)
	}
	unix.Sync() // lets the console drain
	fmt.Println("squashhash: switching off:", unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
}

func run() (treesum.Sum, error) {
	for _, m := range []struct{ kind, at string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := mount("none", m.at, m.kind, 0); err != nil {
			return treesum.Sum{}, err
		}
	}
	if err := loadModules("virtio_pci", "virtio_blk", "squashfs"); err != nil {
		return treesum.Sum{}, err
	}
	begun := time.Now()
	for {
		if _, err := os.Stat(device); err == nil {
			break
		} else if time.Since(begun) > patience {
			return treesum.Sum{}, fmt.Errorf("wait for the disk: %w", err)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if err := mount(device, mountAt, "squashfs", unix.MS_RDONLY); err != nil {
		return treesum.Sum{}, err
	}
	return treesum.Of(mountAt, checkOwner)
}

func mount(what, at, kind string, flags uintptr) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	err := unix.Mount(what, at, kind, flags, "")
	if err != nil && !errors.Is(err, unix.EBUSY) { // the kernel may have mounted devtmpfs
		return fmt.Errorf("mount %s on %s: %w", kind, at, err)
	}
	return nil
}

func loadModules(names ...string) error {
	dirs, err := filepath.Glob("/lib/modules/*")
	if err != nil || len(dirs) != 1 {
		return fmt.Errorf("find the modules: %q, %w", dirs, errors.Join(err, fs.ErrNotExist))
	}
	index, err := kmod.Open(os.DirFS(dirs[0]))
	if err != nil {
		return err
	}
	mods, err := index.Resolve(names...)
	if err != nil {
		return err
	}
	for _, m := range mods {
		if err := kmod.Load(os.DirFS(dirs[0]), m); err != nil {
			return err
		}
	}
	return nil
}

// checkOwner fails unless the inode is as the image promises beyond what the
// tree holds.
func checkOwner(path string, info fs.FileInfo) error {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%q: no inode", path)
	}
	if st.Uid != 0 || st.Gid != 0 || st.Mtim.Sec != squashfs.DefaultMTime {
		return fmt.Errorf("%q: owner %d:%d, time %d; want 0:0 and %d", path, st.Uid, st.Gid, st.Mtim.Sec, squashfs.DefaultMTime)
	}
	return nil
}
