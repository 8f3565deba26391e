package qemu

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"xnodeos.org/netboot/takeover"
)

// takeoverMemory is what a machine needs that runs a system in its memory,
// holds the takeover file there as well, and loads it.
const takeoverMemory = 768

// takeoverFile builds the takeover program of an image, with the payload in it
// unless there are URLs to fetch it from.
func takeoverFile(t *testing.T, img *image, urls ...string) []byte {
	t.Helper()
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), xnodeos(t), "image", "build", "--system", img.system, "--out", out, "--format", "takeover",
		"--node-config", filepath.Join(img.netboot, "..", "..", "node"))
	for _, u := range urls {
		cmd.Args = append(cmd.Args, "--payload-url", u)
	}
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, text)
	}
	found, err := filepath.Glob(filepath.Join(out, "xnodeos-takeover-*"))
	if err != nil || len(found) != 1 {
		t.Fatalf("takeover programs in %s: %q, %v; want one", out, found, err)
	}
	data, err := os.ReadFile(found[0])
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// takeoverPath is where the file lies on the old system: on its disk, if it has
// one.
const takeoverPath = "/var/tmp/xnodeos-takeover"

// command runs one command over ssh, with input, and returns what it wrote and
// whether it ended with code 0. Only a broken session fails the test.
func (n *node) command(t *testing.T, line string, input io.Reader) (stdout, stderr string, code int) {
	t.Helper()
	client, err := n.dial(t, ssh.PublicKeys(n.img.config.login))
	if err != nil {
		t.Fatalf("ssh: %v", err)
	}
	defer client.Close()
	session, err := client.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	var out, errors bytes.Buffer
	session.Stdin, session.Stdout, session.Stderr = input, &out, &errors
	stop := time.AfterFunc(bootLimit, func() { client.Close() })
	defer stop.Stop()
	err = session.Run(line)
	if exit, ok := err.(*ssh.ExitError); ok { //nolint:errorlint // session.Run returns it bare
		return out.String(), errors.String(), exit.ExitStatus()
	}
	if err != nil {
		t.Fatalf("ssh %s: %v\n%s\n%s", line, err, out.String(), errors.String())
	}
	return out.String(), errors.String(), 0
}

// upload brings the takeover file onto the old system.
func (n *node) upload(t *testing.T, file []byte) {
	t.Helper()
	began := time.Now()
	n.command(t, "cat > "+takeoverPath+" && chmod 755 "+takeoverPath, bytes.NewReader(file))
	t.Logf("%d MiB brought over in %.1f s", len(file)>>20, time.Since(began).Seconds())
}

// lookFirst makes a dry run and checks that it says yes, by which call, and
// changes nothing.
func (n *node) lookFirst(t *testing.T, want takeover.Method, flags ...string) takeover.Verdict {
	t.Helper()
	before := n.mark(t)
	stdout, stderr, code := n.command(t, strings.Join(append([]string{takeoverPath, "--dry-run --json"}, flags...), " "), nil)
	var v takeover.Verdict
	if err := json.Unmarshal([]byte(stdout), &v); err != nil || code != 0 {
		t.Fatalf("dry run: code %d, %v\n%s\n%s", code, err, stdout, stderr)
	}
	if v.Status == takeover.Fail || v.Method != want || len(v.Network) == 0 {
		t.Errorf("verdict: %+v; want a good one by %s", v, want)
	}
	if strings.Contains(stdout, "PRIVATE KEY") {
		t.Error("the verdict shows a private key")
	}
	n.untouched(t, before)
	return v
}

// takeOver runs the file, waits for the new system, and checks that it is the
// new one and answers as the old one did.
func (n *node) takeOver(t *testing.T, to *image, flags ...string) *node {
	t.Helper()
	id := strings.TrimSpace(n.shell(t, "cat /etc/machine-id"))
	seen := len(n.Lines(0))
	_, stderr, code := n.command(t, strings.Join(append([]string{takeoverPath, "--yes --append no_timer_check"}, flags...), " "), nil)
	if code != 0 {
		t.Fatalf("takeover: code %d\n%s", code, stderr)
	}
	t.Log(strings.TrimSpace(stderr))
	n.checkPeak(t, stderr)
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	which, line, err := n.ExpectFrom(ctx, seen, ready, stageFailed, kernelPanic)
	if err != nil || which != 0 {
		t.Fatalf("the new system did not come up: %v, %q", err, line.Text)
	}
	// Dialling insists on the old host key, checkUp on the old hostname.
	after := &node{VM: n.VM, port: n.port, img: &image{manifest: to.manifest, digest: to.digest, config: n.img.config}}
	after.checkUp(t, line, extra{})
	if got := strings.TrimSpace(after.shell(t, "cat /etc/machine-id")); got != id || len(id) != 32 {
		t.Errorf("machine id %q; want the old system's, %q", got, id)
	}
	if stdout, _, _ := after.command(t, "ip -4 -o addr show scope global", nil); !strings.Contains(stdout, "10.0.2.15/24") {
		t.Errorf("addresses:\n%s\nwant 10.0.2.15/24", stdout)
	}
	// The keys of the image open the door beside those of the old system.
	other := &node{VM: n.VM, port: n.port, img: &image{config: &nodeConfig{login: to.config.login, host: n.img.config.host}}}
	other.shell(t, "true")
	return after
}

// loadedLine is what the program says once the new kernel is loaded.
var loadedLine = regexp.MustCompile(`loaded by (\S+); that took ([0-9]+) MiB at its peak, ([0-9.]+) times the image of ([0-9]+) MiB`)

// checkPeak holds what loading took against what the preflight asks for, so
// that a machine with just as much has it.
func (n *node) checkPeak(t *testing.T, stderr string) {
	t.Helper()
	said := loadedLine.FindStringSubmatch(stderr)
	if said == nil {
		t.Errorf("%q; want it to say what loading took", stderr)
		return
	}
	peak, _ := strconv.ParseInt(said[2], 10, 64)
	image, _ := strconv.ParseInt(said[4], 10, 64)
	// The room to unpack the kernel is no part of the image, and counts once; so
	// does what is left to the old system.
	const room = 64 + 48
	most := map[takeover.Method]int64{takeover.FileLoad: 2*image + room, takeover.SegmentLoad: image + room}[takeover.Method(said[1])]
	if peak > most {
		t.Errorf("loading by %s took %d MiB; want at most %d MiB for an image of %d MiB", said[1], peak, most, image)
	}
}

// TestTakeover replaces a running Linux: another pocket, one machine after the
// other to save boots, and in the whole matrix a Debian, whose guest takes
// minutes to make.
func TestTakeover(t *testing.T) {
	t.Run("bios", takeoverBIOS)
	t.Run("uefi", takeoverUEFI)
	if full() {
		t.Run("debian", takeoverDebian)
	}
}
