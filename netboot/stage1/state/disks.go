package state

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// PartitionName is the name of the partition in a GPT, and the label of the
// file system in it.
const PartitionName = "XNODE-STATE"

// Disk is a block device that could keep a state: a disk or a partition.
type Disk struct {
	Name    string // as below /dev
	Sectors int64  // of 512 bytes
	// Parent is the disk of a partition, Number and Label its entry in the
	// table; "" and 0 for a disk.
	Parent string
	Number int
	Label  string
	// Serial and WWN are those of the whole disk, "" where it has none.
	Serial string
	WWN    string // as in /dev/disk/by-id: "0x5000c500a1b2c3d4", "eui.0025385b", ...
	// PCI is the address of the controller, like "0000:00:04.0".
	PCI string
	// SectorSize is what the disk reads and writes at least, in bytes.
	SectorSize int
	ReadOnly   bool
}

// Device is the path below /dev.
func (d Disk) Device() string { return "/dev/" + d.Name }

// String names the disk for people, so that they find the right one.
func (d Disk) String() string {
	if d.Serial == "" {
		return d.Device()
	}
	return fmt.Sprintf("%s (serial %s)", d.Device(), d.Serial)
}

// notDisks begin the names of block devices that forget, or that are views of
// others.
var notDisks = []string{"loop", "ram", "zram", "nbd", "dm-", "md", "sr", "fd"}

// ListDisks returns the disks and partitions of a tree like /sys, by name.
func ListDisks(sys fs.FS) []Disk {
	entries, err := fs.ReadDir(sys, "class/block")
	if err != nil {
		return nil
	}
	var disks []Disk
	for _, e := range entries {
		if slices.ContainsFunc(notDisks, func(p string) bool { return strings.HasPrefix(e.Name(), p) }) {
			continue
		}
		if d, err := readDisk(sys, e.Name()); err == nil && d.Sectors > 0 {
			disks = append(disks, d)
		}
	}
	return disks
}

func readDisk(sys fs.FS, name string) (Disk, error) {
	target, err := fs.ReadLink(sys, path.Join("class/block", name))
	if err != nil {
		return Disk{}, err // it is gone again
	}
	dir := path.Join("class/block", target)
	d := Disk{Name: strings.ReplaceAll(name, "!", "/"), ReadOnly: line(sys, path.Join(dir, "ro")) == "1"}
	if d.Sectors, err = strconv.ParseInt(line(sys, path.Join(dir, "size")), 10, 64); err != nil {
		return Disk{}, err
	}
	whole := dir
	if number := line(sys, path.Join(dir, "partition")); number != "" {
		if d.Number, err = strconv.Atoi(number); err != nil {
			return Disk{}, err
		}
		whole = path.Dir(dir)
		d.Parent = strings.ReplaceAll(path.Base(whole), "!", "/")
		d.Label = partitionLabel(sys, dir)
	}
	d.SectorSize, err = strconv.Atoi(line(sys, path.Join(whole, "queue/logical_block_size")))
	if err != nil {
		d.SectorSize = 512
	}
	d.identify(sys, whole)
	return d, nil
}

// partitionLabel is what the kernel read from the GPT.
func partitionLabel(sys fs.FS, dir string) string {
	data, err := fs.ReadFile(sys, path.Join(dir, "uevent"))
	if err != nil {
		return ""
	}
	for l := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(strings.TrimSuffix(l, "\n"), "PARTNAME="); ok {
			return name
		}
	}
	return ""
}

// isPCI says whether a folder of /sys is named by a PCI address, "0000:00:04.0".
func isPCI(name string) bool {
	if len(name) != 12 || name[4] != ':' || name[7] != ':' || name[10] != '.' {
		return false
	}
	digits := name[:4] + name[5:7] + name[8:10] + name[11:]
	return strings.Trim(digits, "0123456789abcdef") == ""
}

// identify walks from the disk up to its controller: virtio has the serial
// number at the disk, NVMe at the controller, SCSI and SATA in a page of their
// own, USB at the plugged device.
func (d *Disk) identify(sys fs.FS, dir string) {
	for ; dir != "." && path.Base(dir) != "devices"; dir = path.Dir(dir) {
		if d.PCI == "" && isPCI(path.Base(dir)) {
			d.PCI = path.Base(dir)
		}
		if strings.HasPrefix(path.Base(dir), "usb") {
			continue // the root hub's serial number is that of the controller
		}
		if d.Serial == "" {
			d.Serial = line(sys, path.Join(dir, "serial"))
		}
		if d.Serial == "" {
			d.Serial = pageSerial(sys, path.Join(dir, "vpd_pg80"))
		}
		if d.WWN == "" {
			d.WWN = wwn(line(sys, path.Join(dir, "wwid")))
		}
	}
}

// pageSerial reads the unit serial number page (SPC-4, 7.8.18).
func pageSerial(sys fs.FS, name string) string {
	page, err := fs.ReadFile(sys, name)
	if err != nil || len(page) < 4 {
		return ""
	}
	return strings.Trim(string(page[4:]), " \x00\n")
}

// wwn turns the kernel's spelling into that of /dev/disk/by-id.
func wwn(wwid string) string {
	if hex, ok := strings.CutPrefix(wwid, "naa."); ok {
		return "0x" + hex
	}
	if strings.HasPrefix(wwid, "eui.") {
		return wwid
	}
	return ""
}

// line returns the first line of a small file, "" if it cannot be read.
func line(sys fs.FS, name string) string {
	data, err := fs.ReadFile(sys, name)
	if err != nil {
		return ""
	}
	text, _, _ := strings.Cut(string(data), "\n")
	return strings.Trim(text, " \x00")
}

// ErrNotThere is in the chain of an error that no disk has the name: it may
// still come.
var ErrNotThere = errors.New("no such disk is there")

// cutPart takes the number of a partition off a name of udev's.
func cutPart(name string) (whole string, number int, ok bool) {
	at := strings.LastIndex(name, "-part")
	if at < 1 {
		return "", 0, false
	}
	number, err := strconv.Atoi(name[at+len("-part"):])
	return name[:at], number, err == nil && number > 0
}

// Find returns the one disk or partition that a person means. A kernel name is
// taken as it is; what stands for a serial number must be that of one disk.
func Find(disks []Disk, name string) (Disk, error) {
	found := matching(disks, name)
	if name, number, ok := cutPart(name); len(found) == 0 && ok {
		for _, whole := range matching(disks, name) {
			for _, d := range disks {
				if d.Parent == whole.Name && d.Number == number {
					found = append(found, d)
				}
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], nil
	case 0:
		return Disk{}, fmt.Errorf("%q: %w; there are: %s", name, ErrNotThere, names(disks))
	}
	return Disk{}, fmt.Errorf("%q may be any of %s; name one of them by serial:SERIAL or by its kernel name", name, names(found))
}

func names(disks []Disk) string {
	var list []string
	for _, d := range disks {
		list = append(list, d.String())
	}
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

func matching(disks []Disk, name string) []Disk {
	match := matcher(name)
	var found []Disk
	for _, d := range disks {
		if match(d) {
			found = append(found, d)
		}
	}
	return found
}

func matcher(name string) func(Disk) bool {
	wholeDisk := func(is func(Disk) bool) func(Disk) bool {
		return func(d Disk) bool { return d.Parent == "" && is(d) }
	}
	if serial, ok := strings.CutPrefix(name, "serial:"); ok {
		return wholeDisk(func(d Disk) bool { return d.Serial != "" && udevName(d.Serial) == udevName(serial) })
	}
	name = strings.TrimPrefix(name, "/dev/")
	if id, ok := strings.CutPrefix(name, "disk/by-id/"); ok {
		return wholeDisk(func(d Disk) bool { return d.hasID(id) })
	}
	if place, ok := strings.CutPrefix(name, "disk/by-path/"); ok {
		// What follows the controller's address differs from udev to udev, so
		// it is not read: a controller with two disks has no by-path name here.
		return wholeDisk(func(d Disk) bool { return d.PCI != "" && place == "pci-"+d.PCI })
	}
	return func(d Disk) bool { return d.Name == name }
}

// hasID compares with a name of udev's: KIND-WWN, or KIND-MODEL_SERIAL, where
// only the end is looked at.
func (d Disk) hasID(id string) bool {
	kind, rest, ok := strings.Cut(id, "-")
	if !ok {
		return false
	}
	if d.WWN != "" && rest == d.WWN && (kind == "wwn" || kind == "nvme") {
		return true
	}
	serial := udevName(d.Serial)
	if serial == "" {
		return false
	}
	return rest == serial || strings.HasSuffix(rest, "_"+serial)
}

// udevName spells a serial number as udev does in names.
func udevName(s string) string {
	return strings.Map(func(r rune) rune {
		if r == ' ' {
			return '_'
		}
		return r
	}, strings.TrimSpace(s))
}
