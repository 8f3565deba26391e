package netsnap

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// insideVariable marks the test program that runs in namespaces of its own.
const insideVariable = "XNODE_TEST_INSIDE"

func takeInNamespaces(t *testing.T) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestTake$", "-test.v")
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestTake") {
		t.Fatalf("in namespaces of its own: %v\n%s\nuser namespaces must be allowed (sysctl kernel.unprivileged_userns_clone=1)", err, out)
	}
}

// TestTake reads a network namespace of its own, as the kernel shows it.
func TestTake(t *testing.T) {
	if os.Getenv(insideVariable) == "" {
		takeInNamespaces(t)
		return
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "left", MTU: 1400}, PeerName: "right"}))
	left, err := netlink.LinkByName("left")
	must(err)
	right, err := netlink.LinkByName("right")
	must(err)
	must(netlink.LinkSetUp(left))
	must(netlink.LinkSetUp(right))
	network := func(text string) *net.IPNet {
		n, err := netlink.ParseIPNet(text)
		must(err)
		return n
	}
	must(netlink.AddrAdd(left, &netlink.Addr{IPNet: network("192.0.2.5/24")}))
	must(netlink.AddrAdd(left, &netlink.Addr{IPNet: network("198.51.100.5/24"), ValidLft: 3600, PreferedLft: 3600}))
	must(netlink.RouteAdd(&netlink.Route{LinkIndex: left.Attrs().Index, Gw: net.IPv4(192, 0, 2, 1), Protocol: unix.RTPROT_DHCP, Priority: 7}))
	must(netlink.AddrAdd(right, &netlink.Addr{IPNet: network("2001:db8::5/64"), Flags: unix.IFA_F_NODAD}))
	must(netlink.RouteAdd(&netlink.Route{LinkIndex: right.Attrs().Index, Gw: net.ParseIP("fe80::1"), Protocol: unix.RTPROT_STATIC, Priority: 9}))
	must(netlink.AddrAdd(left, &netlink.Addr{IPNet: network("2001:db8:1::5/64"), Flags: unix.IFA_F_NODAD}))
	// The same metric: the kernel shows the two as one route.
	must(netlink.RouteAppend(&netlink.Route{LinkIndex: left.Attrs().Index, Gw: net.ParseIP("fe80::2"), Protocol: unix.RTPROT_STATIC, Priority: 9}))
	s, err := Take(fstest.MapFS{"etc/resolv.conf": &fstest.MapFile{Data: []byte("nameserver 192.0.2.53\n")}})
	must(err)
	i := left.Attrs().Index
	prefix := netip.MustParsePrefix
	want := &Snapshot{
		Links: []Link{{Index: right.Attrs().Index, Name: "right", Kind: "veth", MTU: 1400, Up: true}, {Index: i, Name: "left", Kind: "veth", MTU: 1400, Up: true}},
		Addresses: []Address{{Link: i, Prefix: prefix("192.0.2.5/24"), Permanent: true}, {Link: i, Prefix: prefix("198.51.100.5/24")},
			{Link: right.Attrs().Index, Prefix: prefix("2001:db8::5/64"), Permanent: true}, {Link: i, Prefix: prefix("2001:db8:1::5/64"), Permanent: true}},
		Routes: []Route{{i, prefix("0.0.0.0/0"), netip.MustParseAddr("192.0.2.1"), FromDHCP, 7},
			{i, prefix("192.0.2.0/24"), netip.Addr{}, FromKernel, 0}, {i, prefix("198.51.100.0/24"), netip.Addr{}, FromKernel, 0},
			{right.Attrs().Index, prefix("::/0"), netip.MustParseAddr("fe80::1"), FromPerson, 9},
			{i, prefix("::/0"), netip.MustParseAddr("fe80::2"), FromPerson, 9}},
		DNS: []netip.Addr{netip.MustParseAddr("192.0.2.53")},
	}
	options := cmp.Options{
		cmpopts.IgnoreFields(Link{}, "MAC", "PermMAC"),
		cmpopts.SortSlices(func(a, b Link) bool { return a.Index < b.Index }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmpopts.EquateEmpty(),
		cmpopts.IgnoreSliceElements(func(r Route) bool { return r.To.Addr().Is6() && !r.Default() }),
	}
	if diff := cmp.Diff(want, s, options); diff != "" {
		t.Errorf("Take (-want +got):\n%s", diff)
	}
}
