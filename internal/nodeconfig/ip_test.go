package nodeconfig

import (
	"errors"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var compareNetip = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

func mac(text string) net.HardwareAddr {
	m, err := net.ParseMAC(text)
	if err != nil {
		panic("BUG: " + err.Error())
	}
	return m
}

func TestParseIP(t *testing.T) {
	t.Parallel()
	prefix, addr := netip.MustParsePrefix, netip.MustParseAddr
	tests := []struct {
		word string
		want Interface
	}{
		{"ip=dhcp", Interface{Method: MethodDHCP}},
		{"ip=on", Interface{Method: MethodDHCP}},
		{"ip=any", Interface{Method: MethodDHCP}},
		{"ip=dhcp6", Interface{Method: MethodDHCP6}},
		{"ip=auto6", Interface{Method: MethodAuto6}},
		{"ip=either6", Interface{Method: MethodEither6}},
		{"ip=eth0:dhcp", Interface{Device: Device{Name: "eth0"}, Method: MethodDHCP}},
		{"ip=ab:on", Interface{Device: Device{Name: "ab"}, Method: MethodDHCP}},
		{"ip=eth0:dhcp:9000", Interface{Device: Device{Name: "eth0"}, Method: MethodDHCP, MTU: 9000}},
		{"ip=eth0:dhcp::02:00:00:00:00:01", Interface{Device: Device{Name: "eth0"}, Method: MethodDHCP, SetMAC: mac("02:00:00:00:00:01")}},
		{"ip=52:54:00:12:34:56:dhcp", Interface{Device: Device{MAC: mac("52:54:00:12:34:56")}, Method: MethodDHCP}},
		{"ip=52-54-00-12-34-56:dhcp:1400", Interface{Device: Device{MAC: mac("52:54:00:12:34:56")}, Method: MethodDHCP, MTU: 1400}},
		{"ip=52:54:00:12:34:56:dhcp:1400:02:00:00:00:00:01", Interface{Device: Device{MAC: mac("52:54:00:12:34:56")}, Method: MethodDHCP,
			MTU: 1400, SetMAC: mac("02:00:00:00:00:01")}},
		{"ip=192.0.2.10::192.0.2.1:255.255.255.0:node1:eth0:none", Interface{Device: Device{Name: "eth0"}, Method: MethodStatic,
			Address: prefix("192.0.2.10/24"), Gateway: addr("192.0.2.1"), Hostname: "node1"}},
		{"ip=192.0.2.10::192.0.2.1:24:::off", Interface{Method: MethodStatic, Address: prefix("192.0.2.10/24"), Gateway: addr("192.0.2.1")}},
		{"ip=192.0.2.10:192.0.2.11::32::52:54:00:12:34:56:none", Interface{Device: Device{MAC: mac("52:54:00:12:34:56")}, Method: MethodStatic,
			Address: prefix("192.0.2.10/32"), Peer: prefix("192.0.2.11/32")}},
		{"ip=192.0.2.10:192.0.2.11/30::32::eth0:none", Interface{Device: Device{Name: "eth0"}, Method: MethodStatic,
			Address: prefix("192.0.2.10/32"), Peer: prefix("192.0.2.11/30")}},
		{"ip=203.0.113.7::198.51.100.1:255.255.255.255::eth0:none:1500", Interface{Device: Device{Name: "eth0"}, Method: MethodStatic,
			Address: prefix("203.0.113.7/32"), Gateway: addr("198.51.100.1"), MTU: 1500}},
		{"ip=192.0.2.10::192.0.2.1:24::eth0:none:9.9.9.9:1.1.1.1", Interface{Device: Device{Name: "eth0"}, Method: MethodStatic,
			Address: prefix("192.0.2.10/24"), Gateway: addr("192.0.2.1"), DNS: []netip.Addr{addr("9.9.9.9"), addr("1.1.1.1")}}},
		{"ip=192.0.2.10::192.0.2.1:24::eth0:none::1.1.1.1", Interface{Device: Device{Name: "eth0"}, Method: MethodStatic,
			Address: prefix("192.0.2.10/24"), Gateway: addr("192.0.2.1"), DNS: []netip.Addr{addr("1.1.1.1")}}},
		{"ip=192.0.2.10::192.0.2.1:24::eth0:none::", Interface{Device: Device{Name: "eth0"}, Method: MethodStatic,
			Address: prefix("192.0.2.10/24"), Gateway: addr("192.0.2.1")}},
		{"ip=192.0.2.10::192.0.2.1:24::eth0:none:1500:02:00:00:00:00:01", Interface{Device: Device{Name: "eth0"}, Method: MethodStatic,
			Address: prefix("192.0.2.10/24"), Gateway: addr("192.0.2.1"), MTU: 1500, SetMAC: mac("02:00:00:00:00:01")}},
		{"ip=[2001:db8::10]::[2001:db8::1]:64::eth0:none:[2001:db8::53]", Interface{Device: Device{Name: "eth0"}, Method: MethodStatic,
			Address: prefix("2001:db8::10/64"), Gateway: addr("2001:db8::1"), DNS: []netip.Addr{addr("2001:db8::53")}}},
		{"ip=::::node1:eth0:dhcp", Interface{Device: Device{Name: "eth0"}, Method: MethodDHCP, Hostname: "node1"}},
		{"ip=:::::52:54:00:12:34:56:dhcp", Interface{Device: Device{MAC: mac("52:54:00:12:34:56")}, Method: MethodDHCP}},
	}
	for _, test := range tests {
		t.Run(test.word, func(t *testing.T) {
			t.Parallel()
			got, err := ParseIP(test.word)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, compareNetip); diff != "" {
				t.Errorf("ParseIP(%q) (-want +got):\n%s", test.word, diff)
			}
		})
	}
}

func TestParseIPRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ word, want string }{
		{"dhcp", "does not begin with ip="},
		{"ip=", `method ""`},
		{"ip=none", "no address"},
		{"ip=dhpc", `method "dhpc"; allowed are dhcp`},
		{"ip=eth0:none", "no address"},
		{"ip=eth0", "method"},
		{"ip=:dhcp", "no interface before the method"},
		{"ip=52:54:00:12:34:56", "no method after the interface"},
		{"ip=eth0:dhcp:10", `MTU "10"`},
		{"ip=eth0:dhcp:9.9.9.9", "after the method"},
		{"ip=eth0:dhcp:1500:xx", "no MAC address"},
		{"ip=eth0:ibft", "not yet supported"},
		{"ip=averyveryverylongname:dhcp", "neither the name nor the MAC"},
		{"ip=01:54:00:12:34:56:dhcp", "group address"},
		{"ip=00:00:00:00:00:00:dhcp", "group address or zero"},
		{"ip=192.0.2.10::192.0.2.1:255.255.255.0", "at least seven fields"},
		{"ip=192.0.2.10::192.0.2.1:::eth0:none", `netmask ""`},
		{"ip=192.0.2.10::192.0.2.1:255.0.255.0::eth0:none", `netmask "255.0.255.0"`},
		{"ip=192.0.2.10::192.0.2.1:33::eth0:none", `netmask "33"`},
		{"ip=192.0.2.10::192.0.2.1:0::eth0:none", `netmask "0"`},
		{"ip=192.0.2.256::192.0.2.1:24::eth0:none", `"192.0.2.256" is no IP address`},
		{"ip=192.0.2.10::[2001:db8::1]:24::eth0:none", "another family"},
		{"ip=192.0.2.10:[2001:db8::1]::24::eth0:none", "another family"},
		{"ip=192.0.2.10::192.0.2.1:24:bad_name:eth0:none", `hostname "bad_name"`},
		{"ip=192.0.2.10::192.0.2.1:24::eth0:never", `method "never"`},
		{"ip=192.0.2.10::192.0.2.1:24::eth0:none:1.1.1.1:2.2.2.2:3.3.3.3", "up to two name servers"},
		{"ip=::192.0.2.1:24::eth0:dhcp", "without an address"},
		{"ip=::192.0.2.1:24::eth0:none", "no address"},
		{"ip=[2001:db8::10::[2001:db8::1]:64::eth0:none", "brackets do not match"},
		{"ip=[2001:db8::10]::[2001:db8::1]:ffff::::eth0:none", "method"},
		{"ip=[fe80::1%25eth0]:::64::eth0:none", "no IP address"},
		{"ip=0.0.0.0:::24::eth0:none", "cannot be the address"},
		{"ip=224.0.0.1:::24::eth0:none", "cannot be the address"},
		{"ip=eth0:dhcp ", "space"},
	}
	for _, test := range tests {
		t.Run(test.word, func(t *testing.T) {
			t.Parallel()
			got, err := ParseIP(test.word)
			if err == nil || !strings.Contains(err.Error(), test.want) || test.word != "" && !strings.Contains(err.Error(), test.word) {
				t.Errorf("ParseIP(%q) = %+v, %v; want an error with %q", test.word, got, err, test.want)
			}
		})
	}
}

func TestParseWord(t *testing.T) {
	t.Parallel()
	w, err := ParseWord("nameserver=[2001:db8::53]")
	if err != nil || w.Nameserver != netip.MustParseAddr("2001:db8::53") || w.IP != nil {
		t.Errorf("ParseWord(nameserver) = %+v, %v", w, err)
	}
	for _, text := range []string{"vlan=eth0.5:eth0", "bond=bond0:eth0,eth1:mode=802.3ad"} {
		if _, err := ParseWord(text); !errors.Is(err, ErrNotSupported) {
			t.Errorf("ParseWord(%q) = %v; want ErrNotSupported", text, err)
		}
	}
	for _, text := range []string{"ip", "nameserver=", "nameserver=dns.example", "quiet", "", "=", "dns=1.1.1.1"} {
		if w, err := ParseWord(text); err == nil {
			t.Errorf("ParseWord(%q) = %+v; want an error", text, w)
		}
	}
	for text, want := range map[string]bool{"ip=dhcp": true, "nameserver=1.1.1.1": true, "vlan=x": true, "bond=": true, "ip": false, "ipv6.disable=1": false, "": false} {
		if got := IsNetworkWord(text); got != want {
			t.Errorf("IsNetworkWord(%q) = %v; want %v", text, got, want)
		}
	}
}
