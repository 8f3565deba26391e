package qemu

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"xnodeos.org/imagebuild/takeoverfile"
	"xnodeos.org/internal/manifest"
)

// markFile is younger than whatever was there before.
const markFile = "/dev/shm/mark"

// stateScript prints what a takeover could change beside files: the loaded
// kernel, mounts, modules, services.
const stateScript = `
cat /sys/kernel/kexec_loaded /proc/mounts /proc/swaps
ls /sys/module
systemctl list-units --plain --no-legend --type=service --state=running | awk '{print $1}'
`

// youngScript prints every file that is younger than the mark, without those
// that a login itself writes.
const youngScript = `
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
	return loginFiles.ReplaceAllString(n.shell(t, stateScript+youngScript), "")
}

// untouched checks that the old system is as it was at the mark.
func (n *node) untouched(t *testing.T, before string) {
	t.Helper()
	checkUntouched(t, before, n.state(t))
}

func checkUntouched(t *testing.T, before, after string) {
	t.Helper()
	if after != before {
		t.Errorf("state of the old system:\n%s\nit was\n%s", after, before)
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

// refuses runs each command in one session with its looks at the state: under
// TCG a login takes longer than most of the refusals.
func (n *node) refuses(t *testing.T, list []refusal) {
	t.Helper()
	for _, r := range list {
		part := strings.Split(n.shell(t, r.script()), refusalMark)
		if len(part) != 5 {
			t.Fatalf("%s: %q; want five parts", r.name, part)
		}
		before, after := loginFiles.ReplaceAllString(part[0], ""), loginFiles.ReplaceAllString(part[4], "")
		code, stdout, stderr := strings.TrimSpace(part[1]), part[2], part[3]
		if code != strconv.Itoa(r.code) || !regexp.MustCompile(r.want).MatchString(stderr) {
			t.Errorf("%s: code %s, want %d; %q, want /%s/\n%s", r.name, code, r.code, stderr, r.want, stdout)
		}
		checkUntouched(t, before, after)
	}
}

const refusalMark = "===part\n"

// script prints the state of the old system, code, output and errors of the
// command, and the state again with what files are young. What the command
// writes lies in /dev, where none is looked for.
func (r refusal) script() string {
	command := strings.ReplaceAll(r.command, "FILE", takeoverPath)
	return fmt.Sprintf(`{ %s
} >/dev/null || exit 1
touch %s; sleep 0.3
state() { %s
}
state
( %s ) </dev/null >/dev/out 2>/dev/err
code=$?
printf '%s%%s\n%[5]s' $code
cat /dev/out; printf '%[5]s'
cat /dev/err; printf '%[5]s'
state; %s`, r.before+"\n:", markFile, stateScript, command, strings.ReplaceAll(refusalMark, "\n", `\n`), youngScript)
}

// leaveScript leaves 90 MiB of memory, with which neither call can work. What
// MemAvailable says of caches is a guess, so they go first, and what the guess
// gave back is filled as well. A tmpfs takes half of the memory by default.
const leaveScript = `
mount -o remount,size=100% /dev/shm
: > /dev/shm/fill
for round in 1 2 3; do
  sync
  echo 3 > /proc/sys/vm/drop_caches
  more=$(awk '/^MemAvailable/ {print int($2 / 1024) - 90}' /proc/meminfo)
  [ "$more" -le 0 ] || dd if=/dev/zero bs=1M count="$more" 2>/dev/null >> /dev/shm/fill
done
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

// tamperFile changes a byte of the payload in a takeover file, and returns the
// command that mends the file where it was brought to.
func tamperFile(t *testing.T, file []byte) (mend string) {
	t.Helper()
	opened, err := takeoverfile.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	at := opened.Payload.Offset + 5*manifest.ChunkSize + 77
	file[at] ^= 1
	return fmt.Sprintf("printf '\\%03o' | dd of=%s bs=1 seek=%d conv=notrunc 2>/dev/null", file[at]^1, takeoverPath, at)
}

// refusals are all that a takeover can follow upon: what is wrong is said, and
// nothing changed.
func refusals() []refusal {
	return []refusal{
		{"nobody to ask", "", "FILE", `nobody is there to ask`, 2},
		{"marked as a container", "echo lxc > /run/systemd/container", "FILE --yes", `this is a container.*run it on the host.*nothing was changed`, 1},
		{"namespaces", "rm /run/systemd/container", "unshare -p -f FILE --yes", `this is a container: the pid namespace is not the first one.*run it on the host.*nothing was changed`, 1},
		{"user namespace", "", "unshare -U -r FILE --yes", `this is a container.*nothing was changed`, 1},
		{"without the capability", incapableScript, "systemctl start incapable; code=$?; cat /dev/shm/stderr >&2; exit $code", `root here lacks the capability CAP_SYS_BOOT.*nothing was changed`, 1},
		{"not root", "systemctl reset-failed incapable", "su -s /bin/sh nixbld1 -c 'FILE --yes'", `runs as user [0-9]+.*run it with sudo.*nothing was changed`, 1},
		{"other architecture", "", "linux32 FILE --yes", `the machine is i686; this file is for x86_64.*nothing was changed`, 1},
		{"no memory to load", leaveScript, "FILE --yes", `no way to load the new kernel; kexec_file_load: needs [0-9]+ MiB, [0-9]+ MiB are free.*kexec_load: needs.*free memory.*nothing was changed`, 1},
	}
}

// tamperedRefusals want a file of tamperFile.
func tamperedRefusals() []refusal {
	return []refusal{{"tampered payload", "", "FILE --yes", `system\.squashfs.* chunk 5 .*nothing was changed`, 1}}
}

// lastRefusals switch something off for good: a locked kernel, as Secure Boot
// makes it, takes no kernel whose key it does not know, by neither call.
func lastRefusals() []refusal {
	return []refusal{
		{"locked down", "echo integrity > /sys/kernel/security/lockdown", "FILE --yes",
			`no way to load the new kernel; kexec_file_load: forbidden: by lockdown.*; kexec_load: forbidden: by lockdown.*switch Secure Boot off.*nothing was changed`, 1},
		{"switched off", "echo 1 > /proc/sys/kernel/kexec_load_disabled", "FILE --yes", `kexec_load_disabled is 1.*reboot.*nothing was changed`, 1},
	}
}
