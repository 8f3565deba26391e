package stage1

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xnodeos.org/internal/nodeconfig"
)

// kernelNet is the netDriver of the running kernel.
type kernelNet struct{}

func (kernelNet) Links() ([]Link, error) {
	list, err := netlink.LinkList()
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return nil, fmt.Errorf("list network interfaces: %w", err)
	}
	var links []Link
	for _, l := range list {
		a := l.Attrs()
		if l.Type() != "device" || a.EncapType != "ether" || isWireless(a.Name) {
			continue
		}
		links = append(links, Link{Index: a.Index, Name: a.Name, MAC: a.HardwareAddr, PermMAC: a.PermHWAddr,
			Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0})
	}
	return links, nil
}

// isWireless leaves out cards that need a password before they have a carrier.
func isWireless(name string) bool {
	_, err := os.Stat("/sys/class/net/" + name + "/phy80211")
	return err == nil
}

func (kernelNet) Up(l Link, r nodeconfig.Interface) error {
	link, err := netlink.LinkByIndex(l.Index)
	if err != nil {
		return fmt.Errorf("find %s: %w", l, err)
	}
	if r.SetMAC != nil {
		if err := netlink.LinkSetHardwareAddr(link, r.SetMAC); err != nil {
			return fmt.Errorf("set MAC address of %s to %s: %w", l, r.SetMAC, err)
		}
	}
	if r.MTU != 0 {
		if err := netlink.LinkSetMTU(link, r.MTU); err != nil {
			return fmt.Errorf("set MTU of %s to %d: %w", l, r.MTU, err)
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", l, err)
	}
	return nil
}

// One call of DHCP sends at most three times, after 1, 3 and 7 seconds.
const (
	dhcpTimeout = time.Second
	dhcpTries   = 3
)

func (kernelNet) DHCP(ctx context.Context, l Link) (Lease, error) {
	client, err := nclient4.New(l.Name, nclient4.WithTimeout(dhcpTimeout), nclient4.WithRetry(dhcpTries))
	if err != nil {
		return Lease{}, fmt.Errorf("dhcp: %w", err)
	}
	defer func() { _ = client.Close() }() // a socket that was only used for this
	got, err := client.Request(ctx,
		dhcpv4.WithOption(dhcpv4.OptClientIdentifier(append([]byte{1}, client.InterfaceAddr()...))),
		dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionDomainNameServer,
			dhcpv4.OptionInterfaceMTU, dhcpv4.OptionClasslessStaticRoute))
	if err != nil {
		return Lease{}, fmt.Errorf("dhcp: %w", err)
	}
	lease, err := leaseOf(got.ACK)
	if err != nil {
		return Lease{}, fmt.Errorf("dhcp: %w", err)
	}
	return lease, nil
}

// leaseOf reads what the first stage uses of an acknowledgement.
func leaseOf(ack *dhcpv4.DHCPv4) (Lease, error) {
	addr, ok := netip.AddrFromSlice(ack.YourIPAddr.To4())
	if !ok || addr.IsUnspecified() {
		return Lease{}, fmt.Errorf("the server gave the address %v", ack.YourIPAddr)
	}
	bits, total := ack.SubnetMask().Size()
	if total != 32 || bits == 0 {
		bits = 32 // without a mask nothing but the gateway is on the link
	}
	lease := Lease{Address: netip.PrefixFrom(addr, bits), From: nodeconfig.MethodDHCP}
	lease.Gateway = gatewayOf(ack)
	for _, ip := range ack.DNS() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok {
			lease.DNS = append(lease.DNS, a)
		}
	}
	if mtu, err := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options); err == nil && mtu >= 576 {
		lease.MTU = int(mtu)
	}
	return lease, nil
}

// gatewayOf prefers the default route among the classless routes, which by RFC
// 3442 replaces the router option.
func gatewayOf(ack *dhcpv4.DHCPv4) netip.Addr {
	if routes := ack.ClasslessStaticRoute(); len(routes) > 0 {
		for _, r := range routes {
			if ones, _ := r.Dest.Mask.Size(); ones == 0 {
				a, _ := netip.AddrFromSlice(r.Router.To4())
				return a
			}
		}
		return netip.Addr{}
	}
	for _, ip := range ack.Router() {
		if a, ok := netip.AddrFromSlice(ip.To4()); ok && !a.IsUnspecified() {
			return a
		}
	}
	return netip.Addr{}
}

func (kernelNet) Configure(l Link, lease Lease) error {
	link, err := netlink.LinkByIndex(l.Index)
	if err != nil {
		return fmt.Errorf("find %s: %w", l, err)
	}
	if lease.MTU != 0 {
		if err := netlink.LinkSetMTU(link, lease.MTU); err != nil {
			return fmt.Errorf("set MTU of %s to %d: %w", l, lease.MTU, err)
		}
	}
	addr := &netlink.Addr{IPNet: ipNet(lease.Address)}
	if lease.Peer.IsValid() {
		addr.Peer = ipNet(lease.Peer)
	}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return fmt.Errorf("give %s the address %s: %w", l, lease.Address, err)
	}
	if !lease.Gateway.IsValid() {
		return nil
	}
	route := &netlink.Route{LinkIndex: l.Index, Gw: lease.Gateway.AsSlice()}
	if lease.onLink() {
		route.Flags = int(netlink.FLAG_ONLINK)
	}
	if err := netlink.RouteReplace(route); err != nil {
		return fmt.Errorf("route by %s over %s: %w", lease.Gateway, l, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func (kernelNet) Down(l Link) error {
	link, err := netlink.LinkByIndex(l.Index)
	if err != nil {
		return fmt.Errorf("find %s: %w", l, err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", l, err)
	}
	for _, a := range addrs {
		if a.IP.IsLinkLocalUnicast() && a.IP.To4() == nil {
			continue // goes by itself when the link goes down
		}
		if err := netlink.AddrDel(link, &a); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("take %s off %s: %w", a.IPNet, l, err)
		}
	}
	if err := netlink.LinkSetDown(link); err != nil {
		return fmt.Errorf("set %s down: %w", l, err)
	}
	return nil
}
