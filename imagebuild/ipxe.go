package imagebuild

import (
	"fmt"
	"strings"
)

// bootIPXE is the script of the netboot tree. It works from any folder of any
// HTTP server because iPXE resolves relative names against the script's own
// URL; ${cwduri} is that folder, which the first stage needs when it fetches
// the payload itself. An iPXE from before 2024 does not know that word: there
// ${filename}, what DHCP named, is the script itself, and the first stage takes
// that too.
//
// imgfree comes first because a stray autoexec.ipxe would be put before
// initrd.magic. initrd=NAME is for UEFI, where the kernel asks the loader for
// each initrd by name; BIOS ignores it. iPXE retries nothing by itself.
func bootIPXE(label, cmdline string, embedded bool) string {
	initrds := []string{"initrd"}
	if embedded {
		initrds = append(initrds, payloadCPIOName)
	} else {
		cmdline += " xnode.payload=${base}"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "#!ipxe\n# XnodeOS %s\n", label)
	if !embedded {
		b.WriteString("set base ${cwduri}\nisset ${base} || set base ${filename}\n")
	}
	b.WriteString("set attempt:int32 0\n")
	b.WriteString(":again\nimgfree\n")
	b.WriteString("kernel vmlinuz")
	for _, name := range initrds {
		b.WriteString(" initrd=" + name)
	}
	fmt.Fprintf(&b, " %s || goto retry\n", cmdline)
	for _, name := range initrds {
		fmt.Fprintf(&b, "initrd --name %s %s || goto retry\n", name, name)
	}
	b.WriteString("boot || goto retry\n")
	b.WriteString(`:retry
inc attempt
iseq ${attempt} 10 && goto give_up ||
echo XnodeOS: attempt ${attempt} of 10 failed, next try in 5 seconds
sleep 5
goto again
:give_up
echo XnodeOS: kernel or initrd could not be fetched or started; this machine reboots in 30 seconds
sleep 30
reboot
`)
	return b.String()
}
