package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"xnodeos.org/internal/vm"
)

// bootLimit is for one boot, from QEMU's start to the awaited line.
const bootLimit = 180 * time.Second

// Lines that end a wait early.
var (
	ready       = vm.Text("XNODE-READY ")
	kernelPanic = vm.Regexp(regexp.MustCompile(`Kernel panic - not syncing`))
	stageFailed = vm.Regexp(regexp.MustCompile(`xnode-init: error: `))
)

// The guest's network cards: the first has QEMU's own network, by which ssh
// comes in, the second a bare wire where a scenario asks for one.
const (
	userMAC = "52:54:00:12:34:01"
	wireMAC = "52:54:00:12:34:02"
)

// node is a machine of a scenario.
type node struct {
	*vm.VM
	img  *image
	port uint16
}

// scenario is how an image is booted.
type scenario struct {
	firmware vm.Firmware
	as       vm.Attach // of the ISO; empty: kernel, initrd and payload.cpio
	iso      string    // another file than the image's
	memory   int       // MiB
	append   string    // more words for the kernel; only without an ISO
	payload  []string  // kernel and initrd alone; the payload comes from these URLs
	wire     *wireNet
	change   func(*vm.Machine) // what else is different; may be nil
}

func (s scenario) machine(t *testing.T, img *image) (vm.Machine, uint16) {
	t.Helper()
	port, err := vm.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m := vm.Machine{Firmware: s.firmware, MemoryMiB: s.memory, Nets: []vm.Net{
		{Kind: vm.UserNet, MAC: userMAC, Isolated: true, Forwards: []vm.Forward{{Host: port, Guest: 22}}},
	}}
	if s.wire != nil {
		m.Nets = append(m.Nets, vm.Net{Kind: vm.WireNet, MAC: wireMAC})
	}
	if s.firmware == vm.UEFI {
		if m.OVMF, err = vm.FindOVMF("/usr/share", ""); err != nil {
			t.Fatalf("%v; run scripts/setup", err)
		}
	}
	if len(s.payload) > 0 {
		m.Nets[0].Isolated = false // the servers are on the host's loopback
		m.Kernel, m.Initrd = filepath.Join(img.netboot, "vmlinuz"), filepath.Join(img.netboot, "initrd")
		m.Append = img.manifest.Cmdline + " xnode.manifest=" + img.digest + " no_timer_check " + s.append +
			" xnode.payload=" + strings.Join(s.payload, " xnode.payload=")
		return m, port
	}
	if s.as == "" {
		m.Kernel, m.Initrd = filepath.Join(img.netboot, "vmlinuz"), img.joinInitrd(t)
		m.Append = strings.TrimSpace(img.manifest.Cmdline + " xnode.manifest=" + img.digest + " no_timer_check " + s.append)
		return m, port
	}
	iso := img.iso
	if s.iso != "" {
		iso = s.iso
	}
	m.Drives = []vm.Drive{{File: iso, As: s.as, Snapshot: s.as != vm.CD}}
	return m, port
}

// boot starts the image and waits for the first of the patterns; the others
// are failures. It is tried once more only if QEMU itself died.
func (s scenario) boot(t *testing.T, img *image, want vm.Pattern, not ...vm.Pattern) (*node, vm.Line) {
	t.Helper()
	for try := 0; ; try++ {
		n, line, err := s.bootOnce(t, img, append([]vm.Pattern{want}, not...))
		var fail *vm.ExpectError
		if errors.As(err, &fail) && fail.DiedBySignal() && try == 0 {
			t.Logf("once more, because %v", err)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		return n, line
	}
}

func (s scenario) bootOnce(t *testing.T, img *image, patterns []vm.Pattern) (*node, vm.Line, error) {
	t.Helper()
	m, port := s.machine(t, img)
	if s.change != nil {
		s.change(&m)
	}
	log := keepSerial(t)
	v, err := vm.Start(t.Context(), m, vm.Options{Now: time.Now, SerialLog: log})
	if err != nil {
		t.Fatalf("%v; run scripts/setup", err)
	}
	n := &node{VM: v, img: img, port: port}
	t.Cleanup(func() {
		v.Stop()
		if t.Failed() {
			t.Logf("%s\nthe console ended with\n%s", vm.ShellLine(v.Argv()), strings.Join(v.Tail(60), "\n"))
		}
	})
	if s.wire != nil {
		s.wire.serve(v.Wire(0))
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	which, line, err := v.ExpectFrom(ctx, 0, patterns...)
	if err == nil && which > 0 {
		// Let the rest of the failure arrive: it says the remedy.
		more, stop := context.WithTimeout(ctx, 2*time.Second)
		defer stop()
		_, _, _ = v.ExpectFrom(more, 1<<30, ready)
		return n, line, fmt.Errorf("wait for %v: the console says %q", patterns[0], line.Text)
	}
	if err == nil {
		t.Logf("%s after %.1f s", line.Text, line.At.Seconds())
	}
	return n, line, err
}

// keepSerial opens the raw serial log, which outlives a failed test.
func keepSerial(t *testing.T) *os.File {
	t.Helper()
	f, err := os.CreateTemp("", "xnodeos-"+strings.ReplaceAll(t.Name(), "/", "-")+"-*.serial.log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the serial log is kept as %s", f.Name())
			return
		}
		if err := os.Remove(f.Name()); err != nil {
			t.Error(err)
		}
	})
	return f
}

// dial logs in as root with the node config's key, and insists on its host key.
func (n *node) dial(t *testing.T, auth ssh.AuthMethod) (*ssh.Client, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var d net.Dialer
	addr := fmt.Sprintf("127.0.0.1:%d", n.port)
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	c, chans, reqs, err := ssh.NewClientConn(conn, addr, &ssh.ClientConfig{
		User: "root", Auth: []ssh.AuthMethod{auth},
		HostKeyCallback: ssh.FixedHostKey(n.img.config.host), HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return ssh.NewClient(c, chans, reqs), conn.SetDeadline(time.Time{})
}

// shell runs a script on the node and returns what it printed.
func (n *node) shell(t *testing.T, script string) string {
	t.Helper()
	client, err := n.dial(t, ssh.PublicKeys(n.img.config.login))
	if err != nil {
		t.Fatalf("ssh with the node config's key: %v", err)
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = strings.NewReader(script), &out, &stderr
	stop := time.AfterFunc(bootLimit, func() { client.Close() })
	defer stop.Stop()
	if err := session.Run("sh -s"); err != nil {
		t.Fatalf("ssh sh -s: %v\n%s\n%s", err, out.String(), stderr.String())
	}
	return out.String()
}

// facts runs commands on the node in one session, which under TCG costs a
// second each, and returns the output of each by its name. A command's code is
// the last line of its output where that matters: it says so itself.
func (n *node) facts(t *testing.T, commands map[string]string) map[string]string {
	t.Helper()
	var script strings.Builder
	const mark = "===fact "
	for name, command := range commands {
		// The empty echo ends an output that has no line end of its own.
		fmt.Fprintf(&script, "echo '%s%s'\n%s\necho\n", mark, name, command)
	}
	facts := map[string]string{}
	for part := range strings.SplitSeq("\n"+n.shell(t, script.String()), "\n"+mark) {
		name, text, _ := strings.Cut(part, "\n")
		facts[name] = strings.TrimSpace(text)
	}
	return facts
}
