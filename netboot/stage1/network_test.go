package stage1

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"xnodeos.org/internal/nodeconfig"
)

var byValue = cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})

func card(index int, name, mac string, carrier bool) Link {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		panic(err)
	}
	return Link{Index: index, Name: name, MAC: hw, PermMAC: hw, Carrier: carrier}
}

func config(network string) *nodeconfig.Config {
	return &nodeconfig.Config{Files: map[string][]byte{"network": []byte(network)}}
}

func TestPlanNetwork(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		cmdline []string
		config  *nodeconfig.Config
		devices []string // of the rules
		dns     int
		notes   []string
	}{
		{name: "nothing said"},
		{name: "node config", config: config("ip=eth0:dhcp\nnameserver=9.9.9.9\n"), devices: []string{"eth0"}, dns: 1},
		{name: "command line wins", cmdline: []string{"ip=eth1:dhcp"}, config: config("ip=eth0:dhcp\nnameserver=9.9.9.9\n"), devices: []string{"eth1"}},
		{name: "broken word", cmdline: []string{"ip=eth1:dhpc", "ip=eth2:dhcp"}, devices: []string{"eth2"}, notes: []string{"dhpc"}},
		{name: "not supported yet", cmdline: []string{"bond=bond0", "ip=eth0:auto6"}, notes: []string{"bond", "auto6"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			plan, notes := PlanNetwork(tt.cmdline, tt.config)
			var devices []string
			for _, r := range plan.Rules {
				devices = append(devices, r.Device.String())
			}
			if diff := cmp.Diff(tt.devices, devices); diff != "" {
				t.Errorf("rules, -want +got:\n%s", diff)
			}
			if len(plan.DNS) != tt.dns {
				t.Errorf("DNS = %v; want %d", plan.DNS, tt.dns)
			}
			if len(notes) != len(tt.notes) {
				t.Fatalf("notes = %q; want %d", notes, len(tt.notes))
			}
			for i, part := range tt.notes {
				if !strings.Contains(notes[i], part) {
					t.Errorf("note %q; want %q in it", notes[i], part)
				}
			}
		})
	}
}

func TestWithHostname(t *testing.T) {
	t.Parallel()
	named := &nodeconfig.Config{Files: map[string][]byte{"hostname": []byte("file\n")}}
	plan, _ := PlanNetwork([]string{"ip=dhcp", "ip=10.0.0.2::10.0.0.1:24:word:eth0:none"}, nil)
	tests := []struct {
		name        string
		config      *nodeconfig.Config
		plan        NetworkPlan
		fromCmdline bool
		want        string
	}{
		{"command line wins", named, plan, true, "word"},
		{"file wins over its own word", named, plan, false, "file"},
		{"word fills the gap", &nodeconfig.Config{}, plan, false, "word"},
		{"no word", named, NetworkPlan{}, true, "file"},
	}
	for _, tt := range tests {
		if got := withHostname(tt.config, tt.plan, tt.fromCmdline).Hostname(); got != tt.want {
			t.Errorf("%s: hostname %q; want %q", tt.name, got, tt.want)
		}
	}
	if named.Hostname() != "file" {
		t.Error("the given config was changed")
	}
}

func TestAssign(t *testing.T) {
	t.Parallel()
	a, b := "52:54:00:00:00:0a", "52:54:00:00:00:0b"
	dark := []Link{card(1, "eth0", a, false), card(2, "eth1", b, true)}
	lit := []Link{card(1, "eth0", a, true), card(2, "eth1", b, true)}
	const static, static2 = "ip=10.0.0.2::10.0.0.1:24:::none", "ip=10.0.0.3::10.0.0.1:24:::none"
	tests := []struct {
		name  string
		words []string
		links []Link
		want  map[int]string // method and address by link
	}{
		{"no words: all by DHCP", nil, dark, map[int]string{1: "dhcp", 2: "dhcp"}},
		{"dhcp for all", []string{"ip=dhcp"}, dark, map[int]string{1: "dhcp", 2: "dhcp"}},
		{"only the named card", []string{"ip=eth1:dhcp"}, lit, map[int]string{2: "dhcp"}},
		{"by MAC address", []string{"ip=10.0.0.2::10.0.0.1:24::52-54-00-00-00-0b:none"}, lit, map[int]string{2: "none 10.0.0.2/24"}},
		{"static goes to the cable", []string{static}, dark, map[int]string{2: "none 10.0.0.2/24"}},
		{"static goes to one card only", []string{static}, lit, map[int]string{1: "none 10.0.0.2/24"}},
		{"two statics, two cards", []string{static, static2}, lit, map[int]string{1: "none 10.0.0.2/24", 2: "none 10.0.0.3/24"}},
		{"named first, rest by DHCP", []string{"ip=10.0.0.2::10.0.0.1:24::eth0:none", "ip=dhcp"}, lit, map[int]string{1: "none 10.0.0.2/24", 2: "dhcp"}},
		{"no such card", []string{"ip=eth7:dhcp"}, lit, map[int]string{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			plan, notes := PlanNetwork(tt.words, nil)
			if len(notes) > 0 {
				t.Fatal(notes)
			}
			rules := plan.Assign(tt.links, nil)
			if diff := cmp.Diff(tt.want, describe(rules)); diff != "" {
				t.Errorf("Assign, -want +got:\n%s", diff)
			}
			// What was given stays, whatever happens to the cables.
			again := plan.Assign(dark, rules)
			if diff := cmp.Diff(tt.want, describe(again)); diff != "" {
				t.Errorf("Assign again, -want +got:\n%s", diff)
			}
		})
	}
}

func describe(rules map[int]nodeconfig.Interface) map[int]string {
	got := map[int]string{}
	for index, r := range rules {
		got[index] = string(r.Method)
		if r.Address.IsValid() {
			got[index] += " " + r.Address.String()
		}
	}
	return got
}

// lan is a machine's network cards and what the network answers them.
type lan struct {
	mu    sync.Mutex
	links map[int]*Link
	up    map[int]bool
	addrs map[int]netip.Prefix
	asked map[int]int
	// cable says when a link that is up sees its carrier: never if missing.
	cable map[int]bool
	// answers is how often the DHCP server is silent before it answers; -1: always.
	silent map[int]int
}

func newLAN(links ...Link) *lan {
	l := &lan{links: map[int]*Link{}, up: map[int]bool{}, addrs: map[int]netip.Prefix{}, asked: map[int]int{},
		cable: map[int]bool{}, silent: map[int]int{}}
	for _, link := range links {
		link.Carrier = false
		l.links[link.Index] = &link
		l.cable[link.Index] = true
	}
	return l
}

func (l *lan) Links() ([]Link, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []Link
	for _, index := range slices.Sorted(maps.Keys(l.links)) {
		link := *l.links[index]
		link.Carrier = l.up[index] && l.cable[index]
		list = append(list, link)
	}
	return list, nil
}

func (l *lan) Up(link Link, _ nodeconfig.Interface) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.up[link.Index] = true
	return nil
}

func (l *lan) DHCP(ctx context.Context, link Link) (Lease, error) {
	l.mu.Lock()
	l.asked[link.Index]++
	silent := l.silent[link.Index]
	l.silent[link.Index]--
	l.mu.Unlock()
	if silent != 0 {
		pause(ctx, nil, 7*time.Second)
		return Lease{}, errors.New("no answer")
	}
	return Lease{Address: netip.MustParsePrefix(fmt.Sprintf("10.0.2.%d/24", link.Index)),
		Gateway: netip.MustParseAddr("10.0.2.254"), From: nodeconfig.MethodDHCP}, nil
}

func (l *lan) Configure(link Link, lease Lease) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addrs[link.Index] = lease.Address
	return nil
}

func (l *lan) Down(link Link) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.addrs, link.Index)
	delete(l.up, link.Index)
	return nil
}

// seen returns copies of what the cards are like.
func (l *lan) seen() (up map[int]bool, addrs map[int]netip.Prefix, asked map[int]int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.up), maps.Clone(l.addrs), maps.Clone(l.asked)
}

// runNetwork runs a network in a synctest bubble until check returns.
func runNetwork(t *testing.T, l *lan, words []string, check func(n *Network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		plan, notes := PlanNetwork(words, nil)
		if len(notes) > 0 {
			t.Fatal(notes)
		}
		start := time.Now()
		clock := func() time.Duration { return time.Since(start) }
		n := NewNetwork(l, plan, clock, NewConsole(clock))
		if !n.Waiting() {
			t.Error("not waiting before the first look")
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			n.Run(ctx, newSignal())
			close(ended)
		}()
		check(n)
		cancel()
		<-ended
		n.Down()
		if up, addrs, _ := l.seen(); len(up) > 0 || len(addrs) > 0 {
			t.Errorf("after Down these are up: %v, with %v", up, addrs)
		}
	})
}

func TestNetworkDHCP(t *testing.T) {
	t.Parallel()
	l := newLAN(card(1, "eth0", "52:54:00:00:00:01", true), card(2, "eth1", "52:54:00:00:00:02", true))
	l.cable[2] = false
	l.silent[1] = 2 // a switch port that does not forward yet
	runNetwork(t, l, nil, func(n *Network) {
		time.Sleep(time.Second)
		if !n.Waiting() {
			t.Error("not waiting although a card with a cable has no address")
		}
		time.Sleep(time.Minute)
		if n.Waiting() {
			t.Error("still waiting: the only card with a cable has its address")
		}
		results := n.Results()
		if len(results) != 2 || results[0].Lease == nil || results[1].Lease != nil {
			t.Fatalf("Results = %+v; want a lease for the first card only", results)
		}
		if got := results[0].Lease.Address.String(); got != "10.0.2.1/24" {
			t.Errorf("address %s; want the server's", got)
		}
		if _, _, asked := l.seen(); asked[1] != 3 || asked[2] != 0 {
			t.Errorf("asked %v times; want until there was an answer, and not without a cable", asked)
		}
	})
}

// A static word without an interface needs every card up to see where the cable
// is, and then configures one.
func TestNetworkStaticAny(t *testing.T) {
	t.Parallel()
	l := newLAN(card(1, "eth0", "52:54:00:00:00:01", true), card(2, "eth1", "52:54:00:00:00:02", true))
	l.cable[1] = false
	runNetwork(t, l, []string{"ip=10.9.0.2::10.9.0.1:255.255.255.0:::none", "nameserver=9.9.9.9"}, func(n *Network) {
		time.Sleep(time.Second)
		want := map[int]netip.Prefix{2: netip.MustParsePrefix("10.9.0.2/24")}
		_, addrs, asked := l.seen()
		if diff := cmp.Diff(want, addrs, byValue); diff != "" {
			t.Errorf("addresses, -want +got:\n%s", diff)
		}
		if results := n.Results(); len(results) != 1 || results[0].Link.Name != "eth1" || len(results[0].Lease.DNS) != 1 {
			t.Errorf("Results = %+v; want the card with the cable", results)
		}
		if len(asked) > 0 {
			t.Errorf("asked for leases: %v", asked)
		}
	})
}

func TestNetworkNames(t *testing.T) {
	t.Parallel()
	l := newLAN(card(1, "eth0", "52:54:00:00:00:01", true))
	runNetwork(t, l, []string{"ip=enp1s0:dhcp"}, func(n *Network) {
		time.Sleep(time.Second)
		notes := n.Notes()
		if len(notes) != 1 || !strings.Contains(notes[0], "enp1s0") || !strings.Contains(notes[0], "eth0 (52:54:00:00:00:01)") {
			t.Errorf("Notes = %q; want the missing card and those that are there", notes)
		}
		if up, _, _ := l.seen(); len(up) > 0 {
			t.Errorf("up: %v; want no card that no word names", up)
		}
	})
}

func TestNetworkFile(t *testing.T) {
	t.Parallel()
	link := card(2, "eth0", "52:54:00:12:34:56", true)
	rule := func(word string) nodeconfig.Interface {
		r, err := nodeconfig.ParseIP(word)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	const head = "# By the first stage, for this boot.\n[Match]\nPermanentMACAddress=52:54:00:12:34:56\n"
	dns := []netip.Addr{netip.MustParseAddr("9.9.9.9")}
	virtual := Link{Index: 2, Name: "eth0", MAC: link.MAC, Carrier: true}
	dark := link
	dark.Carrier = false
	tests := []struct {
		name      string
		result    LinkResult
		dns       []netip.Addr
		reachable bool
		want      string
	}{
		{"dhcp", LinkResult{Link: link, Rule: dhcpRule}, nil, true,
			head + "\n[Network]\nDHCP=ipv4\n\n[DHCPv4]\nClientIdentifier=mac\nUseMTU=yes\n"},
		{"dhcp with a name server", LinkResult{Link: link, Rule: dhcpRule}, dns, true,
			head + "\n[Network]\nDHCP=ipv4\nDNS=9.9.9.9\n\n[DHCPv4]\nClientIdentifier=mac\nUseMTU=yes\n"},
		{"no permanent address", LinkResult{Link: virtual, Rule: dhcpRule}, nil, true,
			strings.Replace(head, "PermanentMACAddress", "MACAddress", 1) + "\n[Network]\nDHCP=ipv4\n\n[DHCPv4]\nClientIdentifier=mac\nUseMTU=yes\n"},
		{"no cable, another card works", LinkResult{Link: dark, Rule: dhcpRule}, nil, true,
			head + "\n[Link]\nRequiredForOnline=no\n\n[Network]\nDHCP=ipv4\n\n[DHCPv4]\nClientIdentifier=mac\nUseMTU=yes\n"},
		{"no cable yet, no other card", LinkResult{Link: dark, Rule: dhcpRule}, nil, false,
			head + "\n[Network]\nDHCP=ipv4\n\n[DHCPv4]\nClientIdentifier=mac\nUseMTU=yes\n"},
		{"static", LinkResult{Link: link, Rule: rule("ip=10.0.2.77::10.0.2.2:255.255.255.0::eth0:none:1400")}, dns, true,
			head + "\n[Link]\nMTUBytes=1400\n\n[Network]\nDHCP=no\nDNS=9.9.9.9\n\n[Address]\nAddress=10.0.2.77/24\n\n[Route]\nGateway=10.0.2.2\n"},
		{"host route", LinkResult{Link: link, Rule: rule("ip=203.0.113.7::198.51.100.1:255.255.255.255::eth0:none")}, nil, true,
			head + "\n[Network]\nDHCP=no\n\n[Address]\nAddress=203.0.113.7/32\n\n[Route]\nGateway=198.51.100.1\nGatewayOnLink=yes\n"},
		{"no gateway", LinkResult{Link: link, Rule: rule("ip=10.0.2.77:::24::eth0:none")}, nil, true,
			head + "\n[Network]\nDHCP=no\n\n[Address]\nAddress=10.0.2.77/24\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			name, got := NetworkFile(tt.result, tt.dns, tt.reachable)
			if want := "10-xnode-525400123456.network"; name != want {
				t.Errorf("name = %q; want %q", name, want)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("content, -want +got:\n%s", diff)
			}
		})
	}
}
