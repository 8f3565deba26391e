package qemu

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"xnodeos.org/imagebuild/takeoverfile"
	"xnodeos.org/internal/manifest"
)

// markFile is younger than whatever was there before.
const markFile = "/dev/shm/mark"

// stateScript prints what a takeover could change: the loaded kernel, mounts,
// modules, services, and every file that is younger than the mark, without
// those that a login itself writes.
const stateScript = `
cat /sys/kernel/kexec_loaded /proc/mounts /proc/swaps
ls /sys/module
systemctl list-units --plain --no-legend --type=service --state=running | awk '{print $1}'
find / -xdev -newer ` + markFile + ` -type f
find /run -xdev -newer ` + markFile + ` -type f ! -path '/run/systemd/*' ! -path '/run/log/*' ! -path '/run/udev/*' ! -name utmp ! -name 'motd.*'
`

// loginFiles are written by the login of the test itself, and the journal.
var loginFiles = regexp.MustCompile(`(?m)^(/var/log/(wtmp|btmp|lastlog|journal/.*)|/var/lib/systemd/.*|tmpfs /run/user/.*|(user|user-runtime-dir|sshd?)@.*)\n`)

// mark returns the state of the old system, for untouched.
func (n *node) mark(t *testing.T) string {
	t.Helper()
	n.shell(t, "sync; touch "+markFile+"; sleep 1")
	return n.state(t)
}

func (n *node) state(t *testing.T) string {
	t.Helper()
	return loginFiles.ReplaceAllString(n.shell(t, stateScript), "")
}

// untouched checks that the old system is as it was at the mark.
func (n *node) untouched(t *testing.T, before string) {
	t.Helper()
	if got := n.state(t); got != before {
		t.Errorf("state of the old system:\n%s\nit was\n%s", got, before)
	}
	if !strings.HasPrefix(before, "0\n") {
		t.Errorf("a kernel is loaded: %q", before)
	}
}

// refusal is something wrong with the old system, and what is said about it.
type refusal struct {
	name, before, command, want string
	code                        int
}

func (n *node) refuses(t *testing.T, list []refusal) {
	t.Helper()
	for _, r := range list {
		if r.before != "" {
			n.shell(t, r.before)
		}
		before := n.mark(t)
		stdout, stderr, code := n.command(t, strings.ReplaceAll(r.command, "FILE", takeoverPath), nil)
		if code != r.code || !regexp.MustCompile(r.want).MatchString(stderr) {
			t.Errorf("%s: code %d, want %d; %q, want /%s/\n%s", r.name, code, r.code, stderr, r.want, stdout)
		}
		n.untouched(t, before)
	}
}

// leaveScript leaves 120 MiB of memory, with which neither call can work.
const leaveScript = `
more=$(awk '/^MemAvailable/ {print int($2 / 1024) - 120}' /proc/meminfo)
dd if=/dev/zero of=/dev/shm/fill bs=1M count="$more" 2>/dev/null
`

// incapableScript makes a service that runs the file as a root that may not
// start kernels.
const incapableScript = `
cat > /run/systemd/system/incapable.service <<END
[Service]
Type=oneshot
CapabilityBoundingSet=~CAP_SYS_BOOT
StandardError=file:/dev/shm/stderr
ExecStart=` + takeoverPath + ` --yes
END
systemctl daemon-reload
`

// TestTakeoverRefused shows that what is wrong is said, and nothing changed.
func TestTakeoverRefused(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	file := takeoverFile(t, img)
	opened, err := takeoverfile.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	at := opened.Payload.Offset + 5*manifest.ChunkSize + 77
	file[at] ^= 1
	n, _ := scenario{memory: takeoverMemory}.boot(t, img, ready, stageFailed, kernelPanic)
	n.upload(t, file)
	mend := fmt.Sprintf("printf '\\%03o' | dd of=%s bs=1 seek=%d conv=notrunc 2>/dev/null", file[at]^1, takeoverPath, at)
	n.refuses(t, []refusal{
		{"nobody to ask", "", "FILE", `nobody is there to ask`, 2},
		{"tampered payload", "", "FILE --yes", `system\.squashfs.* chunk 5 .*nothing was changed`, 1},
		{"marked as a container", mend + "; echo lxc > /run/systemd/container", "FILE --yes", `this is a container.*run it on the host.*nothing was changed`, 1},
		{"namespaces", "rm /run/systemd/container", "unshare -p -f FILE --yes", `this is a container: the pid namespace is not the first one.*run it on the host.*nothing was changed`, 1},
		{"user namespace", "", "unshare -U -r FILE --yes", `this is a container.*nothing was changed`, 1},
		{"without the capability", incapableScript, "systemctl start incapable; code=$?; cat /dev/shm/stderr >&2; exit $code", `root here lacks the capability CAP_SYS_BOOT.*nothing was changed`, 1},
		{"not root", "", "su -s /bin/sh nixbld1 -c 'FILE --yes'", `runs as user [0-9]+.*run it with sudo.*nothing was changed`, 1},
		{"other architecture", "", "linux32 FILE --yes", `the machine is i686; this file is for x86_64.*nothing was changed`, 1},
		{"no memory to load", leaveScript, "FILE --yes", `no way to load the new kernel; kexec_file_load: needs [0-9]+ MiB, [0-9]+ MiB are free.*kexec_load: needs.*free memory.*nothing was changed`, 1},
		{"switched off", "rm /dev/shm/fill; echo 1 > /proc/sys/kernel/kexec_load_disabled", "FILE --yes", `kexec_load_disabled is 1.*reboot.*nothing was changed`, 1},
	})
}

// TestTakeoverLockedDown: a locked kernel, as Secure Boot makes it, takes no
// kernel whose key it does not know, by neither call.
func TestTakeoverLockedDown(t *testing.T) {
	img := buildImage(t, recipe{system: "pocket"})
	n, _ := scenario{memory: takeoverMemory, append: "lockdown=integrity"}.boot(t, img, ready, stageFailed, kernelPanic)
	n.upload(t, takeoverFile(t, img))
	n.refuses(t, []refusal{{"locked down", "", "FILE --yes",
		`no way to load the new kernel; kexec_file_load: forbidden: by lockdown.*; kexec_load: forbidden: by lockdown.*switch Secure Boot off.*nothing was changed`, 1}})
}
