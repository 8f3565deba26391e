package stage1

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/nodeconfig"
)

func (f mountFlag) bits() uintptr {
	switch f {
	case flagReadOnly:
		return unix.MS_RDONLY
	case flagNoSUID:
		return unix.MS_NOSUID
	case flagNoDev:
		return unix.MS_NODEV
	case flagNoExec:
		return unix.MS_NOEXEC
	case flagMove:
		return unix.MS_MOVE
	}
	panic("BUG: mount flag " + string(f))
}

// do makes the mount point, if it is missing, and mounts.
func (m mountOp) do() error {
	var flags uintptr
	for _, f := range m.Flags {
		flags |= f.bits()
	}
	if err := os.MkdirAll(m.Target, 0o755); err != nil {
		return fmt.Errorf("%s: %w", m, err)
	}
	if err := unix.Mount(m.Source, m.Target, m.Type, flags, m.Data); err != nil {
		return fmt.Errorf("%s: %w", m, err)
	}
	return nil
}

// mountEarly mounts what the kernel may have mounted itself already.
func mountEarly() error {
	for _, m := range earlyMounts() {
		if err := m.do(); err != nil && !errors.Is(err, unix.EBUSY) {
			return err
		}
	}
	return nil
}

// Places of media below /run, which goes into the new root with all that is
// mounted there: the loop device of the payload keeps its file.
const (
	runDir    = "/run/xnode"
	mediaDir  = runDir + "/media"
	mediumDir = runDir + "/medium"
)

// kernelMounter is the mediumMounter of the running kernel.
type kernelMounter struct {
	modules *Modules
}

func (k kernelMounter) Mount(v Volume) (string, error) {
	if err := k.modules.Load("isofs"); err != nil {
		return "", err
	}
	dir := filepath.Join(mediaDir, strings.ReplaceAll(strings.TrimPrefix(v.Device, "/dev/"), "/", "-"))
	return dir, mountOp{v.Device, dir, string(VolumeISO), []mountFlag{flagReadOnly, flagNoSUID, flagNoDev, flagNoExec}, ""}.do()
}

func (kernelMounter) Unmount(dir string) {
	// A drive that hangs must not hang us: the mount goes when it can.
	_ = unix.Unmount(dir, unix.MNT_DETACH)
	_ = os.Remove(dir)
}

func (kernelMounter) Keep(dir string) (string, error) {
	if err := (mountOp{dir, mediumDir, "", []mountFlag{flagMove}, ""}).do(); err != nil {
		return "", err
	}
	// What is left of other media may be in use; only empty folders go.
	_ = os.Remove(dir)
	_ = os.Remove(mediaDir)
	return mediumDir, nil
}

// readConfigVolume reads the node config on a FAT volume. The volume is mounted
// over a loop device: a mount of the partition itself would lock out a mount of
// the whole disk, which may be the medium.
func readConfigVolume(modules *Modules, v Volume) (c *nodeconfig.Config, notes []string, err error) {
	for _, name := range []string{"loop", "vfat", "nls_cp437", "nls_ascii", "nls_iso8859-1"} {
		if err := modules.Load(name); err != nil {
			modules.con.Debugf("%v", err) // which tables a kernel wants differs; the mount tells
		}
	}
	loop, err := attachLoop(v.Device)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, loop.Close()) }()
	dir := filepath.Join(mediaDir, "config")
	op := mountOp{loop.Name(), dir, string(VolumeFAT), []mountFlag{flagReadOnly, flagNoSUID, flagNoDev, flagNoExec}, ""}
	if err := op.do(); err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, unix.Unmount(dir, 0), os.Remove(dir)) }()
	return nodeconfig.ReadVolume(os.DirFS(dir))
}
