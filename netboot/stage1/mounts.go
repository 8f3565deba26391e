package stage1

import (
	"fmt"
	"path"
)

// newRoot is where the system's root is built. It must not lie below /run, which
// is moved into it.
const newRoot = "/newroot"

// mountOp is one mount(2).
type mountOp struct {
	Source, Target, Type string
	Flags                []mountFlag
	Data                 string
}

// mountFlag is a flag by name, so that plans can be read and compared.
type mountFlag string

const (
	flagReadOnly mountFlag = "ro"
	flagNoSUID   mountFlag = "nosuid"
	flagNoDev    mountFlag = "nodev"
	flagNoExec   mountFlag = "noexec"
	flagMove     mountFlag = "move"
)

// String describes the mount in errors.
func (m mountOp) String() string {
	return fmt.Sprintf("mount %s (%s) on %s", m.Source, m.Type, m.Target)
}

// earlyMounts are what a program needs to see the machine. The system mounts
// everything else itself (/dev/pts with the group id that its libc expects,
// /dev/shm, control groups). /run gets NixOS's bound.
func earlyMounts() []mountOp {
	return []mountOp{
		{"devtmpfs", "/dev", "devtmpfs", []mountFlag{flagNoSUID}, "mode=0755"},
		{"proc", "/proc", "proc", []mountFlag{flagNoSUID, flagNoDev, flagNoExec}, ""},
		{"sysfs", "/sys", "sysfs", []mountFlag{flagNoSUID, flagNoDev, flagNoExec}, ""},
		{"tmpfs", "/run", "tmpfs", []mountFlag{flagNoSUID, flagNoDev}, "mode=0755,size=25%"},
	}
}

// Places of the store's layers, as on NixOS live media. They stay visible below
// the new root, so that what the overlay holds on to has a name.
const (
	payloadDir = newRoot + "/nix/.ro-store" // the payload's root
	storeLower = payloadDir + "/store"
	storeRW    = newRoot + "/nix/.rw-store"
	storeUpper = storeRW + "/store"
	storeWork  = storeRW + "/work"
	storeDir   = newRoot + "/nix/store"
)

// rootMounts builds the new root around the payload on a block device. Folders
// are made before the mount that follows them. The sizes are bounds, not
// reservations: neither a full / nor a full store can take all memory.
func rootMounts(device string) []rootStep {
	return []rootStep{
		{Mount: mountOp{"tmpfs", newRoot, "tmpfs", nil, "mode=0755,size=50%"}},
		{Dirs: []string{payloadDir, storeRW, storeDir},
			Mount: mountOp{device, payloadDir, "squashfs", []mountFlag{flagReadOnly, flagNoDev}, ""}},
		{Mount: mountOp{"tmpfs", storeRW, "tmpfs", []mountFlag{flagNoDev}, "mode=0755,size=50%"}},
		{Dirs: []string{storeUpper, storeWork},
			Mount: mountOp{"overlay", storeDir, "overlay", []mountFlag{flagNoDev},
				"lowerdir=" + storeLower + ",upperdir=" + storeUpper + ",workdir=" + storeWork}},
	}
}

// registration is the payload's list of store paths, outside the store, where
// the system finds it: the link's place in the new root, and where it leads.
const (
	registrationLink   = newRoot + "/nix-path-registration"
	registrationTarget = "nix/.ro-store/nix-path-registration"
)

// rootStep makes folders, then mounts.
type rootStep struct {
	Dirs  []string
	Mount mountOp
}

// moveMounts takes the early mounts into the new root, /proc last: until then an
// error can still be looked into.
func moveMounts() []mountOp {
	var moves []mountOp
	for _, dir := range []string{"/dev", "/sys", "/run", "/proc"} {
		moves = append(moves, mountOp{dir, path.Join(newRoot, dir), "", []mountFlag{flagMove}, ""})
	}
	return moves
}
