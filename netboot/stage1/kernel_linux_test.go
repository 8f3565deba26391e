package stage1

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/server4"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"xnodeos.org/internal/nodeconfig"
)

// insideVariable marks the test program that runs in namespaces of its own.
const insideVariable = "XNODE_TEST_INSIDE"

// inNamespaces runs the calling test again as root of new user, mount and network
// namespaces, and returns false in the outer one.
func inNamespaces(t *testing.T) bool {
	t.Helper()
	if os.Getenv(insideVariable) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), insideVariable+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("in namespaces of its own: %v\n%s\nuser namespaces must be allowed (sysctl kernel.unprivileged_userns_clone=1)", err, out)
	}
	if !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("the test did not run in its namespaces:\n%s", out)
	}
	return false
}

// The old root is emptied, but never what is mounted in it.
func TestEmptyRoot(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	root := t.TempDir()
	mount := func(target string) {
		t.Helper()
		if err := (mountOp{"tmpfs", target, "tmpfs", nil, ""}).do(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Unmount(target, unix.MNT_DETACH) })
	}
	mount(root)
	outside := t.TempDir()
	files := []string{"init", "lib/modules/6.1/a.ko", "deep/er/file", "kept/mounted/x"}
	mount(filepath.Join(root, "kept/mounted"))
	for _, name := range append(files, filepath.Join("..", filepath.Base(outside), "precious")) {
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := emptyRoot(dir); err != nil {
		t.Fatal(err)
	}
	left, err := filepath.Glob(filepath.Join(root, "*"))
	if err != nil || !slices.Equal(left, []string{filepath.Join(root, "kept")}) {
		t.Errorf("left in the old root: %q, %v; want only the folder with the mount", left, err)
	}
	for _, name := range []string{filepath.Join(root, "kept/mounted/x"), filepath.Join(outside, "precious")} {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("a file outside of the old root is gone: %v", err)
		}
	}
}

func TestEmptyRootRefusesDisk(t *testing.T) {
	t.Parallel()
	dir, err := os.Open("/proc") // neither ramfs nor tmpfs
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := emptyRoot(dir); err == nil || !strings.Contains(err.Error(), "refusing") {
		t.Errorf("emptyRoot of a file system that is not in memory = %v; want a refusal", err)
	}
}

// cable makes two connected network interfaces and returns them as links.
func cable(t *testing.T) (ours, theirs Link) {
	t.Helper()
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "ours"}, PeerName: "theirs"}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(pair) })
	link := func(name string) Link {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return Link{Index: l.Attrs().Index, Name: name, MAC: l.Attrs().HardwareAddr}
	}
	return link("ours"), link("theirs")
}

// serveDHCP answers on a link and returns the client identifiers that it saw.
func serveDHCP(t *testing.T, l Link) <-chan string {
	t.Helper()
	server := net.IPv4(10, 9, 0, 1)
	ids := make(chan string, 16)
	s, err := server4.NewServer(l.Name, &net.UDPAddr{IP: net.IPv4zero, Port: dhcpv4.ServerPort},
		func(conn net.PacketConn, _ net.Addr, m *dhcpv4.DHCPv4) {
			answer := dhcpv4.MessageTypeOffer
			if m.MessageType() == dhcpv4.MessageTypeRequest {
				answer = dhcpv4.MessageTypeAck
			}
			ids <- string(m.Options.Get(dhcpv4.OptionClientIdentifier))
			reply, err := dhcpv4.NewReplyFromRequest(m, dhcpv4.WithMessageType(answer), dhcpv4.WithServerIP(server),
				dhcpv4.WithYourIP(net.IPv4(10, 9, 0, 77)), dhcpv4.WithNetmask(net.CIDRMask(24, 32)), dhcpv4.WithRouter(server),
				dhcpv4.WithDNS(net.IPv4(9, 9, 9, 9)), dhcpv4.WithOption(dhcpv4.OptServerIdentifier(server)),
				dhcpv4.WithGeneric(dhcpv4.OptionInterfaceMTU, []byte{0x05, 0x78}), dhcpv4.WithLeaseTime(600))
			if err == nil {
				_, err = conn.WriteTo(reply.ToBytes(), &net.UDPAddr{IP: net.IPv4bcast, Port: dhcpv4.ClientPort})
			}
			if err != nil {
				t.Errorf("DHCP server: %v", err)
			}
		})
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve() }()
	t.Cleanup(func() { _ = s.Close() })
	return ids
}

func TestKernelNet(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	ours, theirs := cable(t)
	driver := kernelNet{}
	rule := nodeconfig.Interface{Method: nodeconfig.MethodDHCP, MTU: 1450, SetMAC: net.HardwareAddr{2, 0, 0, 0, 0, 9}}
	if err := driver.Up(ours, rule); err != nil {
		t.Fatal(err)
	}
	if err := driver.Up(theirs, nodeconfig.Interface{}); err != nil {
		t.Fatal(err)
	}
	if err := driver.Configure(theirs, Lease{Address: netip.MustParsePrefix("10.9.0.1/24")}); err != nil {
		t.Fatal(err)
	}
	ids := serveDHCP(t, theirs)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	lease, err := driver.DHCP(ctx, ours)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := lease.String(), "10.9.0.77/24 by dhcp, gateway 10.9.0.1, dns [9.9.9.9]"; got != want || lease.MTU != 1400 {
		t.Errorf("lease = %s with MTU %d; want %s with 1400", got, lease.MTU, want)
	}
	// What systemd-networkd's ClientIdentifier=mac sends: type 1 and the address.
	if got, want := <-ids, "\x01"+string(rule.SetMAC); got != want {
		t.Errorf("client identifier % x; want % x", got, want)
	}
	for range 2 { // a second time changes nothing
		if err := driver.Configure(ours, lease); err != nil {
			t.Fatal(err)
		}
	}
	checkConfigured(t, ours, true)
	if err := driver.Down(ours); err != nil {
		t.Fatal(err)
	}
	checkConfigured(t, ours, false)
	if err := driver.Down(Link{Index: 9999, Name: "gone"}); !errors.As(err, new(netlink.LinkNotFoundError)) {
		t.Errorf("Down of a link that is gone = %v; want a not-found error", err)
	}
}

func checkConfigured(t *testing.T, l Link, want bool) {
	t.Helper()
	link, err := netlink.LinkByIndex(l.Index)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_V4)
	if err != nil {
		t.Fatal(err)
	}
	gateway := slices.ContainsFunc(routes, func(r netlink.Route) bool { return r.Gw != nil && r.Gw.String() == "10.9.0.1" })
	up := link.Attrs().RawFlags&unix.IFF_UP != 0
	if (len(addrs) == 1) != want || gateway != want || up != want {
		t.Errorf("addresses %v, default route %v, up %v; want all to be there: %v", addrs, gateway, up, want)
	}
	if want && link.Attrs().MTU != 1400 {
		t.Errorf("MTU = %d; want the lease's 1400", link.Attrs().MTU)
	}
}

// A gateway outside of the own network is reached on the link, as hosts with /32
// addresses need it.
func TestKernelNetOnLink(t *testing.T) {
	if !inNamespaces(t) {
		return
	}
	ours, theirs := cable(t)
	driver := kernelNet{}
	if err := errorsFirst(driver.Up(ours, nodeconfig.Interface{}), driver.Up(theirs, nodeconfig.Interface{})); err != nil {
		t.Fatal(err)
	}
	lease := Lease{Address: netip.MustParsePrefix("203.0.113.7/32"), Gateway: netip.MustParseAddr("198.51.100.1")}
	if err := driver.Configure(ours, lease); err != nil {
		t.Errorf("Configure with a gateway outside of the network = %v", err)
	}
}

func TestLeaseOf(t *testing.T) {
	t.Parallel()
	ack := func(mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
		m, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 5))}, mods...)...)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	router := dhcpv4.WithRouter(net.IPv4(10, 0, 0, 1))
	any4 := &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	ten := &net.IPNet{IP: net.IPv4(10, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)}
	classless := func(dest *net.IPNet) dhcpv4.Modifier {
		return dhcpv4.WithOption(dhcpv4.OptClasslessStaticRoute(&dhcpv4.Route{Dest: dest, Router: net.IPv4(10, 0, 0, 9)}))
	}
	tests := []struct {
		name string
		ack  *dhcpv4.DHCPv4
		want string
	}{
		{"no mask", ack(router), "10.0.0.5/32 by dhcp, gateway 10.0.0.1"},
		{"classless default route wins", ack(router, classless(any4)), "10.0.0.5/32 by dhcp, gateway 10.0.0.9"},
		{"classless routes without a default", ack(router, classless(ten)), "10.0.0.5/32 by dhcp"},
	}
	for _, tt := range tests {
		lease, err := leaseOf(tt.ack)
		if err != nil || lease.String() != tt.want {
			t.Errorf("%s: leaseOf = %s, %v; want %s", tt.name, lease, err, tt.want)
		}
	}
	if lease, err := leaseOf(ack(dhcpv4.WithYourIP(net.IPv4zero))); err == nil {
		t.Errorf("leaseOf of no address = %v; want an error", lease)
	}
}

// fakeSystem is a folder with a prepare-root that runs the given commands.
func fakeSystem(t *testing.T, script string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "prepare-root"), []byte("#!/bin/sh\n"+script), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestPrepareRoot(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, script string
		fails        string // in the error; "" if it works
		says         string
	}{
		{"environment", "echo stage $IN_NIXOS_SYSTEMD_STAGE1 home=$HOME", "", "prepare-root: stage true home=\n"},
		{"error output", "echo oh >&2", "", "prepare-root: oh\n"},
		{"something stays behind", "sleep 5 & echo done", "", "prepare-root: done\n"},
		{"failure", "echo no space >&2; exit 3", "exit status 3; it said: no space", "prepare-root: no space\n"},
		{"signal", "kill -9 $$", "signal: killed", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out buffer
			con := NewConsole(fixedClock)
			con.Attach(&out)
			err := prepareRoot(t.Context(), con, fakeSystem(t, tt.script))
			if (err != nil) != (tt.fails != "") || err != nil && !strings.Contains(err.Error(), tt.fails) {
				t.Errorf("prepareRoot = %v; want %q", err, tt.fails)
			}
			con.Flush(time.Minute)
			if !strings.Contains(out.String(), tt.says) {
				t.Errorf("console got %q; want %q", out.String(), tt.says)
			}
		})
	}
}
