package netsnap

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Take reads the network of the running kernel by netlink, and the name
// servers from the files below root, the machine's root folder.
func Take(root fs.FS) (*Snapshot, error) {
	s := &Snapshot{}
	for _, read := range []func(*Snapshot) error{links, addresses, routes, rules} {
		if err := read(s); err != nil {
			return nil, err
		}
	}
	s.DNS = nameServers(root)
	return s, nil
}

// whole turns away errors of a read that is good enough: a dump that was
// interrupted by a change is repeated, once.
func whole[T any](read func() ([]T, error)) ([]T, error) {
	list, err := read()
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		list, err = read()
	}
	return list, err
}

func links(s *Snapshot) error {
	list, err := whole(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list network interfaces: %w", err)
	}
	for _, l := range list {
		a := l.Attrs()
		if a.EncapType != "ether" {
			continue
		}
		s.Links = append(s.Links, Link{Index: a.Index, Name: a.Name, Kind: l.Type(), MAC: a.HardwareAddr, PermMAC: a.PermHWAddr,
			MTU: a.MTU, Up: a.RawFlags&unix.IFF_UP != 0, Master: a.MasterIndex})
	}
	return nil
}

func (s *Snapshot) has(link int) bool {
	return slices.ContainsFunc(s.Links, func(l Link) bool { return l.Index == link })
}

func addresses(s *Snapshot) error {
	list, err := whole(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range list {
		prefix, ok := prefixOf(a.IPNet)
		if !ok || !s.has(a.LinkIndex) || a.Scope != int(netlink.SCOPE_UNIVERSE) {
			continue
		}
		found := Address{Link: a.LinkIndex, Prefix: prefix, Permanent: a.Flags&unix.IFA_F_PERMANENT != 0}
		if peer, ok := prefixOf(a.Peer); ok && peer.Addr() != prefix.Addr() {
			found.Peer = peer
		}
		s.Addresses = append(s.Addresses, found)
	}
	return nil
}

func routes(s *Snapshot) error {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	list, err := whole(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, r := range list {
		to, ok := prefixOf(r.Dst)
		if !ok {
			to = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if r.Family == netlink.FAMILY_V6 {
				to = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
		}
		if r.Type != unix.RTN_UNICAST {
			continue
		}
		for _, hop := range hops(r) {
			if !s.has(hop.LinkIndex) {
				continue
			}
			gateway, _ := netip.AddrFromSlice(hop.Gw)
			s.Routes = append(s.Routes, Route{Link: hop.LinkIndex, To: to, Gateway: gateway.Unmap(), From: originOf(r.Protocol), Metric: r.Priority})
		}
	}
	return nil
}

// hops are the ways of a route. IPv6 makes one route of those that lead to the
// same place over several cards.
func hops(r netlink.Route) []*netlink.NexthopInfo {
	if len(r.MultiPath) > 0 {
		return r.MultiPath
	}
	return []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw}}
}

func originOf(p netlink.RouteProtocol) Origin {
	switch int(p) {
	case unix.RTPROT_DHCP:
		return FromDHCP
	case unix.RTPROT_RA:
		return FromRouter
	case unix.RTPROT_KERNEL:
		return FromKernel
	default:
		return FromPerson
	}
}

// kernelRules are local, main and default for IPv4, local and main for IPv6.
const kernelRules = 5

func rules(s *Snapshot) error {
	count := 0
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := whole(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP) {
			continue // a kernel without policy routing, or without IPv6
		}
		if err != nil {
			return fmt.Errorf("list policy rules: %w", err)
		}
		count += len(list)
	}
	s.Rules = max(0, count-kernelRules)
	return nil
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr.Unmap(), ones), true
}
