package stage1

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/verity"
)

// verityName names the device below /dev/mapper, for people.
const verityName = "xnode-payload"

// The device mapper's interface, linux/dm-ioctl.h (version 4). The kernel adds
// to it and takes nothing away.
const (
	dmControl   = "/dev/mapper/control"
	dmCreate    = 0xc138fd03
	dmSuspend   = 0xc138fd06
	dmRemove    = 0xc138fd04
	dmTableLoad = 0xc138fd09

	dmHeader   = 312 // struct dm_ioctl
	dmTarget   = 40  // struct dm_target_spec
	dmReadOnly = 1 << 0
)

// dmRequest is struct dm_ioctl with what follows it.
func dmRequest(flags uint32, payload []byte) []byte {
	b := make([]byte, dmHeader+len(payload))
	le := binary.LittleEndian
	le.PutUint32(b[0:], 4) // version 4.0.0
	le.PutUint32(b[12:], uint32(len(b)))
	le.PutUint32(b[16:], dmHeader) // where the payload begins
	le.PutUint32(b[28:], flags)
	copy(b[48:], verityName)
	copy(b[dmHeader:], payload)
	return b
}

// removeVerity removes the device, as soon as nothing is mounted from it.
func removeVerity() {
	control, err := os.OpenFile(dmControl, os.O_RDWR, 0)
	if err != nil {
		return // then there is none
	}
	defer control.Close()
	const deferred = 1 << 17
	b := dmRequest(deferred, nil)
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, control.Fd(), dmRemove, uintptr(unsafe.Pointer(&b[0])))
}

// dmVerityTarget is struct dm_target_spec and its parameters, padded to 8.
func dmVerityTarget(tree verity.Tree, device string) []byte {
	params := tree.Params(device)
	b := make([]byte, (dmTarget+len(params)+1+7)/8*8)
	le := binary.LittleEndian
	le.PutUint64(b[8:], tree.Sectors())
	le.PutUint32(b[20:], uint32(len(b)))
	copy(b[24:], "verity")
	copy(b[dmTarget:], params)
	return b
}

// mapVerity makes a device that gives the data of the given one only where it
// hashes to the tree's root. The kernel checks each block as it is read, and
// answers a changed one with an I/O error.
func mapVerity(device string, tree verity.Tree) (string, error) {
	control, err := os.OpenFile(dmControl, os.O_RDWR, 0)
	if err != nil {
		return "", fmt.Errorf("set up dm-verity: %w", err)
	}
	defer control.Close()
	call := func(what string, cmd uintptr, b []byte) error {
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), cmd, uintptr(unsafe.Pointer(&b[0]))); errno != 0 {
			return fmt.Errorf("set up dm-verity: %s: %w", what, errno)
		}
		return nil
	}
	created := dmRequest(0, nil)
	if err := call("create device", dmCreate, created); err != nil {
		return "", err
	}
	number := binary.LittleEndian.Uint64(created[40:])
	load := dmRequest(dmReadOnly, dmVerityTarget(tree, device))
	binary.LittleEndian.PutUint32(load[20:], 1) // targets
	err = call("load table", dmTableLoad, load)
	if err == nil {
		err = call("start device", dmSuspend, dmRequest(0, nil)) // without the suspend flag: resume
	}
	if err != nil {
		return "", errors.Join(err, call("remove device", dmRemove, dmRequest(0, nil)))
	}
	return fmt.Sprintf("/dev/dm-%d", unix.Minor(number)), nil
}
