package takeover

import (
	"bytes"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Process is what this process is told by the kernel directly.
type Process struct {
	EUID    int
	Machine string // uname -m
	Release string // uname -r
}

// Facts is what the preflight knows of the old system. Strings are contents of
// files without white space around them, "" where there is no such file.
type Facts struct {
	Process

	Container    string // a sign of being in a container; "" for none
	SysBoot      bool   // the process may call kexec and reboot
	XenType      string // /sys/hypervisor/type
	XenGuest     string // /sys/hypervisor/guest_type: "PV", "PVH", "HVM"
	KexecLoaded  string // /sys/kernel/kexec_loaded
	LoadDisabled string // sysctl kernel.kexec_load_disabled
	LoadLimit    string // sysctl kernel.kexec_load_limit_reboot
	Lockdown     string // the active mode
	MemTotal     int64  // bytes
	MemAvailable int64  // bytes
	CountsReads  bool   // the kernel counts the bytes that a thread reads
	UEFI         bool
	Watchdogs    []string // that tick
	Cmdline      string   // of the running kernel
	Cards        []Card   // those that were asked for
}

// Card is a network card and the devices that it hangs on, itself first.
type Card struct {
	Name    string
	Devices []Device
}

// Device is a device of the kernel that names itself. Module says that its
// driver is a module in the old system, so that some driver must be loaded.
type Device struct {
	Modalias string
	Driver   string
	Module   bool
}

// ReadFacts reads the facts below root, the machine's root folder. cards are
// names of network interfaces.
func ReadFacts(root fs.FS, p Process, cards []string) Facts {
	read := func(name string) string {
		data, err := fs.ReadFile(root, name)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(data))
	}
	f := Facts{
		Process: p, Container: containerSign(root, read), SysBoot: mayBoot(read("proc/self/status")),
		XenType: read("sys/hypervisor/type"), XenGuest: read("sys/hypervisor/guest_type"),
		KexecLoaded: read("sys/kernel/kexec_loaded"), LoadDisabled: read("proc/sys/kernel/kexec_load_disabled"),
		LoadLimit: read("proc/sys/kernel/kexec_load_limit_reboot"), Lockdown: activeWord(read("sys/kernel/security/lockdown")),
		Cmdline: read("proc/cmdline"),
	}
	memory := read("proc/meminfo")
	f.MemTotal, f.MemAvailable = memoryLine(memory, "MemTotal:"), memoryLine(memory, "MemAvailable:")
	if _, err := fs.Stat(root, "sys/firmware/efi"); err == nil {
		f.UEFI = true
	}
	if _, err := fs.Stat(root, "proc/self/io"); err == nil {
		f.CountsReads = true
	}
	dogs, _ := fs.Glob(root, "sys/class/watchdog/watchdog*")
	for _, dog := range dogs {
		if read(dog+"/state") == "active" {
			f.Watchdogs = append(f.Watchdogs, path.Base(dog))
		}
	}
	for _, name := range cards {
		f.Cards = append(f.Cards, readCard(root, read, name))
	}
	return f
}

// Inodes of the first namespaces, include/linux/proc_ns.h: every other number
// is that of a container.
const (
	firstPIDNamespace  = "pid:[4026531836]"
	firstUserNamespace = "user:[4026531837]"
)

func containerSign(root fs.FS, read func(string) string) string {
	for _, name := range []string{"run/systemd/container", "run/host/container-manager"} {
		if kind := read(name); kind != "" {
			return "/" + name + " says " + strconv.Quote(kind)
		}
	}
	for _, name := range []string{".dockerenv", "run/.containerenv"} {
		// A machine made of a container's image has it too, then for process 1.
		_, ours := fs.Stat(root, name)
		_, first := fs.Stat(root, "proc/1/root/"+name)
		if ours == nil && first != nil {
			return "there is a /" + name
		}
	}
	for _, v := range bytes.Split([]byte(read("proc/1/environ")), []byte{0}) {
		if kind, ok := bytes.CutPrefix(v, []byte("container=")); ok && len(kind) > 0 {
			return "process 1 has container=" + string(kind)
		}
	}
	for _, word := range []string{"/docker", "/lxc", "/kubepods", "/libpod", "/machine.slice/"} {
		if strings.Contains(read("proc/1/cgroup"), word) {
			return "process 1 is in a control group " + word
		}
	}
	for name, first := range map[string]string{"pid": firstPIDNamespace, "user": firstUserNamespace} {
		if link, err := fs.ReadLink(root, "proc/self/ns/"+name); err == nil && link != first {
			return "the " + name + " namespace is not the first one"
		}
	}
	return ""
}

// capSysBoot is CAP_SYS_BOOT's bit, include/uapi/linux/capability.h.
const capSysBoot = 22

func mayBoot(status string) bool {
	for line := range strings.Lines(status) {
		if value, ok := strings.CutPrefix(line, "CapEff:"); ok {
			mask, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			return err == nil && mask>>capSysBoot&1 == 1
		}
	}
	return false
}

// activeWord returns the word in brackets of "none [integrity] confidentiality".
func activeWord(text string) string {
	_, rest, ok := strings.Cut(text, "[")
	word, _, closed := strings.Cut(rest, "]")
	if !ok || !closed {
		return ""
	}
	return word
}

func memoryLine(text, key string) int64 {
	for line := range strings.Lines(text) {
		if words := strings.Fields(line); len(words) >= 2 && words[0] == key {
			n, err := strconv.ParseInt(words[1], 10, 53)
			if err != nil {
				return 0
			}
			return n << 10
		}
	}
	return 0
}

// readCard walks from the card's device up to the root of all devices.
func readCard(root fs.FS, read func(string) string, name string) Card {
	c := Card{Name: name}
	link, err := fs.ReadLink(root, "sys/class/net/"+name)
	if err != nil {
		return c
	}
	// .../devices/pci0000:00/0000:00:03.0/virtio0/net/eth0
	for dir := path.Dir(path.Dir(path.Join("sys/class/net", link))); strings.HasPrefix(dir, "sys/devices/"); dir = path.Dir(dir) {
		alias := read(dir + "/modalias")
		if alias == "" {
			continue
		}
		d := Device{Modalias: alias}
		if driver, err := fs.ReadLink(root, dir+"/driver"); err == nil {
			d.Driver = path.Base(driver)
		}
		if module, err := fs.ReadLink(root, dir+"/driver/module"); err == nil {
			// Only a loaded module has a state; what is built in has not.
			d.Module = read("sys/module/"+path.Base(module)+"/initstate") != ""
		}
		c.Devices = append(c.Devices, d)
	}
	return c
}

// consoleWords are the console= words of the old kernel that the new line lacks.
func consoleWords(old, line string) []string {
	have := strings.Fields(line)
	var more []string
	for _, w := range strings.Fields(old) {
		if strings.HasPrefix(w, "console=") && !slices.Contains(have, w) && !slices.Contains(more, w) && w != "console=null" && w != "console=" {
			more = append(more, w)
		}
	}
	return more
}
