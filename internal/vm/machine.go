// Package vm describes a virtual machine as plain data, prints the QEMU line
// that runs it, runs it, and tells how it ended.
//
// A Machine is pure: Args gives the same line for the same value, so that a
// test compares it with a golden file and a person pastes it into a shell.
// Start owns the process: its own process group, ended with the context, by
// its id; the serial console goes to a log and line by line to whoever waits
// for a word; the reason for the end comes from QEMU itself (QMP), so that
// "the guest powered off", "the guest reset itself", "QEMU died by a signal"
// and "QEMU refused its arguments" stay four different things.
//
// The package knows nothing about images or about XnodeOS: it does not build,
// recognise or change what it boots.
package vm

import (
	"errors"
	"fmt"
	"strings"
)

// Firmware is what the machine starts with.
type Firmware string

// The two firmwares: SeaBIOS, which QEMU brings, and OVMF, which it does not.
const (
	BIOS Firmware = "bios"
	UEFI Firmware = "uefi"
)

// Attach is how the guest sees a drive.
type Attach string

// Every way is on the path of a real machine: optical drive, virtio disk of a
// rented VM, stick, NVMe and SATA disk.
const (
	CD   Attach = "cd"
	Disk Attach = "disk"
	USB  Attach = "usb"
	NVMe Attach = "nvme"
	SATA Attach = "sata"
)

// Accel is how the guest's instructions run.
type Accel string

// TCG translates them and works everywhere; KVM needs the host's hardware and
// a kernel that really passes it on: see Prober.
const (
	TCG Accel = "tcg"
	KVM Accel = "kvm"
)

// Drive is one medium. The boot order is the order of Machine.Drives.
type Drive struct {
	File     string
	As       Attach
	Format   string // QEMU's word; "raw" when empty
	ReadOnly bool   // a CD is always read-only
	Snapshot bool   // writes go to a throw-away file
	Serial   string // serial number that the guest sees
}

// Forward is a TCP port of the host's loopback that leads into the guest.
type Forward struct {
	Host  uint16
	Guest uint16
}

// NetKind says what is at the other end of a network card's cable.
type NetKind string

// UserNet is QEMU's own network with DHCP and NAT, WireNet a bare cable whose
// other end is VM.Wire.
const (
	UserNet NetKind = "user"
	WireNet NetKind = "wire"
)

// Net is one network card.
type Net struct {
	Kind     NetKind
	MAC      string    // QEMU's default when empty
	Model    string    // "virtio-net-pci" when empty
	Forwards []Forward // UserNet only
	Isolated bool      // UserNet only: the guest reaches nothing beyond QEMU
	PXE      bool      // keep the card's boot ROM, an iPXE; it is tried after the drives
	BootFile string    // UserNet only: what QEMU's DHCP server names for a netboot
}

// OVMF is one build of the UEFI firmware: code and a template of variables.
type OVMF struct {
	Code string
	Vars string
	// KeepVars writes the guest's variables into Vars, which then must be this
	// machine's own copy; otherwise they are thrown away at the end.
	KeepVars bool
}

// RebootPolicy is what a reset by the guest does.
type RebootPolicy string

// Exit suits tests, where a reboot that nobody asked for is a failure.
const (
	ExitOnReboot RebootPolicy = "exit"
	KeepOnReboot RebootPolicy = "keep"
)

// Machine describes a virtual x86-64 machine. The zero value of a field is
// the default that its comment names.
type Machine struct {
	QEMU      string       // program; "qemu-system-x86_64"
	Accel     Accel        // TCG
	Firmware  Firmware     // BIOS
	OVMF      OVMF         // needed for UEFI
	Board     string       // "pc" for BIOS, "q35" for UEFI, so that both chipsets are seen
	MemoryMiB int          // 1024
	CPUs      int          // 2
	Reboot    RebootPolicy // ExitOnReboot
	Drives    []Drive
	Nets      []Net

	// Kernel, Initrd and Append start a kernel without a boot loader. QEMU
	// takes one initrd file: several are joined beforehand.
	Kernel string
	Initrd string
	Append string

	// Extra goes to the end of QEMU's line as it is.
	Extra []string
}

func (m Machine) withDefaults() Machine {
	if m.QEMU == "" {
		m.QEMU = "qemu-system-x86_64"
	}
	if m.Accel == "" {
		m.Accel = TCG
	}
	if m.Firmware == "" {
		m.Firmware = BIOS
	}
	if m.Board == "" {
		m.Board = "pc"
		if m.Firmware == UEFI {
			m.Board = "q35"
		}
	}
	if m.MemoryMiB == 0 {
		m.MemoryMiB = 1024
	}
	if m.CPUs == 0 {
		m.CPUs = 2
	}
	if m.Reboot == "" {
		m.Reboot = ExitOnReboot
	}
	return m
}

// Validate names the first field that no machine can be made of.
func (m Machine) Validate() error {
	m = m.withDefaults()
	switch {
	case m.Accel != TCG && m.Accel != KVM:
		return fmt.Errorf("accel is %q, want %q or %q", m.Accel, TCG, KVM)
	case m.Firmware != BIOS && m.Firmware != UEFI:
		return fmt.Errorf("firmware is %q, want %q or %q", m.Firmware, BIOS, UEFI)
	case m.Firmware == UEFI && (m.OVMF.Code == "" || m.OVMF.Vars == ""):
		return errors.New("firmware is uefi, but OVMF code or variables are not set")
	case m.Board != "pc" && m.Board != "q35":
		return fmt.Errorf("board is %q, want \"pc\" or \"q35\"", m.Board)
	case m.MemoryMiB < 0 || m.CPUs < 0:
		return fmt.Errorf("memory is %d MiB and cpus %d, want more than none", m.MemoryMiB, m.CPUs)
	case m.Kernel == "" && (m.Initrd != "" || m.Append != ""):
		return errors.New("initrd or command line without a kernel")
	case strings.Contains(m.Kernel+m.Initrd+m.Append, "\x00"):
		return errors.New("kernel, initrd or command line holds a NUL byte")
	}
	for i, d := range m.Drives {
		if err := d.validate(); err != nil {
			return fmt.Errorf("drive %d: %w", i, err)
		}
	}
	for i, n := range m.Nets {
		if err := n.validate(); err != nil {
			return fmt.Errorf("network card %d: %w", i, err)
		}
	}
	return nil
}

func (d Drive) validate() error {
	switch d.As {
	case CD, Disk, USB, NVMe, SATA:
	default:
		return fmt.Errorf("attached as %q, want one of cd, disk, usb, nvme, sata", d.As)
	}
	if d.File == "" {
		return errors.New("no file")
	}
	return nil
}

func (n Net) validate() error {
	switch n.Kind {
	case UserNet:
	case WireNet:
		if len(n.Forwards) > 0 || n.Isolated || n.BootFile != "" {
			return errors.New("a wire has neither forwards, isolation nor a DHCP server")
		}
	default:
		return fmt.Errorf("kind is %q, want %q or %q", n.Kind, UserNet, WireNet)
	}
	return nil
}

// wires counts the cards that need a file descriptor.
func (m Machine) wires() int {
	n := 0
	for _, net := range m.Nets {
		if net.Kind == WireNet {
			n++
		}
	}
	return n
}
