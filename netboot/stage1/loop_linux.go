package stage1

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// attachLoop makes a read-only loop device of a file. It lasts until the
// returned file is closed and nothing is mounted from it (LO_FLAGS_AUTOCLEAR).
func attachLoop(path string) (*os.File, error) {
	backing, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("attach loop device: %w", err)
	}
	defer backing.Close()
	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("attach loop device: %w", err)
	}
	defer control.Close()
	// Another may take the free device between the two calls.
	for range 16 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}
		loop, err := attachLoopTo(fmt.Sprintf("/dev/loop%d", n), backing)
		if errors.Is(err, unix.EBUSY) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("attach %q to a loop device: %w", path, err)
		}
		return loop, nil
	}
	return nil, fmt.Errorf("attach %q to a loop device: all are busy", path)
}

func attachLoopTo(device string, backing *os.File) (*os.File, error) {
	loop, err := os.OpenFile(device, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	info := unix.LoopInfo64{Flags: unix.LO_FLAGS_READ_ONLY | unix.LO_FLAGS_AUTOCLEAR}
	copy(info.File_name[:len(info.File_name)-1], backing.Name())
	err = unix.IoctlLoopConfigure(int(loop.Fd()), &unix.LoopConfig{Fd: uint32(backing.Fd()), Info: info})
	// Kernels before 5.8 do not know LOOP_CONFIGURE.
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.ENOSYS) {
		err = attachLoopOld(loop, backing, &info)
	}
	if err != nil {
		return nil, errors.Join(err, loop.Close())
	}
	return loop, nil
}

func attachLoopOld(loop, backing *os.File, info *unix.LoopInfo64) error {
	if err := unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(backing.Fd())); err != nil {
		return err
	}
	if err := unix.IoctlLoopSetStatus64(int(loop.Fd()), info); err != nil {
		return errors.Join(err, unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0))
	}
	return nil
}
