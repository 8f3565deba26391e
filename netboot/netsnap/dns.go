package netsnap

import (
	"bufio"
	"bytes"
	"io/fs"
	"net/netip"
	"strings"
)

// resolvers are the files that name the servers, the better one first: where
// systemd-resolved runs, resolv.conf names only its stub on the loopback.
func resolvers() []string { return []string{"run/systemd/resolve/resolv.conf", "etc/resolv.conf"} }

// nameServers reads the first file that names a server which the next system
// can reach. At most three count, as in resolv.conf(5).
func nameServers(root fs.FS) []netip.Addr {
	for _, name := range resolvers() {
		data, err := fs.ReadFile(root, name)
		if err != nil {
			continue
		}
		if list := parseResolvConf(data); len(list) > 0 {
			return list
		}
	}
	return nil
}

func parseResolvConf(data []byte) []netip.Addr {
	var list []netip.Addr
	in := bufio.NewScanner(bytes.NewReader(data))
	for in.Scan() && len(list) < 3 {
		words := strings.Fields(in.Text())
		if len(words) < 2 || words[0] != "nameserver" {
			continue
		}
		a, err := netip.ParseAddr(words[1])
		if err == nil && !a.IsLoopback() && a.Zone() == "" {
			list = append(list, a.Unmap())
		}
	}
	return list
}
