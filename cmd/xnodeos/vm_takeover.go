package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/ssh"

	"xnodeos.org/imagebuild/takeoverfile"
	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/nodeconfig"
	"xnodeos.org/internal/vm"
	"xnodeos.org/netboot/takeover"
)

// takeoverArtifact is a takeover program. The machine first starts the system
// that the program carries, as the old Linux; then the program is brought there
// over ssh and run, as on any other machine: the system replaces itself.
type takeoverArtifact struct {
	data   []byte
	src    takeover.Source
	ready  string // what the console says when the old system is up
	key    ssh.Signer
	port   uint16
	append []string
}

func openTakeover(path string) (artifact, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("vm run: artifact: %w", err)
	}
	f, err := takeoverfile.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, fmt.Errorf("vm run: %s: %w", path, err)
	}
	if f.Payload == nil {
		return nil, fmt.Errorf("vm run: %q carries no payload, so there is nothing to start first; build it without --payload-url", path)
	}
	part := func(p takeoverfile.Part) []byte { return data[p.Offset : p.Offset+p.Size] }
	a := &takeoverArtifact{data: data, src: takeover.Source{
		ManifestRaw: part(f.Manifest), Kernel: part(f.Kernel), Initrd: part(f.Initrd), Payload: part(*f.Payload),
	}}
	if a.src.Cmdline, err = f.Line(); err != nil {
		return nil, fmt.Errorf("vm run: %s: %w", path, err)
	}
	m, err := manifest.Parse(a.src.ManifestRaw)
	if err != nil {
		return nil, fmt.Errorf("vm run: %s: %w", path, err)
	}
	a.ready = "XNODE-READY generation=" + m.Label + " "
	return a, nil
}

func (a *takeoverArtifact) attach(m *vm.Machine, f vmFlags) error {
	switch {
	case f.as != "" && f.as != "takeover":
		return usagef("vm run: --as %s is for an ISO or a disk image; a takeover program runs as takeover", f.as)
	case f.dryRun:
		return usagef("vm run: --dry-run cannot show a takeover: it is more than one line for a shell")
	}
	if m.Accel == vm.TCG {
		a.append = append(a.append, "no_timer_check") // see netbootArtifact
	}
	a.append = append(a.append, strings.Fields(f.append)...)
	a.port = m.Nets[0].Forwards[0].Host
	m.Kernel, m.Initrd = "vmlinuz", "initrd" // prepare knows where
	m.Append = strings.Join(append([]string{a.src.Cmdline}, a.append...), " ")
	return nil
}

// prepare writes kernel and initrd, with a key in it that was made for this run
// and may log in.
func (a *takeoverArtifact) prepare(m vm.Machine) (vm.Machine, func(), error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return m, nil, fmt.Errorf("vm run: make a key: %w", err)
	}
	if a.key, err = ssh.NewSignerFromKey(private); err != nil {
		return m, nil, fmt.Errorf("vm run: make a key: %w", err)
	}
	dir, err := os.MkdirTemp("", "xnodeos-vm-")
	if err != nil {
		return m, nil, fmt.Errorf("vm run: %w", err)
	}
	remove := func() { os.RemoveAll(dir) }
	m.Kernel, m.Initrd = filepath.Join(dir, "vmlinuz"), filepath.Join(dir, "initrd")
	if err := a.write(m); err != nil {
		remove()
		return m, nil, fmt.Errorf("vm run: %w", err)
	}
	return m, remove, nil
}

func (a *takeoverArtifact) write(m vm.Machine) error {
	if err := os.WriteFile(m.Kernel, a.src.Kernel, 0o600); err != nil {
		return err
	}
	out, err := os.OpenFile(m.Initrd, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	keys := &nodeconfig.Config{Files: map[string][]byte{"authorized_keys": ssh.MarshalAuthorizedKey(a.key.PublicKey())}}
	return errors.Join(takeover.WriteInitrd(out, a.src, keys), out.Close())
}

func (a *takeoverArtifact) shellPrepare() string { return "" }

// drive waits for the old system, brings the program there and runs it. It
// returns the number of the console's first line after that.
func (a *takeoverArtifact) drive(ctx context.Context, v *vm.VM, out io.Writer) (int, error) {
	if _, err := v.Expect(ctx, vm.Text(a.ready)); err != nil {
		return 0, fmt.Errorf("start the old system: %w", err)
	}
	client, err := a.dial(ctx)
	if err != nil {
		return 0, fmt.Errorf("log in to the old system: %w", err)
	}
	defer client.Close() //nolint:errcheck // the other end goes away
	stop := context.AfterFunc(ctx, func() { _ = client.Close() })
	defer stop()
	const place = "/run/xnodeos-takeover"
	run := place + " --yes"
	for _, word := range a.append {
		run += " --append " + vm.ShellQuote(word)
	}
	from := 0
	for _, step := range []struct {
		line  string
		input io.Reader
	}{{"cat > " + place + " && chmod 755 " + place, bytes.NewReader(a.data)}, {run, nil}} {
		session, err := client.NewSession()
		if err != nil {
			return 0, fmt.Errorf("run the takeover program: %w", err)
		}
		session.Stdin, session.Stdout, session.Stderr = step.input, out, out
		from = len(v.Lines(0))
		if err := session.Run(step.line); err != nil {
			return 0, fmt.Errorf("run the takeover program: %w", errors.Join(err, ctx.Err()))
		}
	}
	return from, nil
}

// dial logs in. The host key is not known before: the machine has just made it,
// and the port is one of this host's loopback.
func (a *takeoverArtifact) dial(ctx context.Context) (*ssh.Client, error) {
	addr := fmt.Sprintf("127.0.0.1:%d", a.port)
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, addr, &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(a.key)},
		HostKeyCallback: func(string, net.Addr, ssh.PublicKey) error { return nil },
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return ssh.NewClient(c, chans, reqs), nil
}
