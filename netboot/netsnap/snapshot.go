package netsnap

import (
	"net"
	"net/netip"
)

// CardKind is Link.Kind of a network card; everything else ("bond", "vlan",
// "bridge") is made by software.
const CardKind = "device"

// Snapshot is the state of the network. Routes are those of the main table.
type Snapshot struct {
	Links     []Link
	Addresses []Address
	Routes    []Route
	Rules     int          // policy rules beyond the kernel's own three
	DNS       []netip.Addr // servers of resolv.conf, without loopback addresses
}

// Link is a network interface that carries Ethernet frames.
type Link struct {
	Index   int
	Name    string
	Kind    string
	MAC     net.HardwareAddr
	PermMAC net.HardwareAddr // nil where the driver does not tell
	MTU     int
	Up      bool
	Master  int // index of the bond or bridge it belongs to; 0: none
}

// ID is the MAC address by which the next system finds the card.
func (l Link) ID() net.HardwareAddr {
	if len(l.PermMAC) > 0 {
		return l.PermMAC
	}
	return l.MAC
}

// Address is a global address of a link.
type Address struct {
	Link      int
	Prefix    netip.Prefix
	Peer      netip.Prefix // of a point-to-point link; zero if none
	Permanent bool         // without a lifetime, so not from DHCP or a router
}

// Origin is who made a route.
type Origin string

// The origins that matter here; all others are static.
const (
	FromDHCP   Origin = "dhcp"
	FromRouter Origin = "ra"
	FromKernel Origin = "kernel"
	FromPerson Origin = "static"
)

// Route is one route. To has length 0 for the default route; Gateway is zero
// for a network on the link itself.
type Route struct {
	Link    int
	To      netip.Prefix
	Gateway netip.Addr
	From    Origin
	Metric  int
}

// Default says whether the route is the way to everywhere.
func (r Route) Default() bool { return r.To.Bits() == 0 }

func (s *Snapshot) addresses(link int, v4 bool) []Address {
	var list []Address
	for _, a := range s.Addresses {
		if a.Link == link && a.Prefix.Addr().Is4() == v4 {
			list = append(list, a)
		}
	}
	return list
}

// defaultRoute returns the best default route of a link and family.
func (s *Snapshot) defaultRoute(link int, v4 bool) (best Route, ok bool) {
	for _, r := range s.Routes {
		if r.Link == link && r.Default() && r.To.Addr().Is4() == v4 && (!ok || r.Metric < best.Metric) {
			best, ok = r, true
		}
	}
	return best, ok
}

func (s *Snapshot) hasDefault(link int) bool {
	_, v4 := s.defaultRoute(link, true)
	_, v6 := s.defaultRoute(link, false)
	return v4 || v6
}
