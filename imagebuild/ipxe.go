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
// that too. Where another script called this one, it has to say the folder, as
// ${xnode-payload}, which therefore comes first.
//
// imgfree comes first because a stray autoexec.ipxe would be put before
// initrd.magic. initrd=NAME is for UEFI, where the kernel asks the loader for
// each initrd by name; BIOS ignores it. iPXE retries nothing by itself.
func bootIPXE(label, cmdline string, embedded bool) string {
	initrds := []string{"initrd"}
	if embedded {
		initrds = append(initrds, payloadCPIOName)
	} else {
		cmdline += " xnode.payload=${xnode-base}"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "#!ipxe\n# XnodeOS %s\n", label)
	if !embedded {
		b.WriteString(ipxeBase)
	}
	b.WriteString(ipxeNetwork)
	b.WriteString("set attempt:int32 0\n")
	b.WriteString(":again\nimgfree\n")
	b.WriteString("kernel vmlinuz")
	for _, name := range initrds {
		b.WriteString(" initrd=" + name)
	}
	fmt.Fprintf(&b, " %s ${xnode-ip} || goto retry\n", cmdline)
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

// ipxeBase finds the folder of the payload.
const ipxeBase = `set xnode-base ${xnode-payload}
isset ${xnode-base} || set xnode-base ${cwduri}
isset ${xnode-base} || set xnode-base ${filename}
`

// ipxeNetwork passes an address on that iPXE was given by hand or by its
// network's script: where no DHCP server is, nobody would tell it again. netX
// is the card that was opened last; settings that came by DHCP lie in a block
// below that card's own name.
const ipxeNetwork = `clear xnode-ip ||
isset ${netX/ip} || goto network_known
isset ${netX/netmask} || goto network_known
isset ${${netX/ifname}.dhcp/ip} && goto network_known ||
set xnode-ip ip=${netX/ip}::${netX/gateway}:${netX/netmask}::${netX/mac:hexhyp}:none
isset ${netX/dns} && set xnode-ip ${xnode-ip} nameserver=${netX/dns} ||
:network_known
`
