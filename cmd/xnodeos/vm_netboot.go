package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"xnodeos.org/internal/vm"
)

// guestHost is this host's loopback, as a machine on QEMU's own network sees
// it.
const guestHost = "10.0.2.2"

// webFolder is an HTTP server of this run, on the host's loopback.
type webFolder struct {
	dir     string
	port    uint16
	handler http.Handler
}

func (w webFolder) url(name string) string {
	return fmt.Sprintf("http://%s:%d/%s", guestHost, w.port, url.PathEscape(name))
}

// serve answers until the returned function is called.
func (w webFolder) serve() (stop func(), err error) {
	var listen net.ListenConfig
	l, err := listen.Listen(context.Background(), "tcp", fmt.Sprintf("127.0.0.1:%d", w.port)) // ends with stop
	if err != nil {
		return nil, fmt.Errorf("vm run: serve %s: %w; is the port taken? choose another with --http-port", w.dir, err)
	}
	server := &http.Server{Handler: w.handler, ReadHeaderTimeout: time.Minute}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = server.Serve(l) }()
	return func() { _ = server.Close(); <-ended }, nil
}

// shell does the same for a person's shell. Python's server ignores Range, and
// the first stage takes that.
func (w webFolder) shell() string {
	return fmt.Sprintf("{ python3 -m http.server --bind 127.0.0.1 --directory %s %d & }", vm.ShellQuote(w.dir), w.port)
}

// ipxeArtifact is a netboot folder that the network card's own iPXE boots: DHCP
// names boot.ipxe on a server of this run, everything else comes from there.
type ipxeArtifact struct{ web webFolder }

// newIPXE checks that the folder can be netbooted.
func newIPXE(dir string) (artifact, error) {
	for _, name := range []string{"boot.ipxe", "vmlinuz", "initrd", "system.squashfs"} {
		if _, err := os.Stat(filepath.Join(dir, name)); errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("vm run: folder %q has no %s; xnodeos image build --format netboot writes it", dir, name)
		} else if err != nil {
			return nil, fmt.Errorf("vm run: netboot folder: %w", err)
		}
	}
	return &ipxeArtifact{webFolder{dir: dir, handler: http.FileServer(http.Dir(dir))}}, nil
}

func (a *ipxeArtifact) attach(m *vm.Machine, f vmFlags) error {
	switch {
	case f.as != "" && f.as != "netboot":
		return usagef("vm run: --as %s is for an ISO or a disk image; %q is a netboot folder", f.as, a.web.dir)
	case f.append != "":
		return usagef("vm run: --append does not go with --as netboot: the command line is in boot.ipxe")
	}
	a.web.port = f.httpPort
	m.Nets[0].PXE, m.Nets[0].BootFile = true, a.web.url("boot.ipxe")
	return nil
}

func (a *ipxeArtifact) prepare(m vm.Machine) (vm.Machine, func(), error) {
	stop, err := a.web.serve()
	return m, stop, err
}

func (a *ipxeArtifact) shellPrepare() string { return a.web.shell() }

// httpBootArtifact is a unified kernel image that the firmware fetches by UEFI
// HTTP boot. The netboot folder beside it is served as well, for its payload.
type httpBootArtifact struct {
	path string
	web  webFolder
	ovmf vm.OVMF
	vars vm.VarsPatch
}

const ownVars = "xnodeos-vars.fd"

func newHTTPBoot(path string) artifact {
	dir, name := filepath.Dir(path), filepath.Base(path)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/"+name {
			http.NotFound(w, r)
			return
		}
		http.ServeFile(w, r, path)
	})
	mux.Handle("/netboot/", http.FileServer(http.Dir(dir)))
	return &httpBootArtifact{path: path, web: webFolder{dir: dir, handler: mux}}
}

func (a *httpBootArtifact) attach(m *vm.Machine, f vmFlags) error {
	switch {
	case m.Firmware != vm.UEFI:
		return usagef("vm run: %q is a UEFI program; add --firmware uefi", a.path)
	case f.append != "":
		return usagef("vm run: --append does not go with a UEFI program, which is started as it is")
	}
	a.web.port, a.ovmf = f.httpPort, m.OVMF
	var err error
	if a.vars, err = m.OVMF.HTTPBoot(a.web.url(filepath.Base(a.path))); err != nil {
		return fmt.Errorf("vm run: %w", err)
	}
	m.OVMF.Vars = ownVars // prepare knows where
	return nil
}

func (a *httpBootArtifact) prepare(m vm.Machine) (vm.Machine, func(), error) {
	dir, err := os.MkdirTemp("", "xnodeos-vm-")
	if err != nil {
		return m, nil, fmt.Errorf("vm run: %w", err)
	}
	m.OVMF.Vars = filepath.Join(dir, ownVars)
	stop := func() {}
	if err = a.ovmf.WriteVars(m.OVMF.Vars, a.vars); err == nil {
		stop, err = a.web.serve()
	}
	if err != nil {
		return m, nil, errors.Join(err, os.RemoveAll(dir))
	}
	return m, func() { stop(); os.RemoveAll(dir) }, nil
}

func (a *httpBootArtifact) shellPrepare() string {
	return fmt.Sprintf("cp %s %s && printf %%s %s | base64 -d | dd of=%s bs=1 seek=%d conv=notrunc status=none && %s",
		vm.ShellQuote(a.ovmf.Vars), ownVars, base64.StdEncoding.EncodeToString(a.vars.Data), ownVars, a.vars.Offset, a.web.shell())
}
