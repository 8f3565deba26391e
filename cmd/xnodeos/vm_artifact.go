package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/vm"
)

// artifact is something that `vm run` can boot.
type artifact interface {
	// attach puts the artifact into the machine.
	attach(m *vm.Machine, f vmFlags) error
	// prepare makes the files that the machine needs and the artifact lacks; it
	// returns the machine to start and what removes those files.
	prepare(m vm.Machine) (vm.Machine, func(), error)
	// shellPrepare is the same for a person's shell; empty where nothing is
	// needed.
	shellPrepare() string
}

// driver is an artifact that is not started by the machine alone.
type driver interface {
	// drive does the rest, and returns the number of the console's line from
	// which on the artifact speaks.
	drive(ctx context.Context, v *vm.VM, out io.Writer) (from int, err error)
}

// openArtifact recognises what path is by what it holds, never by its name. Two
// things can be booted from a network as well: as says so.
func openArtifact(path, as string) (artifact, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("vm run: artifact: %w", err)
	}
	if info.IsDir() {
		return openNetboot(path, as)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("vm run: artifact: %w", err)
	}
	defer f.Close()
	// ISO 9660, 8.1: the first volume descriptor lies in sector 16. A hybrid ISO
	// also has partition tables, so this comes first.
	switch {
	case hasBytes(f, 16*2048+1, "CD001"):
		return isoArtifact(path), nil
	case hasBytes(f, 512, "EFI PART"):
		return rawArtifact(path), nil
	case hasBytes(f, 0, "MZ") && as == "netboot":
		return newHTTPBoot(path), nil
	case hasBytes(f, 0, "MZ"):
		return ukiArtifact(path), nil
	case hasBytes(f, 0, "\x7fELF"):
		return openTakeover(path)
	default:
		return nil, fmt.Errorf("vm run: %q is no ISO, disk image, UEFI program, takeover program or netboot folder; xnodeos image build writes them", path)
	}
}

func hasBytes(r io.ReaderAt, at int64, want string) bool {
	got := make([]byte, len(want))
	n, _ := r.ReadAt(got, at)
	return string(got[:n]) == want
}

// isoArtifact is the path of a hybrid ISO.
type isoArtifact string

func (a isoArtifact) attach(m *vm.Machine, f vmFlags) error {
	if f.append != "" {
		return usagef("vm run: --append is for netboot folders; the command line of an ISO is inside it")
	}
	as := vm.CD
	if f.as != "" {
		as = vm.Attach(f.as)
	}
	m.Drives = append(m.Drives, vm.Drive{File: string(a), As: as, Snapshot: as != vm.CD})
	return nil
}

func (a isoArtifact) prepare(m vm.Machine) (vm.Machine, func(), error) {
	return m, func() {}, nil
}

func (a isoArtifact) shellPrepare() string { return "" }

// rawArtifact is the path of a disk image.
type rawArtifact string

func (a rawArtifact) attach(m *vm.Machine, f vmFlags) error {
	if f.append != "" {
		return usagef("vm run: --append is for netboot folders; the command line of a disk image is inside it")
	}
	as := vm.Disk
	if f.as != "" {
		as = vm.Attach(f.as)
	}
	if as == vm.CD {
		return usagef("vm run: a disk image is no CD; want --as disk or usb")
	}
	m.Drives = append(m.Drives, vm.Drive{File: string(a), As: as, Snapshot: true})
	return nil
}

func (a rawArtifact) prepare(m vm.Machine) (vm.Machine, func(), error) { return m, func() {}, nil }

func (a rawArtifact) shellPrepare() string { return "" }

// ukiArtifact is the path of a unified kernel image, which the firmware starts
// as it would from an ESP. Its payload comes from where its command line says.
type ukiArtifact string

func (a ukiArtifact) attach(m *vm.Machine, f vmFlags) error {
	switch {
	case m.Firmware != vm.UEFI:
		return usagef("vm run: %q is a UEFI program; add --firmware uefi", string(a))
	case f.as != "":
		return usagef("vm run: --as %s is for an ISO or a disk image; a UEFI program runs without --as, or as netboot", f.as)
	case f.append != "":
		return usagef("vm run: --append does not go with a UEFI program, which is started as it is")
	}
	m.Kernel = string(a)
	return nil
}

func (a ukiArtifact) prepare(m vm.Machine) (vm.Machine, func(), error) { return m, func() {}, nil }

func (a ukiArtifact) shellPrepare() string { return "" }

// netbootArtifact is a netboot folder whose kernel is started without a
// network: the payload comes as part of the initrd.
type netbootArtifact struct {
	dir     string
	cmdline string
	initrd  int64 // bytes
}

const joinedInitrd = "xnodeos-initrd-joined"

func openNetboot(dir, as string) (artifact, error) {
	data, err := os.ReadFile(filepath.Join(dir, manifest.FileName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("vm run: folder %q has no %s, so it is no netboot folder; "+
			"xnodeos image build writes one to OUT/netboot", dir, manifest.FileName)
	}
	if err != nil {
		return nil, fmt.Errorf("vm run: artifact: %w", err)
	}
	m, err := manifest.Parse(data)
	if err != nil {
		return nil, fmt.Errorf("vm run: %s: %w", filepath.Join(dir, manifest.FileName), err)
	}
	_, err = os.Stat(filepath.Join(dir, "payload.cpio"))
	if as == "netboot" || errors.Is(err, fs.ErrNotExist) {
		return newIPXE(dir)
	}
	a := &netbootArtifact{dir: dir, cmdline: m.Cmdline + " xnode.manifest=" + manifest.DigestOf(data)}
	for _, name := range []string{"vmlinuz", "initrd", "payload.cpio"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("vm run: netboot folder: %w", err)
		}
		if name == "initrd" {
			a.initrd = info.Size()
		}
	}
	return a, nil
}

func (a *netbootArtifact) attach(m *vm.Machine, f vmFlags) error {
	if f.as != "" {
		return usagef("vm run: --as %s is for an ISO; %q is a netboot folder", f.as, a.dir)
	}
	words := []string{a.cmdline}
	if m.Accel == vm.TCG {
		// Under load TCG misses the ticks of the kernel's timer check, and the
		// kernel then gives up a timer that works.
		words = append(words, "no_timer_check")
	}
	if f.append != "" {
		words = append(words, f.append)
	}
	m.Kernel = filepath.Join(a.dir, "vmlinuz")
	m.Initrd = joinedInitrd
	m.Append = strings.Join(words, " ")
	return nil
}

// padding is what brings the initrd to a multiple of 4, where the kernel looks
// for the next archive.
func (a *netbootArtifact) padding() int64 { return -a.initrd & 3 }

func (a *netbootArtifact) prepare(m vm.Machine) (vm.Machine, func(), error) {
	dir, err := os.MkdirTemp("", "xnodeos-vm-")
	if err != nil {
		return m, nil, fmt.Errorf("vm run: %w", err)
	}
	remove := func() { os.RemoveAll(dir) }
	m.Initrd = filepath.Join(dir, "initrd")
	if err := a.join(m.Initrd); err != nil {
		remove()
		return m, nil, fmt.Errorf("vm run: join initrd and payload.cpio: %w", err)
	}
	return m, remove, nil
}

// join writes initrd, padding and payload.cpio into one file: QEMU hands over
// one initrd, and the kernel unpacks archives one after another.
func (a *netbootArtifact) join(to string) error {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	for _, part := range []string{"initrd", "payload.cpio"} {
		if err == nil {
			err = appendFile(out, filepath.Join(a.dir, part))
		}
		if err == nil && part == "initrd" {
			_, err = out.Write(make([]byte, a.padding()))
		}
	}
	return errors.Join(err, out.Close())
}

func appendFile(out io.Writer, path string) error {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	_, err = io.Copy(out, in)
	return err
}

func (a *netbootArtifact) shellPrepare() string {
	return fmt.Sprintf("{ cat %s; head -c %d /dev/zero; cat %s; } > %s",
		vm.ShellQuote(filepath.Join(a.dir, "initrd")), a.padding(),
		vm.ShellQuote(filepath.Join(a.dir, "payload.cpio")), vm.ShellQuote(joinedInitrd))
}
