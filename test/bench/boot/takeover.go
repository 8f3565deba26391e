package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/vm"
	"xnodeos.org/test/bench/rows"
)

// takeover replaces a pocket system, which runs in its memory, by another one,
// once by each system call: how much memory of the old system that takes at
// its peak, as a multiple of what is loaded, and how long.
func (b *bench) takeover(ctx context.Context) ([]rows.Row, error) {
	old, err := b.takeoverParts(ctx)
	if err != nil {
		return nil, err
	}
	var table []rows.Row
	for _, call := range []struct {
		flag, name string
		atMost     float64
	}{{"file", "kexec_file_load", 4}, {"load", "kexec_load", 2.5}} {
		ratio, seconds, err := old.run(ctx, call.flag)
		if err != nil {
			return nil, fmt.Errorf("takeover by %s: %w", call.name, err)
		}
		b.say("takeover by %s: %.2f times the image, up after %.1f s", call.name, ratio, seconds)
		table = append(table,
			rows.New("takeover by "+call.name+": peak on the old system, by the image", ratio, "x").AtMost(call.atMost),
			rows.New("takeover by "+call.name+": from the command to XNODE-READY", seconds, "s"))
	}
	return table, nil
}

// oldSystem is what a takeover begins with.
type oldSystem struct {
	iso, program string
	login        ssh.Signer
}

func (b *bench) takeoverParts(ctx context.Context) (*oldSystem, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	old := &oldSystem{}
	if old.login, err = ssh.NewSignerFromKey(key); err != nil {
		return nil, err
	}
	host, err := ssh.MarshalPrivateKey(key, "") // one key for both: nobody else is there
	if err != nil {
		return nil, err
	}
	node, out := filepath.Join(b.work, "node"), filepath.Join(b.work, "takeover")
	if err := os.MkdirAll(node, 0o755); err != nil {
		return nil, err
	}
	for name, data := range map[string][]byte{
		"authorized_keys": ssh.MarshalAuthorizedKey(old.login.PublicKey()), "ssh_host_ed25519_key": pem.EncodeToMemory(host),
	} {
		if err := os.WriteFile(filepath.Join(node, name), data, 0o600); err != nil {
			return nil, err
		}
	}
	program, err := testkit.BuildPrograms(ctx, b.root, filepath.Join(b.work, "programs"))
	if err != nil {
		return nil, err
	}
	if err := b.command(ctx, nil, program, "image", "build", "--system", "pocket", "--format", "iso,takeover", "--node-config", node, "--out", out); err != nil {
		return nil, err
	}
	for pattern, file := range map[string]*string{"*.iso": &old.iso, "xnodeos-takeover-*": &old.program} {
		found, err := filepath.Glob(filepath.Join(out, pattern))
		if err != nil || len(found) != 1 {
			return nil, fmt.Errorf("%s in %s: %q, %w; want one", pattern, out, found, err)
		}
		*file = found[0]
	}
	return old, nil
}

// run boots the old system, replaces it, and returns the peak as a multiple of
// the image and the time in seconds.
func (o *oldSystem) run(ctx context.Context, call string) (ratio, seconds float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*bootLimit)
	defer cancel()
	port, err := vm.FreePort(ctx)
	if err != nil {
		return 0, 0, err
	}
	machine, err := vm.Start(ctx, vm.Machine{
		MemoryMiB: bootMemory, Drives: []vm.Drive{{File: o.iso, As: vm.CD}},
		Nets: []vm.Net{{Kind: vm.UserNet, Isolated: true, Forwards: []vm.Forward{{Host: port, Guest: 22}}}},
	}, vm.Options{Now: time.Now})
	if err != nil {
		return 0, 0, err
	}
	defer machine.Stop()
	if err := awaitReady(ctx, machine, 0); err != nil {
		return 0, 0, fmt.Errorf("the old system: %w", err)
	}
	client, err := o.dial(ctx, port)
	if err != nil {
		return 0, 0, err
	}
	defer client.Close()
	file, err := os.ReadFile(o.program)
	if err != nil {
		return 0, 0, err
	}
	if _, err := command(client, "cat > /var/tmp/takeover && chmod 755 /var/tmp/takeover", file); err != nil {
		return 0, 0, err
	}
	seen, began := len(machine.Lines(0)), time.Now()
	text, err := command(client, "/var/tmp/takeover --yes --append no_timer_check --syscall "+call, nil)
	if err != nil {
		return 0, 0, err
	}
	if ratio, err = parsePeak(text); err != nil {
		return 0, 0, err
	}
	if err := awaitReady(ctx, machine, seen); err != nil {
		return 0, 0, fmt.Errorf("the new system: %w", err)
	}
	return ratio, time.Since(began).Seconds(), nil
}

// awaitReady waits for a system to be up, from a line of the console on.
func awaitReady(ctx context.Context, machine *vm.VM, from int) error {
	which, line, err := machine.ExpectFrom(ctx, from, vm.Text("XNODE-READY "), vm.Text("xnode-init: error: "), vm.Text("Kernel panic"))
	if err == nil && which != 0 {
		err = &refusedError{line.Text}
	}
	if err != nil {
		return fmt.Errorf("%w\n%s", err, strings.Join(machine.Tail(20), "\n"))
	}
	return nil
}

// peakPattern is what the program says when the new kernel is loaded.
var peakPattern = regexp.MustCompile(`that took [0-9]+ MiB at its peak, ([0-9.]+) times the image`)

func parsePeak(text string) (float64, error) {
	m := peakPattern.FindStringSubmatch(text)
	if m == nil {
		return 0, fmt.Errorf("the takeover program says %q; want its peak", text)
	}
	return strconv.ParseFloat(m[1], 64)
}

// dial waits for the old system's ssh server.
func (o *oldSystem) dial(ctx context.Context, port uint16) (*ssh.Client, error) {
	address := fmt.Sprintf("127.0.0.1:%d", port)
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	c, channels, requests, err := ssh.NewClientConn(conn, address, &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(o.login)}, HostKeyCallback: ssh.FixedHostKey(o.login.PublicKey()),
	})
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("log in to the old system: %w", err)
	}
	return ssh.NewClient(c, channels, requests), nil
}

// command runs one command and returns what it said on standard error.
func command(client *ssh.Client, line string, input []byte) (string, error) {
	session, err := client.NewSession()
	if err != nil {
		return "", err
	}
	defer session.Close()
	var stderr bytes.Buffer
	session.Stdin, session.Stderr = bytes.NewReader(input), &stderr
	if err := session.Run(line); err != nil {
		return "", fmt.Errorf("%s: %w\n%s", line, err, stderr.String())
	}
	return stderr.String(), nil
}
