package qemu

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/vm"
)

// stateDisk makes a blank disk and returns it as one with that serial number.
func stateDisk(t *testing.T, serial string) vm.Drive {
	t.Helper()
	name := filepath.Join(t.TempDir(), "state.img")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(512 << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return vm.Drive{File: name, As: vm.Disk, Serial: serial}
}

// with adds a disk to a machine.
func with(d vm.Drive) func(*vm.Machine) {
	return func(m *vm.Machine) { m.Drives = append(m.Drives, d) }
}

// stateFacts is what a booted node says of its state.
type stateFacts struct {
	State struct{ Disk, Partition, Result, Reason string }
	Key   string `json:"node_key"`
	Notes []string

	files map[string]string
}

// stateOf asks a node, whose key must be where the boot record says.
func (n *node) stateOf(t *testing.T) stateFacts {
	t.Helper()
	facts := n.facts(t, map[string]string{
		"record":  "cat /run/xnode/boot.json",
		"mount":   "grep ' /var/lib/xnode ' /proc/mounts",
		"modes":   "stat -c '%a %u %n' /var/lib/xnode /var/lib/xnode/* 2>/dev/null",
		"key":     "cat /var/lib/xnode/node-key.pub /run/xnode/node-key.pub 2>/dev/null",
		"private": "cat /var/lib/xnode/node-key /run/xnode/node-key 2>/dev/null",
		"kept":    "cat /var/lib/xnode/kept 2>/dev/null",
		"failed":  "systemctl --failed --plain --no-legend 'var-lib-*'",
		"clock":   "date +%s",
	})
	var s stateFacts
	if err := json.Unmarshal([]byte(facts["record"]), &s); err != nil {
		t.Fatalf("boot.json: %v\n%s", err, facts["record"])
	}
	s.files = facts
	if facts["failed"] != "" {
		t.Errorf("failed: %s", facts["failed"])
	}
	key, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(facts["key"]))
	if err != nil || strings.TrimSpace(string(rest)) != "" {
		t.Fatalf("public node key: %q, %v; want one", facts["key"], err)
	}
	private, err := ssh.ParsePrivateKey([]byte(facts["private"] + "\n"))
	if err != nil {
		t.Fatalf("node key: %v", err)
	}
	if got := ssh.FingerprintSHA256(key); got != s.Key || ssh.FingerprintSHA256(private.PublicKey()) != got {
		t.Errorf("node key %s, boot record %s; want the same", got, s.Key)
	}
	mounted := strings.Contains(facts["mount"], " ext4 rw,nosuid,nodev,noexec")
	if kept := s.State.Result == "made" || s.State.Result == "opened"; kept != mounted {
		t.Errorf("state %s, and in /proc/mounts %q", s.State.Result, facts["mount"])
	}
	return s
}

// says makes sure that the first stage has said something.
func (n *node) says(t *testing.T, pattern string) {
	t.Helper()
	for _, l := range n.Lines(0) {
		if strings.Contains(l.Text, "xnode-init: ") && regexp.MustCompile(pattern).MatchString(l.Text) {
			return
		}
	}
	t.Errorf("the console does not say /%s/", pattern)
}

func hashFile(t *testing.T, name string) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// checkDisk has other programs judge the disk: table and file system.
func checkDisk(t *testing.T, name string) {
	t.Helper()
	if out := testkit.RunTool(t, "sgdisk", "-v", name); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk -v: %s", out)
	}
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(t.TempDir(), "part")
	if err := os.WriteFile(part, data[1<<20:len(data)-1<<20], 0o600); err != nil {
		t.Fatal(err)
	}
	testkit.RunTool(t, "e2fsck", "-f", "-n", part)
}

// TestArtifactState follows a node's state: made on a blank disk, kept over a
// power cut and a clean end, not taken for another node's, made anew on request.
func TestArtifactState(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	disk := stateDisk(t, "state-1")
	boot := func(words string, d vm.Drive) *node {
		t.Helper()
		n, _ := scenario{append: "xnode.state=" + words, change: with(d)}.boot(t, img, ready, stageFailed, kernelPanic)
		return n
	}

	n := boot("serial:state-1", disk)
	first := n.stateOf(t)
	if first.State.Result != "made" || first.State.Disk != "serial:state-1" || first.State.Partition != "/dev/vda1" || len(first.Notes) > 0 {
		t.Fatalf("the first boot: %+v", first)
	}
	for _, want := range []string{"600 0 /var/lib/xnode/node-key", "644 0 /var/lib/xnode/node-key.pub", "644 0 /var/lib/xnode/marker.json"} {
		if !strings.Contains(first.files["modes"]+"\n", want+"\n") {
			t.Errorf("modes: %s; want %s", first.files["modes"], want)
		}
	}
	n.says(t, `node key `+regexp.QuoteMeta(first.Key)+`, kept on vda1`)
	n.shell(t, "mkdir -p /var/lib/xnode/applier && echo 1830000000 >/var/lib/xnode/applier/time-floor && echo yes >/var/lib/xnode/kept && sync")
	n.Stop() // as a power cut would

	n = boot("/dev/disk/by-id/virtio-state-1", disk)
	second := n.stateOf(t)
	if second.State.Result != "opened" || second.Key != first.Key || second.files["kept"] != "yes" {
		t.Errorf("after a power cut: %+v; want the key %s", second, first.Key)
	}
	n.says(t, `was not unmounted; its journal is replayed`)
	n.says(t, `the clock was before the time that was kept on XNODE-STATE`)
	if second.files["clock"] < "1830000000" {
		t.Errorf("the clock says %s; want at least 1830000000", second.files["clock"])
	}
	n.shell(t, "systemctl poweroff")
	if exit := n.Wait(); exit.Cause != vm.PoweredOff {
		t.Errorf("after poweroff: %v", exit)
	}
	checkDisk(t, disk.File)

	// The same disk in another place: another machine for all it can tell.
	before := hashFile(t, disk.File)
	elsewhere := disk
	elsewhere.Serial = "state-2"
	n = boot("vda", elsewhere)
	foreign := n.stateOf(t)
	if foreign.State.Result != "ignored" || foreign.Key == first.Key || foreign.files["kept"] != "" {
		t.Errorf("in another machine: %+v; want it ignored", foreign)
	}
	n.says(t, `serial number of the disk is "state-1" there and "state-2" here; attach the disk that belongs here, or begin anew once with xnode.state=new:`)
	n.says(t, `node key `+regexp.QuoteMeta(foreign.Key)+`, a new one at each boot`)
	n.Stop()
	if after := hashFile(t, disk.File); after == before {
		t.Log("the mount left the disk as it was")
	} else {
		// A mount for writing notes its time; nothing else may differ.
		checkDisk(t, disk.File)
	}

	n = boot("new:vda", elsewhere)
	anew := n.stateOf(t)
	if anew.State.Result != "made" || anew.Key == first.Key || anew.files["kept"] != "" {
		t.Errorf("new: %+v; want another key and nothing kept", anew)
	}
	n.says(t, `make the file system anew; take new: away`)
	n.shell(t, "systemctl poweroff")
	n.Wait()
	checkDisk(t, disk.File)
}

// TestArtifactStateForeign names a disk with somebody's data: it stays as it is,
// and the node comes up without a state.
func TestArtifactStateForeign(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	disk := stateDisk(t, "theirs")
	testkit.RunTool(t, "mke2fs", "-q", "-t", "ext4", "-L", "precious", disk.File)
	before := hashFile(t, disk.File)
	n, _ := scenario{append: "xnode.state=new:vda", change: with(disk)}.boot(t, img, ready, stageFailed, kernelPanic)
	s := n.stateOf(t)
	if s.State.Result != "ignored" || !strings.Contains(s.State.Reason, "holds an ext file system; it is not touched") || len(s.Notes) != 1 {
		t.Errorf("boot record: %+v; want the disk refused", s)
	}
	n.says(t, `/dev/vda \(serial theirs\) holds an ext file system; it is not touched: name a blank disk`)
	n.Stop()
	if after := hashFile(t, disk.File); after != before {
		t.Error("a foreign disk was written to")
	}
}
