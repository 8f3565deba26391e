package takeover

import (
	"fmt"
	"strings"
)

// judge looks at the old system alone.
func judge(f Facts) []Check {
	return []Check{
		checkRoot(f), checkContainer(f), checkXen(f), checkArchitecture(f), checkKernel(f), checkLockdown(f), checkLoaded(f),
		checkWatchdog(f), checkWayBack(f),
	}
}

func good(name, format string, args ...any) Check {
	return Check{Name: name, Status: OK, Text: fmt.Sprintf(format, args...)}
}

func bad(name string, status Status, text, remedy string) Check {
	return Check{Name: name, Status: status, Text: text, Remedy: remedy}
}

func checkRoot(f Facts) Check {
	switch {
	case f.EUID != 0:
		return bad("root", Fail, fmt.Sprintf("runs as user %d; only root may start another kernel", f.EUID), "run it with sudo")
	case !f.SysBoot:
		return bad("root", Fail, "root here lacks the capability CAP_SYS_BOOT", "run it on the machine itself, not in a container or a restricted service")
	}
	return good("root", "runs as root")
}

func checkContainer(f Facts) Check {
	if f.Container != "" {
		return bad("container", Fail, "this is a container: "+f.Container, "run it on the host; a container has no kernel of its own to replace")
	}
	return good("container", "not in a container")
}

func checkXen(f Facts) Check {
	if f.XenType == "xen" && (f.XenGuest == "PV" || f.XenGuest == "") {
		return bad("xen", Fail, "a paravirtual Xen guest cannot start another kernel by kexec", "use an HVM or PVH instance, or boot the ISO")
	}
	if f.XenType != "" {
		return good("xen", "hypervisor %s, guest %s", f.XenType, f.XenGuest)
	}
	return good("xen", "no Xen")
}

func checkArchitecture(f Facts) Check {
	if f.Machine != "x86_64" {
		return bad("architecture", Fail, fmt.Sprintf("the machine is %s; this file is for x86_64", f.Machine), "build an image for that architecture")
	}
	return good("architecture", "%s, Linux %s", f.Machine, f.Release)
}

func checkKernel(f Facts) Check {
	switch {
	case f.KexecLoaded == "":
		return bad("kexec", Fail, "the running kernel is built without kexec (there is no /sys/kernel/kexec_loaded)", "start a kernel with CONFIG_KEXEC, or boot the ISO")
	case f.LoadDisabled != "" && f.LoadDisabled != "0":
		return bad("kexec", Fail, "kexec is switched off: sysctl kernel.kexec_load_disabled is "+f.LoadDisabled,
			"it can be switched on again only by a reboot: take it out of /etc/sysctl.d, reboot, and run this again")
	case f.LoadLimit == "0":
		return bad("kexec", Fail, "no kexec is left: sysctl kernel.kexec_load_limit_reboot is 0", "reboot and run this again")
	}
	return good("kexec", "the kernel can start another one")
}

func locked(mode string) bool { return mode == "integrity" || mode == "confidentiality" }

// lockedRemedy is for kernels that another key has signed than those that the
// old kernel knows.
const lockedRemedy = "switch Secure Boot off in the firmware, or take lockdown= off the old kernel's command line, or boot the ISO"

func checkLockdown(f Facts) Check {
	switch {
	case locked(f.Lockdown):
		return bad("lockdown", Warn, "the kernel is locked down ("+f.Lockdown+"), as under Secure Boot: it starts only kernels signed by a key that it trusts",
			"if the trial load is refused: "+lockedRemedy)
	case f.Lockdown == "":
		return good("lockdown", "no lockdown in this kernel")
	}
	return good("lockdown", "lockdown is %s", f.Lockdown)
}

func checkLoaded(f Facts) Check {
	if f.KexecLoaded == "1" {
		return bad("loaded", Warn, "another kernel is loaded for kexec already; it will be replaced", "")
	}
	return good("loaded", "no other kernel is loaded")
}

func checkWatchdog(f Facts) Check {
	if len(f.Watchdogs) > 0 {
		return bad("watchdog", Warn, strings.Join(f.Watchdogs, ", ")+" ticks and goes on ticking over the jump: it may reset the machine into the old system while the new one starts",
			"set RuntimeWatchdogSec=0 in /etc/systemd/system.conf and run systemctl daemon-reexec, or make its time longer than a boot")
	}
	return good("watchdog", "none ticks")
}

func checkWayBack(f Facts) Check {
	firmware := "BIOS"
	if f.UEFI {
		firmware = "UEFI"
	}
	return good("way back", "disks and boot order (%s) stay as they are: a reboot or power cycle starts the old system again", firmware)
}

// checkCards looks for drivers of the cards over which a default route leads.
func checkCards(cards []Card, in *contents) []Check {
	if len(cards) == 0 {
		return []Check{bad("driver", Warn, "no default route over a network card that the new system could take",
			"without a network the new system is reached on its console only")}
	}
	var list []Check
	for _, c := range cards {
		list = append(list, checkCard(c, in))
	}
	return list
}

func checkCard(c Card, in *contents) Check {
	if len(c.Devices) == 0 {
		return bad("driver", Warn, c.Name+" does not say what device it is", "make sure that the new system has its driver")
	}
	own := c.Devices[0]
	if !in.drives(own) {
		return bad("driver", Fail, fmt.Sprintf("the new system has no driver for %s (%s, here %s)", c.Name, own.Modalias, orUnknown(own.Driver)),
			"build the image from a system whose kernel has that driver and its first stage takes it along")
	}
	for _, above := range c.Devices[1:] {
		if above.Module && !in.drives(above) {
			return bad("driver", Warn, fmt.Sprintf("%s hangs on a device for which the new system has no driver (%s, here %s)", c.Name, above.Modalias, above.Driver),
				"check that the new kernel has it built in")
		}
	}
	return good("driver", "the new system has a driver for %s (%s)", c.Name, orUnknown(own.Driver))
}

func orUnknown(driver string) string {
	if driver == "" {
		return "unknown driver"
	}
	return driver
}

// checkNetwork says what the new system is told, and what it is not.
func checkNetwork(words []string, lost []Loss) []Check {
	text := "the new system asks by DHCP on every card"
	if len(words) > 0 {
		text = "the new system gets " + strings.Join(words, " ")
	}
	list := []Check{good("network", "%s", text)}
	for _, l := range lost {
		status, remedy := Warn, "add it in the new system's own configuration"
		if l.Cut {
			status, remedy = Fail, "the machine would not be reached again; name another way with a file network in --node-config"
		}
		list = append(list, bad("network", status, l.Text, remedy))
	}
	return list
}

// Loss is a part of the old system's network that is not carried; Cut says
// that the way to the machine depends on it.
type Loss struct {
	Text string
	Cut  bool
}
