package qemu

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

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

// filesScript prints path and hash of every file on the disk, without those
// that a running Debian itself writes, what lies below its /run, and the large
// ones of this test.
const filesScript = `
find . -xdev -type f ! -path './run/*' ! -path './var/log/*' ! -path './var/lib/systemd/*' ! -path './var/tmp/*' -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
`

// takeoverDebian replaces a Debian that runs from a disk, which is full, with
// little memory left. Afterwards the disk is sound, and every file on it as it
// was: the old system can start from it again.
func takeoverDebian(t *testing.T) {
	to := buildImage(t, recipe{system: "pocket:label=pocket-2"})
	n, disk := startDebian(t, 384)
	n.upload(t, takeoverFile(t, to))
	n.shell(t, fillScript)
	n.lookFirst(t, takeover.SegmentLoad)
	before := n.shell(t, "cd /\n"+filesScript)
	n.takeOver(t, to)
	// Field 7 of the kernel's Documentation/block/stat.rst: sectors written.
	if written := strings.TrimSpace(n.shell(t, "awk '{print $7}' /sys/block/vda/stat")); written != "0" {
		t.Errorf("the new system wrote %q sectors to the old one's disk; want none", written)
	}
	if diff := cmp.Diff(strings.Split(before, "\n"), strings.Split(filesOf(t, disk), "\n")); diff != "" || !strings.Contains(before, " ./etc/fstab\n") {
		t.Errorf("files on the old disk (-before +after):\n%s", diff)
	}
}

// filesOf checks the file system in an image of a disk, and runs filesScript on
// a copy of its tree.
func filesOf(t *testing.T, disk string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `e2fsck -fn "$DISK" >&2 && debugfs -R "rdump / ." "$DISK" >&2`+filesScript)
	var stderr strings.Builder
	cmd.Stderr, cmd.Dir = &stderr, t.TempDir()
	cmd.Env = append(os.Environ(), "DISK="+disk, "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	out, err := cmd.Output()
	if err != nil {
		t.Errorf("look at the old disk: %v\n%s", err, stderr.String())
	}
	return string(out)
}

// loginPrompt is Debian's, on its serial console.
var loginPrompt = vm.Regexp(regexp.MustCompile(`debian-guest login:`))

// startDebian boots the guest from a copy of its disk until it asks who wants
// to log in.
func startDebian(t *testing.T, memory int) (n *node, disk string) {
	t.Helper()
	m, config := debianGuest(t)
	port, err := vm.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	disk = filepath.Join(t.TempDir(), "disk")
	if out, err := exec.CommandContext(t.Context(), "cp", "--sparse=always", m.Drives[0].File, disk).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	m.Drives = []vm.Drive{{File: disk, As: vm.Disk}}
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
	return &node{VM: v, img: &image{config: config}, port: port}, disk
}
