package stage1

import (
	"cmp"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// The functions of this file read a tree that looks like /sys.

// coldplugBuses are the buses whose devices may lead to a disk, a medium or a
// network. Walking all of /sys/devices instead costs seconds where every system
// call is slow, and finds input and sound devices that the system loads itself.
var coldplugBuses = []string{"pci", "virtio", "vmbus", "xen", "usb", "scsi", "mmc", "sdio", "platform"}

// Modaliases returns what the devices of the machine ask for, most urgent first.
func Modaliases(sys fs.FS) []string {
	var found []string
	for _, bus := range coldplugBuses {
		entries, err := fs.ReadDir(sys, path.Join("bus", bus, "devices"))
		if err != nil {
			continue // a bus that this kernel or machine does not have
		}
		for _, e := range entries {
			alias := readLine(sys, path.Join("bus", bus, "devices", e.Name(), "modalias"))
			if wantedAlias(alias) {
				found = append(found, alias)
			}
		}
	}
	slices.SortStableFunc(found, func(a, b string) int { return cmp.Compare(aliasRank(a), aliasRank(b)) })
	return slices.Compact(found)
}

// wantedAlias leaves out what a program that reads no key and draws no picture
// never needs: each module costs time, and the system loads it later anyway.
func wantedAlias(alias string) bool {
	kind, rest, _ := strings.Cut(alias, ":")
	switch kind {
	case "", "hid", "input", "serio":
		return false
	case "usb":
		return !strings.Contains(rest, "ic03") // interface class HID
	case "pci":
		class := pciClass(rest)
		return class != "03" && class != "04" // display, multimedia
	}
	return true
}

// Ranks: a payload on a medium is checked while the network still comes up.
const (
	rankStorage = iota
	rankUSB
	rankOther
	rankNetwork
)

func aliasRank(alias string) int {
	kind, rest, _ := strings.Cut(alias, ":")
	switch kind {
	case "scsi", "mmc":
		return rankStorage
	case "usb":
		return rankUSB
	case "pci":
		switch pciClass(rest) {
		case "01", "08": // mass storage; SD host controllers are system peripherals
			return rankStorage
		case "0c":
			return rankUSB
		case "02":
			if strings.HasPrefix(rest, "v00001AF4") {
				// The virtio transport is one module for all devices of the bus.
				return rankStorage
			}
			return rankNetwork
		case "00":
			return rankStorage // virtio devices without a class of their own
		}
	case "virtio":
		switch {
		case strings.HasPrefix(rest, "d00000002"), strings.HasPrefix(rest, "d00000008"), // block, SCSI
			strings.HasPrefix(rest, "d00000004"): // entropy: without it DHCP waits for a random number
			return rankStorage
		case strings.HasPrefix(rest, "d00000001"):
			return rankNetwork
		}
	case "vmbus", "xen":
		return rankStorage // the names do not tell; there are few
	}
	return rankOther
}

// pciClass returns the two hex digits of the base class of
// "v00008086d...sv...sd...bc01sc01i80".
func pciClass(rest string) string {
	i := strings.LastIndex(rest, "bc")
	if i < 0 || i+4 > len(rest) {
		return ""
	}
	return rest[i+2 : i+4]
}

// BlockDevice is a disk, a partition or a CD drive.
type BlockDevice struct {
	Name    string // as in /dev
	Sectors int64  // of 512 bytes; 0 where no medium is in the drive
}

// BlockDevices lists what may carry a payload or a node config, by name: no
// loop, RAM or compressed-RAM devices.
func BlockDevices(sys fs.FS) []BlockDevice {
	entries, err := fs.ReadDir(sys, "class/block")
	if err != nil {
		return nil
	}
	var found []BlockDevice
	for _, e := range entries {
		name := e.Name()
		if slices.ContainsFunc([]string{"loop", "ram", "zram", "nbd"}, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		sectors, err := strconv.ParseInt(readLine(sys, path.Join("class/block", name, "size")), 10, 64)
		if err != nil {
			continue // it is gone again
		}
		found = append(found, BlockDevice{Name: strings.ReplaceAll(name, "!", "/"), Sectors: sectors})
	}
	return found
}

// HasUSB says whether the machine has a USB host whose driver works.
func HasUSB(sys fs.FS) bool {
	hosts, err := fs.Glob(sys, "bus/usb/devices/usb*")
	return err == nil && len(hosts) > 0
}

// DisksToCome says whether a USB stick or disk is known that has no block device
// yet: the kernel waits a second before it looks at one.
func DisksToCome(sys fs.FS) bool {
	interfaces, err := fs.ReadDir(sys, "bus/usb/devices")
	if err != nil {
		return false
	}
	for _, e := range interfaces {
		dir := path.Join("bus/usb/devices", e.Name())
		if !strings.Contains(e.Name(), ":") || readLine(sys, path.Join(dir, "bInterfaceClass")) != "08" {
			continue
		}
		disks, err := fs.Glob(sys, dir+"/host*/target*/*/block/*")
		if err == nil && len(disks) == 0 {
			return true
		}
	}
	return false
}

// readLine returns the first line of a small file, "" if it cannot be read.
func readLine(fsys fs.FS, name string) string {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}
