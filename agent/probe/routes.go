package probe

import (
	"context"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// DefaultRoutes lists the default routes of the kernel's main table whose links
// work, as "192.0.2.1 via eth0".
func DefaultRoutes(ctx context.Context) ([]string, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var found []string
	for _, r := range routes {
		if !isDefault(r) {
			continue
		}
		hops := r.MultiPath
		if len(hops) == 0 {
			hops = []*netlink.NexthopInfo{{LinkIndex: r.LinkIndex, Gw: r.Gw, Flags: r.Flags}}
		}
		for _, hop := range hops {
			if text, ok := describe(hop); ok {
				found = append(found, text)
			}
		}
	}
	return found, nil
}

func isDefault(r netlink.Route) bool {
	if r.Table != unix.RT_TABLE_MAIN || r.Type != unix.RTN_UNICAST && r.Type != 0 {
		return false
	}
	if r.Dst == nil {
		return true
	}
	ones, _ := r.Dst.Mask.Size()
	return ones == 0 && r.Dst.IP.IsUnspecified()
}

// describe says where a hop leads; false if its link cannot carry anything.
func describe(hop *netlink.NexthopInfo) (string, bool) {
	if hop.Flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) != 0 {
		return "", false
	}
	link, err := netlink.LinkByIndex(hop.LinkIndex)
	if err != nil || link.Attrs().Flags&net.FlagUp == 0 {
		return "", false // it went away meanwhile
	}
	if len(hop.Gw) == 0 {
		return link.Attrs().Name, true
	}
	return fmt.Sprintf("%s via %s", hop.Gw, link.Attrs().Name), true
}
