package qemu

import (
	"context"
	"regexp"
	"strings"
	"testing"
	"time"

	"xnodeos.org/internal/vm"
	"xnodeos.org/netboot/takeover"
)

// fillScript leaves no byte of the disk, and so little memory that only
// kexec_load fits.
const fillScript = `
fallocate -l $(( $(df -k --output=avail / | tail -1) - 512 ))K /var/tmp/fill
cat /dev/zero > /var/tmp/more 2>/dev/null
[ "$(df -k --output=avail / | tail -1)" -eq 0 ] || exit 1
more=$(awk '/^MemAvailable/ {print int($2 / 1024) - 205}' /proc/meminfo)
[ "$more" -le 0 ] || head -c "${more}M" /dev/zero > /dev/shm/fill
`

// takeoverDebian replaces a Debian that runs from a disk, which is full, with
// little memory left. The disk is sound afterwards: the old system can start
// from it again.
func takeoverDebian(t *testing.T) {
	to := buildImage(t, recipe{system: "pocket:label=pocket-2"})
	n := startDebian(t, 384)
	n.upload(t, takeoverFile(t, to))
	n.shell(t, fillScript)
	n.lookFirst(t, takeover.SegmentLoad)
	n.takeOver(t, to)
	// s_state of the superblock, at its byte 58: 1 is EXT4_VALID_FS.
	stdout, stderr, _ := n.command(t, "dd if=/dev/vda bs=1 skip=1082 count=2 2>/dev/null | hexdump -e '2/1 \"%02x\"'", nil)
	if state := strings.TrimSpace(stdout); state != "0100" {
		t.Errorf("state of the old disk's file system is %q %s; want 0100: clean", state, stderr)
	}
}

// loginPrompt is Debian's, on its serial console.
var loginPrompt = vm.Regexp(regexp.MustCompile(`debian-guest login:`))

// startDebian boots the guest until it asks who wants to log in.
func startDebian(t *testing.T, memory int) *node {
	t.Helper()
	m, config := debianGuest(t)
	port, err := vm.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	m.MemoryMiB = memory
	m.Nets = []vm.Net{{Kind: vm.UserNet, MAC: userMAC, Isolated: true, Forwards: []vm.Forward{{Host: port, Guest: 22}}}}
	v, err := vm.Start(t.Context(), m, vm.Options{Now: time.Now, SerialLog: keepSerial(t)})
	if err != nil {
		t.Fatalf("%v; run scripts/setup", err)
	}
	t.Cleanup(func() {
		v.Stop()
		if t.Failed() {
			t.Logf("%s\nthe console ended with\n%s", vm.ShellLine(v.Argv()), strings.Join(v.Tail(60), "\n"))
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	which, line, err := v.ExpectFrom(ctx, 0, loginPrompt, kernelPanic)
	if err != nil || which != 0 {
		t.Fatalf("Debian did not come up: %v, %q", err, line.Text)
	}
	t.Logf("Debian is up after %.1f s", line.At.Seconds())
	return &node{VM: v, img: &image{config: config}, port: port}
}
