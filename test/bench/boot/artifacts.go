package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/vm"
)

// artifacts are the files of one build, and a server that gives them to guests.
type artifacts struct {
	iso, uki, raw string
	netboot       string // folder
	cmdline       string // of the manifest, with the manifest's hash
	url           string // of the build's folder, for a guest; ends in a slash
	ovmf          vm.OVMF
	httpBoot      vm.OVMF // with variables of its own, which name the unified image
	stop          func()
}

// artifacts builds by the real command. The server comes first: the unified
// image has its address inside.
func (b *bench) artifacts(ctx context.Context) (a *artifacts, err error) {
	b.say("building pocket: ISO, netboot tree, unified image, disk image")
	program, err := testkit.BuildPrograms(ctx, b.root, filepath.Join(b.work, "programs"))
	if err != nil {
		return nil, err
	}
	out := filepath.Join(b.work, "out")
	a = &artifacts{netboot: filepath.Join(out, "netboot")}
	if err := a.serve(ctx, out); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.stop()
		}
	}()
	if err := b.command(ctx, nil, program, "image", "build", "--system", "pocket", "--format", "iso,netboot,uki,raw",
		"--payload-url", a.url+"netboot/", "--out", out); err != nil {
		return nil, err
	}
	for ending, file := range map[string]*string{".iso": &a.iso, ".efi": &a.uki, ".img": &a.raw} {
		found, err := filepath.Glob(filepath.Join(out, "*"+ending))
		if err != nil || len(found) != 1 {
			return nil, fmt.Errorf("%s files in %s: %q, %w; want one", ending, out, found, err)
		}
		*file = found[0]
	}
	raw, err := os.ReadFile(filepath.Join(a.netboot, manifest.FileName))
	if err != nil {
		return nil, err
	}
	m, err := manifest.Parse(raw)
	if err != nil {
		return nil, err
	}
	a.cmdline = m.Cmdline + " xnode.manifest=" + manifest.DigestOf(raw)
	return a, a.firmware(b.work)
}

// serve gives the folder to guests on QEMU's own network.
func (a *artifacts) serve(ctx context.Context, dir string) error {
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	a.url = "http://10.0.2.2:" + port + "/"
	server := &http.Server{Handler: http.FileServer(http.Dir(dir)), ReadHeaderTimeout: time.Minute}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	a.stop = func() { _ = server.Close(); <-ended }
	return nil
}

// firmware finds OVMF, and makes variables by which it boots the unified image.
func (a *artifacts) firmware(work string) (err error) {
	if a.ovmf, err = vm.FindOVMF("/usr/share", ""); err != nil {
		return fmt.Errorf("%w; run scripts/setup", err)
	}
	patch, err := a.ovmf.HTTPBoot(a.url + filepath.Base(a.uki))
	if err != nil {
		return err
	}
	a.httpBoot = vm.OVMF{Code: a.ovmf.Code, Vars: filepath.Join(work, "vars.fd")}
	return a.ovmf.WriteVars(a.httpBoot.Vars, patch)
}

// Names of what others are compared with.
const (
	bareBIOS = "bare static init, kernel given by QEMU, BIOS"
	bareUEFI = "bare static init, kernel given by QEMU, UEFI"
	debianOS = "Debian, initramfs-tools, to multi-user"
	isoBIOS  = "ISO as CD, BIOS"
	isoWhole = "ISO as CD, the whole payload read before it is used"
)

// paths are all machines, in the order of a round. A path that is no peer is
// compared with the one that it names.
func (a *artifacts) paths(bare, debian vm.Machine) []path {
	isolated, online := vm.Net{Kind: vm.UserNet, Isolated: true}, vm.Net{Kind: vm.UserNet}
	card := online
	card.PXE, card.BootFile = true, a.url+"netboot/boot.ipxe"
	uefi := func(m vm.Machine) vm.Machine { m.Firmware, m.OVMF = vm.UEFI, a.ovmf; return m }
	with := func(file string, as vm.Attach) vm.Machine {
		return vm.Machine{Drives: []vm.Drive{{File: file, As: as, Snapshot: as != vm.CD}}, Nets: []vm.Net{isolated}}
	}
	checked := func(how string) vm.Machine {
		m := with(a.iso, vm.CD)
		m.Kernel, m.Initrd = filepath.Join(a.netboot, "vmlinuz"), filepath.Join(a.netboot, "initrd")
		m.Append = strings.Join([]string{a.cmdline, "no_timer_check", "xnode.verify=" + how}, " ")
		return m
	}
	overHTTP := vm.Machine{Firmware: vm.UEFI, OVMF: a.httpBoot, Nets: []vm.Net{online}}
	return []path{
		{name: bareBIOS, machine: bare, text: "BARE-READY"},
		{name: bareUEFI, machine: uefi(bare), text: "BARE-READY"},
		{name: debianOS, machine: debian, text: "DEBIAN-READY"},
		{name: isoBIOS, machine: with(a.iso, vm.CD), text: ready, peer: bareBIOS},
		{name: "ISO as CD, UEFI", machine: uefi(with(a.iso, vm.CD)), text: ready, peer: bareUEFI},
		{name: "iPXE, payload over HTTP, BIOS", machine: vm.Machine{Nets: []vm.Net{card}}, text: ready, peer: bareBIOS},
		{name: "unified image by UEFI HTTP boot, payload over HTTP", machine: overHTTP, text: ready, peer: bareUEFI},
		{name: "disk image, BIOS", machine: with(a.raw, vm.Disk), text: ready, peer: bareBIOS},
		{name: "disk image, UEFI", machine: uefi(with(a.raw, vm.Disk)), text: ready, peer: bareUEFI},
		{name: isoWhole, machine: checked("whole"), text: ready},
		{name: "ISO as CD, each block checked when it is read", machine: checked("blocks"), text: ready, peer: isoWhole},
	}
}

// smallest are the paths whose memory is looked for.
func (a *artifacts) smallest() []path {
	var found []path
	for _, p := range a.paths(vm.Machine{}, vm.Machine{}) {
		if strings.HasPrefix(p.name, "ISO as CD, BIOS") || strings.HasPrefix(p.name, "ISO as CD, UEFI") || strings.HasPrefix(p.name, "iPXE") {
			found = append(found, p)
		}
	}
	return found
}
