package netsnap

import (
	"net"
	"net/netip"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func mac(t *testing.T, text string) net.HardwareAddr {
	t.Helper()
	m, err := net.ParseMAC(text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestCarry(t *testing.T) {
	t.Parallel()
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	eth0 := Link{Index: 2, Name: "eth0", Kind: CardKind, MAC: mac(t, "02:00:00:00:00:01"), PermMAC: mac(t, "52:54:00:12:34:56"), MTU: 1500, Up: true}
	any4, any6 := prefix("0.0.0.0/0"), prefix("::/0")
	jumbo := eth0
	jumbo.MTU = 9000
	slave := eth0
	slave.Master = 5
	bond := Link{Index: 5, Name: "bond0", Kind: "bond", MTU: 1500, Up: true}
	down := Link{Index: 3, Name: "eth1", Kind: CardKind, MAC: mac(t, "52:54:00:00:00:02"), MTU: 1500}
	for _, tc := range []struct {
		name string
		s    Snapshot
		want Carried
	}{
		{"nothing", Snapshot{Links: []Link{down}}, Carried{}},
		{"dhcp by lifetime", Snapshot{Links: []Link{eth0, down}, Addresses: []Address{{Link: 2, Prefix: prefix("10.0.2.15/24")}},
			Routes: []Route{{2, any4, addr("10.0.2.2"), FromPerson, 0}}, DNS: []netip.Addr{addr("10.0.2.3")}},
			Carried{Words: []string{"ip=52-54-00-12-34-56:dhcp"}, Cards: []string{"eth0"}}},
		{"dhcp by route, jumbo frames", Snapshot{Links: []Link{jumbo}, Addresses: []Address{{Link: 2, Prefix: prefix("10.0.2.15/24"), Permanent: true}},
			Routes: []Route{{2, any4, addr("10.0.2.2"), FromDHCP, 100}}},
			Carried{Words: []string{"ip=52-54-00-12-34-56:dhcp:9000"}, Cards: []string{"eth0"},
				Lost: []Loss{{"address 10.0.2.15/24 of eth0: a further address of a card is not carried yet", false}}}},
		{"static, the gateway's network counts", Snapshot{Links: []Link{jumbo},
			Addresses: []Address{{Link: 2, Prefix: prefix("10.9.9.9/32"), Permanent: true}, {Link: 2, Prefix: prefix("192.0.2.5/24"), Permanent: true},
				{Link: 2, Prefix: prefix("2001:db8::5/64"), Permanent: true}, {Link: 2, Prefix: prefix("2001:db8::abcd/64")}},
			Routes: []Route{{2, any4, addr("192.0.2.9"), FromPerson, 200}, {2, any4, addr("192.0.2.1"), FromPerson, 100}, {2, prefix("192.0.2.0/24"), netip.Addr{}, FromKernel, 0},
				{2, prefix("10.0.0.0/8"), addr("192.0.2.2"), FromPerson, 0}},
			DNS: []netip.Addr{addr("192.0.2.53")}, Rules: 2},
			Carried{Words: []string{"ip=192.0.2.5::192.0.2.1:24::52-54-00-12-34-56:none:9000", "nameserver=192.0.2.53"}, Cards: []string{"eth0"},
				Lost: []Loss{{"address 10.9.9.9/32 of eth0: a further address of a card is not carried yet", false},
					{"address 2001:db8::5/64 of eth0: a further address of a card is not carried yet", false},
					{"route to 10.0.0.0/8 by 192.0.2.2: not carried yet", false}, {"2 policy routing rules: not carried yet", false}}}},
		{"on-link gateway", Snapshot{Links: []Link{eth0}, Addresses: []Address{{Link: 2, Prefix: prefix("203.0.113.7/32"), Permanent: true}},
			Routes: []Route{{2, any4, addr("198.51.100.1"), FromPerson, 0}}},
			Carried{Words: []string{"ip=203.0.113.7::198.51.100.1:32::52-54-00-12-34-56:none"}, Cards: []string{"eth0"}}},
		{"peer", Snapshot{Links: []Link{eth0}, Addresses: []Address{{Link: 2, Prefix: prefix("192.0.2.5/32"), Peer: prefix("192.0.2.1/32"), Permanent: true}},
			Routes: []Route{{2, any4, addr("192.0.2.1"), FromPerson, 0}}},
			Carried{Words: []string{"ip=192.0.2.5:192.0.2.1/32:192.0.2.1:32::52-54-00-12-34-56:none"}, Cards: []string{"eth0"}}},
		{"only IPv6", Snapshot{Links: []Link{eth0}, Addresses: []Address{{Link: 2, Prefix: prefix("2001:db8::5/64"), Permanent: true}},
			Routes: []Route{{2, any6, addr("fe80::1"), FromPerson, 0}}, DNS: []netip.Addr{addr("2001:db8::53")}},
			Carried{Words: []string{"ip=[2001:db8::5]::[fe80::1]:64::52-54-00-12-34-56:none", "nameserver=2001:db8::53"}, Cards: []string{"eth0"}}},
		{"bond", Snapshot{Links: []Link{slave, bond}, Addresses: []Address{{Link: 5, Prefix: prefix("192.0.2.5/24"), Permanent: true}},
			Routes: []Route{{5, any4, addr("192.0.2.1"), FromPerson, 0}}},
			Carried{Lost: []Loss{{"bond0 (bond) with 192.0.2.5/24: a bond is not carried yet", true}}}},
		{"idle bridge", Snapshot{Links: []Link{{Index: 7, Name: "docker0", Kind: "bridge", Up: true}}, Addresses: []Address{{Link: 7, Prefix: prefix("172.17.0.1/16"), Permanent: true}}},
			Carried{Lost: []Loss{{"docker0 (bridge) with 172.17.0.1/16: a bridge is not carried yet", false}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, tc.s.Carry()); diff != "" {
				t.Errorf("Carry (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNameServers(t *testing.T) {
	t.Parallel()
	stub := &fstest.MapFile{Data: []byte("# stub\nnameserver 127.0.0.53\noptions edns0\n")}
	real := &fstest.MapFile{Data: []byte("nameserver 192.0.2.1\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameserver junk\nnameserver\n")}
	for _, tc := range []struct {
		name string
		root fstest.MapFS
		want []string
	}{
		{"none", fstest.MapFS{}, nil},
		{"stub alone", fstest.MapFS{"etc/resolv.conf": stub}, nil},
		{"stub and its list", fstest.MapFS{"etc/resolv.conf": stub, "run/systemd/resolve/resolv.conf": real}, []string{"192.0.2.1", "2001:db8::1"}},
		{"plain", fstest.MapFS{"etc/resolv.conf": real}, []string{"192.0.2.1", "2001:db8::1"}},
	} {
		var got []string
		for _, a := range nameServers(tc.root) {
			got = append(got, a.String())
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tc.name, diff)
		}
	}
}

func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, a := range parseResolvConf(data) {
			if !a.IsValid() || a.IsLoopback() {
				t.Errorf("server %s", a)
			}
		}
	})
}
