package stage1

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/nodeconfig"
	"xnodeos.org/internal/trust"
	"xnodeos.org/netboot/stage1/fetch"
)

const (
	ramDir = runDir + "/payload"
	// certificates may come in an archive of one's own behind the initrd.
	certificates = "/etc/ssl/certs/ca-certificates.crt"
	resolvFile   = "/etc/resolv.conf"
)

// wanted reads what the node config trusts, for the manifest.
func (s *stage) wanted(config *nodeconfig.Config) (wantedManifest, error) {
	var check fetch.Check
	if runtime.GOARCH == "amd64" {
		check.Arch = "x86_64-linux"
	}
	if data := config.Files["trust/allowed_signers"]; data != nil {
		signers, err := trust.Parse(data)
		if err != nil {
			return wantedManifest{}, stepError("read node config", fmt.Errorf("trust/allowed_signers: %w", err), "")
		}
		check.Signers = signers
	}
	return wanted(s.options.Manifest, check)
}

// httpSource is the source of the payload words.
func (s *stage) httpSource(want wantedManifest) *httpSource {
	return &httpSource{
		mirrors: s.options.Payload,
		more:    s.mirrors,
		floor:   s.sequenceFloor,
		check:   want.Check,
		options: fetch.Options{Client: fetch.NewClient(s.clientOptions()), Clock: uptime},
		watch:   s.watch, con: s.con,
		online: s.online,
		room:   newRAMFile,
	}
}

// clientOptions identify servers only where the initramfs says whom to believe.
func (s *stage) clientOptions() fetch.ClientOptions {
	o := fetch.ClientOptions{Now: time.Now} //nolint:forbidigo // the dates of certificates are about the real time
	data, err := os.ReadFile(certificates)
	if errors.Is(err, fs.ErrNotExist) {
		return o
	}
	roots := x509.NewCertPool()
	if err != nil || !roots.AppendCertsFromPEM(data) {
		s.note(fmt.Sprintf("%s holds no certificate (%v): no https server will be believed", certificates, err))
	}
	o.Roots = roots
	return o
}

// mirrors are those of the command line, then those of the node config, which
// may lie on a volume.
func (s *stage) mirrors(ctx context.Context) []fetch.Mirror {
	select {
	case <-s.settled:
	case <-ctx.Done():
		return nil
	}
	mirrors, notes := addMirrors(s.options.Payload, s.set.config.Payload())
	s.note(notes...)
	return mirrors
}

// online waits for an address, and lets names be looked up by what came with it.
func (s *stage) online(ctx context.Context) error {
	network := s.set.network
	for {
		changed := network.Changed.C()
		if results := network.Results(); hasLease(results) {
			if err := writeResolv(results); err != nil {
				return err
			}
			s.background("keep resolv.conf", func() { followResolv(ctx, network) })
			return nil
		}
		pause(ctx, changed, time.Second)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// followResolv adds the name servers of links that come later.
func followResolv(ctx context.Context, network *Network) {
	for ctx.Err() == nil {
		changed := network.Changed.C()
		pause(ctx, changed, time.Minute)
		_ = writeResolv(network.Results()) // the first ones are there
	}
}

func writeResolv(results []LinkResult) error {
	if err := os.WriteFile(resolvFile, []byte(resolvConf(results)), 0o644); err != nil {
		return fmt.Errorf("write the list of name servers: %w", err)
	}
	return nil
}

// tmpfsFile is the ramFile of the running kernel: a tmpfs of its own, bounded by
// the payload's size, below /run, with which it goes into the new root.
type tmpfsFile struct {
	*os.File
}

func newRAMFile(size int64) (ramFile, error) {
	memory, err := readMemory()
	if err != nil {
		return nil, err
	}
	if err := memory.CheckPayload(size); err != nil {
		return nil, err
	}
	bound := fmt.Sprintf("mode=0700,size=%d,nr_inodes=8", size+1<<20)
	if err := (mountOp{"tmpfs", ramDir, "tmpfs", []mountFlag{flagNoSUID, flagNoDev, flagNoExec}, bound}).do(); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(ramDir, fetch.PayloadName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o400)
	if err == nil {
		err = f.Truncate(size)
	}
	t := tmpfsFile{f}
	if err != nil {
		t.Release()
		return nil, fmt.Errorf("make room for the payload: %w", err)
	}
	return t, nil
}

func (t tmpfsFile) Path() string { return t.Name() }

func (t tmpfsFile) Finish() error { return t.Close() }

func (t tmpfsFile) Release() {
	if t.File != nil {
		_ = t.Close()
	}
	_ = unix.Unmount(ramDir, unix.MNT_DETACH)
	_ = os.Remove(ramDir)
}

// checkKernel sees a system that has no modules for the running kernel: signed
// payloads of several releases may lie in reach of one kernel.
// It is asked in the new root, where the system's links lead somewhere.
func checkKernel(m *manifest.Manifest) error {
	release, err := kernelRelease()
	if err != nil {
		return err
	}
	dir := filepath.Join(m.System, "kernel-modules/lib/modules")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil //nolint:nilerr // a kernel without modules: nothing to compare
	}
	var names []string
	for _, e := range entries {
		if e.Name() == release {
			return nil
		}
		names = append(names, e.Name())
	}
	return fmt.Errorf("the running kernel is %s, the system has modules for %q: kernel and payload belong to two releases", release, names)
}
