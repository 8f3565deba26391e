package stage1

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"xnodeos.org/internal/nodeconfig"
)

// NetworkFile returns the systemd.network(5) file that keeps a link's address
// in the system: the static address again, or DHCP with the client identifier
// that the first stage used (option 61 = 01 and the MAC address), by which the
// server knows that it is the same machine. KeepConfiguration= is not used: the
// link is handed over down and without addresses, so there is nothing to keep.
//
// reachable says that another link has an address: then a card without a cable
// must not hold up network-online.target. Where none has, a cable may still be
// on its way to be seen, and the system waits for it.
func NetworkFile(r LinkResult, dns []netip.Addr, reachable bool) (name, content string) {
	id := r.Link.ID()
	var b strings.Builder
	section := func(title string, lines ...string) {
		if len(lines) > 0 {
			fmt.Fprintf(&b, "\n[%s]\n%s\n", title, strings.Join(lines, "\n"))
		}
	}
	b.WriteString("# By the first stage, for this boot.\n[Match]\n")
	if len(r.Link.PermMAC) > 0 {
		fmt.Fprintf(&b, "PermanentMACAddress=%s\n", id)
	} else {
		fmt.Fprintf(&b, "MACAddress=%s\n", id)
	}
	section("Link", linkLines(r, reachable)...)
	if r.Rule.Method == nodeconfig.MethodDHCP {
		section("Network", append([]string{"DHCP=ipv4"}, dnsLines(slices.Concat(r.Rule.DNS, dns))...)...)
		section("DHCPv4", "ClientIdentifier=mac", "UseMTU=yes")
	} else {
		lease := staticLease(r.Rule, dns)
		section("Network", append([]string{"DHCP=no"}, dnsLines(lease.DNS)...)...)
		section("Address", addressLines(lease)...)
		section("Route", routeLines(lease)...)
	}
	return "10-xnode-" + strings.ReplaceAll(id.String(), ":", "") + ".network", b.String()
}

func linkLines(r LinkResult, reachable bool) []string {
	var lines []string
	if r.Rule.SetMAC != nil {
		lines = append(lines, "MACAddress="+r.Rule.SetMAC.String())
	}
	if r.Rule.MTU != 0 {
		lines = append(lines, fmt.Sprintf("MTUBytes=%d", r.Rule.MTU))
	}
	if reachable && r.Lease == nil && !r.Link.Carrier {
		lines = append(lines, "RequiredForOnline=no")
	}
	return lines
}

func dnsLines(addrs []netip.Addr) []string {
	var lines []string
	for _, a := range addrs {
		lines = append(lines, "DNS="+a.String())
	}
	return slices.Compact(lines)
}

func addressLines(l Lease) []string {
	lines := []string{"Address=" + l.Address.String()}
	if l.Peer.IsValid() {
		lines = append(lines, "Peer="+l.Peer.String())
	}
	return lines
}

func routeLines(l Lease) []string {
	if !l.Gateway.IsValid() {
		return nil
	}
	lines := []string{"Gateway=" + l.Gateway.String()}
	if l.onLink() {
		lines = append(lines, "GatewayOnLink=yes")
	}
	return lines
}

// onLink says whether the gateway lies outside of the link's own network, as
// hosts with /32 addresses have it.
func (l Lease) onLink() bool {
	return !l.Address.Contains(l.Gateway) && !l.Peer.Contains(l.Gateway) && !l.Gateway.IsLinkLocalUnicast()
}
