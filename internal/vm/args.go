package vm

import (
	"fmt"
	"strconv"
	"strings"
)

// firstWireFD is the descriptor of the first wire inside QEMU: 0 to 2 are the
// standard streams, 3 is QMP.
const firstWireFD = 4

// Args returns QEMU's arguments for a person's terminal: the serial console
// and, behind Ctrl-A C, QEMU's monitor. Start replaces only that part.
func (m Machine) Args() []string {
	return append(m.baseArgs(), "-serial", "mon:stdio")
}

// baseArgs is the machine without its console.
func (m Machine) baseArgs() []string {
	m = m.withDefaults()
	// No defaults: QEMU would add an empty DVD, which the firmware then tries,
	// a floppy and a second network card.
	args := []string{"-nodefaults", "-no-user-config", "-machine", m.Board}
	args = append(args, m.cpuArgs()...)
	args = append(args,
		"-m", strconv.Itoa(m.MemoryMiB),
		"-vga", "std", "-display", "none",
		// Go's crypto/rand blocks on an empty entropy pool, and the first stage
		// needs random numbers for its first DHCP packet.
		"-device", "virtio-rng-pci",
	)
	if m.Reboot == ExitOnReboot {
		args = append(args, "-no-reboot")
	}
	if m.Firmware == UEFI {
		args = append(args, m.OVMF.args()...)
	}
	args = append(args, m.driveArgs()...)
	wire := 0
	for i, n := range m.Nets {
		args = append(args, n.args(i, firstWireFD+wire, len(m.Drives)+i+1)...)
		if n.Kind == WireNet {
			wire++
		}
	}
	if m.Kernel != "" {
		args = append(args, "-kernel", m.Kernel)
		if m.Initrd != "" {
			args = append(args, "-initrd", m.Initrd)
		}
		if m.Append != "" {
			args = append(args, "-append", m.Append)
		}
	}
	return append(args, m.Extra...)
}

func (m Machine) cpuArgs() []string {
	smp := strconv.Itoa(m.CPUs)
	if m.Accel == KVM {
		return []string{"-accel", "kvm", "-cpu", "host", "-smp", smp}
	}
	// "max" has RDRAND, which QEMU's default CPU lacks.
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max", "-smp", smp}
}

func (o OVMF) args() []string {
	vars := "if=pflash,unit=1,format=raw"
	if !o.KeepVars {
		vars += ",snapshot=on"
	}
	return []string{
		"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + comma(o.Code),
		"-drive", vars + ",file=" + comma(o.Vars),
	}
}

func (m Machine) driveArgs() []string {
	var args []string
	usb := false
	for i, d := range m.Drives {
		if d.As == USB && !usb {
			usb = true
			args = append(args, "-device", "qemu-xhci,id=xhci")
		}
		args = append(args, d.args(i)...)
	}
	return args
}

func (d Drive) args(i int) []string {
	format := d.Format
	if format == "" {
		format = "raw"
	}
	// Nothing here outlives the machine, so the host's disk need not be waited
	// for: cache=unsafe.
	drive := fmt.Sprintf("if=none,id=drive%d,format=%s,cache=unsafe", i, format)
	switch {
	case d.As == CD:
		drive += ",media=cdrom,readonly=on"
	case d.ReadOnly:
		drive += ",readonly=on"
	}
	if d.Snapshot && d.As != CD {
		drive += ",snapshot=on"
	}
	drive += ",file=" + comma(d.File)

	// From 1 on: QEMU gives 0 to a kernel that starts without a loader.
	device := fmt.Sprintf("%s,drive=drive%d,bootindex=%d", d.As.device(), i, i+1)
	serial := d.Serial
	if serial == "" && d.As == NVMe {
		serial = "xnode" + strconv.Itoa(i) // QEMU's NVMe refuses to be without one
	}
	if serial != "" {
		device += ",serial=" + comma(serial)
	}
	return []string{"-drive", drive, "-device", device}
}

// device is QEMU's word for the hardware that shows the drive to the guest.
func (a Attach) device() string {
	switch a {
	case CD:
		return "ide-cd"
	case USB:
		return "usb-storage,bus=xhci.0,removable=on"
	case NVMe:
		return "nvme"
	case SATA:
		return "ide-hd"
	default:
		return "virtio-blk-pci"
	}
}

func (n Net) args(i, wireFD, bootIndex int) []string {
	id := "net" + strconv.Itoa(i)
	var netdev string
	switch n.Kind {
	case WireNet:
		// A pair of datagram sockets: one datagram is one Ethernet frame, and no
		// path or port has to be found for it.
		netdev = fmt.Sprintf("dgram,id=%s,local.type=fd,local.str=%d", id, wireFD)
	default:
		netdev = "user,id=" + id
		if n.Isolated {
			netdev += ",restrict=on"
		}
		for _, f := range n.Forwards {
			netdev += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:%d-:%d", f.Host, f.Guest)
		}
		if n.BootFile != "" {
			netdev += ",bootfile=" + comma(n.BootFile)
		}
	}
	model := n.Model
	if model == "" {
		model = "virtio-net-pci"
	}
	device := model + ",netdev=" + id
	if n.MAC != "" {
		device += ",mac=" + n.MAC
	}
	if n.PXE {
		device += ",bootindex=" + strconv.Itoa(bootIndex)
	} else {
		device += ",romfile="
	}
	return []string{"-netdev", netdev, "-device", device}
}

// comma doubles commas, as QEMU's option parser wants them in a value.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }

// ShellLine returns argv as one line that a POSIX shell splits into argv.
func ShellLine(argv []string) string {
	words := make([]string, len(argv))
	for i, w := range argv {
		words[i] = ShellQuote(w)
	}
	return strings.Join(words, " ")
}

// ShellQuote quotes one word for a POSIX shell, only where it has to.
func ShellQuote(w string) string {
	plain := w != "" && strings.IndexFunc(w, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' ||
			strings.ContainsRune("@%+=:,./_-", r))
	}) < 0
	if plain {
		return w
	}
	return "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
}
