package main

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"xnodeos.org/internal/vm"
)

// vmFlags are the words of `vm run` as the user gave them.
type vmFlags struct {
	firmware  string
	as        string
	memory    string
	cpus      int
	expect    string
	timeout   time.Duration
	sshPort   uint16
	httpPort  uint16
	append    string
	accel     string
	qemu      string
	ovmf      string
	serialLog string
	dryRun    bool
	json      bool
}

func newVMCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vm",
		Short: "Try artifacts in a virtual machine",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newVMRunCommand())
	return cmd
}

func newVMRunCommand() *cobra.Command {
	var f vmFlags
	cmd := &cobra.Command{
		Use:   "run ARTIFACT",
		Short: "Boot an artifact in QEMU and show its console",
		Long: `Boot an artifact in QEMU and show its serial console.

ARTIFACT is one of these; it is never written to, and what the machine writes
is thrown away:

  ISO                   shown as optical drive, disk or USB stick
  disk image            shown as disk or USB stick
  unified kernel image  started by the firmware (--firmware uefi); --as netboot:
                        fetched by UEFI HTTP boot
  netboot folder        booted by the network card's own iPXE, which fetches
                        boot.ipxe; where the folder has a payload.cpio, and no
                        --as netboot is given, QEMU starts the kernel itself
  takeover program      the machine starts the system inside it, brings the
                        program there over ssh and runs it: the system replaces
                        itself, and --expect looks at what comes after that

With --as netboot an HTTP server on this host's loopback serves the folder while
the machine runs; the machine reaches it as 10.0.2.2. For a unified kernel image
it also serves the folder netboot beside it: build the image with
--payload-url http://10.0.2.2:PORT/netboot/ and run it with --http-port PORT.

Without --expect the machine runs until it powers itself off or you press
Ctrl-C; a port of this host's loopback leads to its ssh. With --expect it is
ended as soon as a line of its console contains the text.

KVM is used where a small guest has proved that it works, else QEMU translates
(TCG), which is several times slower. The console is shown without control
sequences; --serial-log keeps every byte.

Exit codes: 0 the text was seen, or the machine powered itself off; 1 it was not
seen, or QEMU failed; 2 wrong usage; 130 cancelled.`,
		Example: `  xnodeos vm run out/xnodeos-pocket-1-x86_64.iso
  xnodeos vm run out/xnodeos-pocket-1-x86_64.iso --firmware uefi --as usb --memory 512M
  xnodeos vm run out/xnodeos-pocket-1-x86_64.iso --expect XNODE-READY --timeout 180s --json
  xnodeos vm run out/netboot --as netboot
  xnodeos vm run out/xnodeos-pocket-1-x86_64.efi --firmware uefi --as netboot --http-port 8080
  xnodeos vm run out/xnodeos-pocket-1-x86_64.iso --dry-run`,
		Args: exactArgs("ARTIFACT"),
		RunE: func(cmd *cobra.Command, args []string) error { return runVM(cmd, args[0], f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.firmware, "firmware", "bios", "bios or uefi")
	fl.StringVar(&f.as, "as", "", "show an ISO as cd, disk or usb (default cd), a disk image as disk or usb (default disk); netboot, takeover: see above")
	fl.StringVar(&f.memory, "memory", "1G", "memory, as in 384M or 2G")
	fl.IntVar(&f.cpus, "cpus", 2, "processors")
	fl.StringVar(&f.expect, "expect", "", "end with success when a console line contains this text")
	fl.DurationVar(&f.timeout, "timeout", 180*time.Second, "with --expect: give up after this time")
	fl.Uint16Var(&f.sshPort, "ssh-port", 0, "port of 127.0.0.1 that leads to the machine's ssh (default: a free one)")
	fl.Uint16Var(&f.httpPort, "http-port", 0, "with --as netboot: port of 127.0.0.1 to serve on (default: a free one)")
	fl.StringVar(&f.append, "append", "", "kernel started by QEMU, takeover: more words for the kernel's command line")
	fl.StringVar(&f.accel, "accel", "auto", "auto, kvm or tcg")
	fl.StringVar(&f.qemu, "qemu", "qemu-system-x86_64", "QEMU program")
	fl.StringVar(&f.ovmf, "ovmf", "", "UEFI firmware code; its variables lie beside it (default: search /usr/share)")
	fl.StringVar(&f.serialLog, "serial-log", "", "also write the console to this file, every byte as it came")
	fl.BoolVar(&f.dryRun, "dry-run", false, "print the QEMU line for a shell, and start nothing")
	fl.BoolVar(&f.json, "json", false, "print the result as JSON; the console goes to standard error")
	completeVMFlags(cmd)
	return cmd
}

func completeVMFlags(cmd *cobra.Command) {
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("firmware", oneOf("bios", "uefi")))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("as", oneOf("cd", "disk", "usb", "netboot", "takeover")))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("accel", oneOf("auto", "kvm", "tcg")))
	cobra.CheckErr(cmd.RegisterFlagCompletionFunc("expect", oneOf("XNODE-READY")))
}

// check refuses what is wrong in the words alone.
func (f vmFlags) check() (memoryMiB int, err error) {
	if f.firmware != "bios" && f.firmware != "uefi" {
		return 0, usagef("vm run: --firmware is %q; want bios or uefi", f.firmware)
	}
	switch f.as {
	case "", "cd", "disk", "usb", "netboot", "takeover":
	default:
		return 0, usagef("vm run: --as is %q; want cd, disk, usb, netboot or takeover", f.as)
	}
	if f.accel != "auto" && f.accel != "kvm" && f.accel != "tcg" {
		return 0, usagef("vm run: --accel is %q; want auto, kvm or tcg", f.accel)
	}
	if f.cpus < 1 || f.cpus > 255 {
		return 0, usagef("vm run: --cpus is %d; want 1 to 255", f.cpus)
	}
	if f.timeout <= 0 {
		return 0, usagef("vm run: --timeout is %v; want more than nothing, as in 180s", f.timeout)
	}
	return parseMemory(f.memory)
}

// parseMemory reads a size in the way of QEMU's -m: MiB unless it says other.
func parseMemory(s string) (mib int, err error) {
	m := regexp.MustCompile(`^([1-9][0-9]{0,6})([MmGg]?)(?:i?[Bb])?$`).FindStringSubmatch(s)
	if m == nil {
		return 0, usagef("vm run: --memory is %q; want a size as in 384M or 2G", s)
	}
	if mib, err = strconv.Atoi(m[1]); err != nil {
		return 0, usagef("vm run: --memory is %q: %w", s, err)
	}
	if strings.EqualFold(m[2], "g") {
		mib <<= 10
	}
	if mib < 16 || mib > 1<<20 {
		return 0, usagef("vm run: --memory is %q; want 16M to 1024G", s)
	}
	return mib, nil
}

// machineFor turns flags and artifact into a machine, without starting or
// writing anything but KVM's probe.
func machineFor(ctx context.Context, f vmFlags, a artifact) (vm.Machine, string, error) {
	memory, err := f.check()
	if err != nil {
		return vm.Machine{}, "", err
	}
	m := vm.Machine{
		QEMU: f.qemu, Firmware: vm.Firmware(f.firmware), MemoryMiB: memory, CPUs: f.cpus,
		Reboot: vm.KeepOnReboot,
	}
	if f.expect != "" {
		m.Reboot = vm.ExitOnReboot // a node that reboots did not come up
	}
	if m.Firmware == vm.UEFI {
		if m.OVMF, err = vm.FindOVMF("/usr/share", f.ovmf); err != nil {
			return vm.Machine{}, "", fmt.Errorf("vm run: %w; install the Debian package ovmf, or name the code image with --ovmf", err)
		}
	}
	port := f.sshPort
	if port == 0 {
		if port, err = vm.FreePort(ctx); err != nil {
			return vm.Machine{}, "", fmt.Errorf("vm run: %w", err)
		}
	}
	m.Nets = []vm.Net{{Kind: vm.UserNet, Forwards: []vm.Forward{{Host: port, Guest: 22}}}}
	reason := "chosen by --accel"
	if m.Accel, reason, err = f.chooseAccel(ctx, reason); err != nil {
		return vm.Machine{}, "", fmt.Errorf("vm run: %w", err)
	}
	if err := f.checkAs(a); err != nil {
		return vm.Machine{}, "", err
	}
	if f.httpPort == 0 {
		if f.httpPort, err = vm.FreePort(ctx); err != nil {
			return vm.Machine{}, "", fmt.Errorf("vm run: %w", err)
		}
	}
	if err := a.attach(&m, f); err != nil {
		return vm.Machine{}, "", err
	}
	return m, reason, nil
}

// checkAs refuses the two words of --as that only some artifacts know.
func (f vmFlags) checkAs(a artifact) error {
	switch a.(type) {
	case isoArtifact, rawArtifact:
		if f.as == "netboot" {
			return usagef("vm run: --as netboot is for a netboot folder or a unified kernel image; xnodeos image build --format netboot writes one")
		}
	case *takeoverArtifact:
		return nil
	}
	if f.as == "takeover" {
		return usagef("vm run: --as takeover is for a takeover program; xnodeos image build --format takeover writes one")
	}
	return nil
}

func (f vmFlags) chooseAccel(ctx context.Context, reason string) (vm.Accel, string, error) {
	if f.accel != "auto" {
		return vm.Accel(f.accel), reason, nil
	}
	cache, err := cacheFolder("")
	if err != nil {
		cache = "" // no home: probe each time
	}
	v, err := vm.Prober{QEMU: f.qemu, CacheDir: cache, Now: time.Now}.Choose(ctx)
	return v.Accel, v.Reason, err
}
