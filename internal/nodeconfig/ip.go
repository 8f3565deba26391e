package nodeconfig

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Method says how an interface gets its addresses.
type Method string

// The methods of dracut.cmdline(7) that this program knows. MethodStatic is
// written "none" or "off", MethodDHCP also "on" and "any".
const (
	MethodStatic  Method = "none"
	MethodDHCP    Method = "dhcp"    // IPv4
	MethodDHCP6   Method = "dhcp6"   // IPv6, stateful
	MethodAuto6   Method = "auto6"   // IPv6, router advertisements
	MethodEither6 Method = "either6" // auto6, then dhcp6
)

// Device names one network interface, by its permanent MAC address or by the
// name that the kernel gives it. The zero value is any interface. A MAC is the
// better choice: names depend on the order in which drivers load.
type Device struct {
	Name string
	MAC  net.HardwareAddr
}

// Any says whether d names no particular interface.
func (d Device) Any() bool { return d.Name == "" && d.MAC == nil }

func (d Device) String() string {
	switch {
	case d.MAC != nil:
		return d.MAC.String()
	case d.Name != "":
		return d.Name
	}
	return "any interface"
}

// Interface is one parsed ip= word.
type Interface struct {
	Device   Device
	Method   Method
	Address  netip.Prefix // own address and prefix length; zero if the method brings it
	Peer     netip.Prefix // other end of a point-to-point link; zero if none
	Gateway  netip.Addr   // zero if none; may lie outside Address: then it is on-link
	Hostname string
	MTU      int              // 0: leave it
	SetMAC   net.HardwareAddr // nil: leave it
	DNS      []netip.Addr
}

// ParseIP parses one "ip=" word of dracut.cmdline(7), with two extensions: the
// interface may be given by its MAC address (with ":" or "-"), and the netmask
// as a prefix length. These are its forms:
//
//	ip=METHOD
//	ip=INTERFACE:METHOD[:[MTU][:MAC]]
//	ip=ADDRESS:[PEER[/LENGTH]]:[GATEWAY]:NETMASK:[HOSTNAME]:[INTERFACE]:METHOD[:[MTU][:MAC]]
//	ip=ADDRESS:[PEER[/LENGTH]]:[GATEWAY]:NETMASK:[HOSTNAME]:[INTERFACE]:METHOD[:[DNS][:DNS]]
//
// IPv6 addresses stand in brackets.
func ParseIP(word string) (Interface, error) {
	value, ok := strings.CutPrefix(word, "ip=")
	if !ok {
		return Interface{}, fmt.Errorf("network word %q does not begin with ip=", word)
	}
	fields, err := splitFields(value)
	if err != nil {
		return Interface{}, fmt.Errorf("network word %q: %w", word, err)
	}
	var i Interface
	switch {
	case len(fields) == 1:
		i.Method, err = parseMethod(fields[0])
		if err == nil && i.Method == MethodStatic {
			err = errors.New("no address; want ip=dhcp or a whole static configuration")
		}
	case len(fields) < 7 && isAddr(fields[0]):
		err = errors.New("a static configuration has at least seven fields: ip=ADDRESS:[PEER]:[GATEWAY]:NETMASK:[HOSTNAME]:[INTERFACE]:none")
	case len(fields) < 7 || isMethod(fields[1]) || len(fields) > 6 && isMAC(fields[:6]) && isMethod(fields[6]):
		err = i.parseShort(fields)
	default:
		err = i.parseLong(fields)
	}
	if err != nil {
		return Interface{}, fmt.Errorf("network word %q: %w", word, err)
	}
	return i, nil
}

func (i *Interface) parseShort(fields []string) error {
	rest, err := i.parseDevice(fields)
	if err != nil {
		return err
	}
	if i.Device.Any() {
		return errors.New("no interface before the method; want ip=INTERFACE:METHOD")
	}
	if len(rest) == 0 {
		return errors.New("no method after the interface; want ip=INTERFACE:dhcp")
	}
	if i.Method, err = parseMethod(rest[0]); err != nil {
		return err
	}
	if i.Method == MethodStatic {
		return errors.New("no address; want ip=ADDRESS::GATEWAY:NETMASK::INTERFACE:none")
	}
	return i.parseTail(rest[1:], false)
}

func (i *Interface) parseLong(fields []string) error {
	rest, err := i.parseDevice(fields[5:])
	if err != nil {
		return err
	}
	if len(rest) == 0 {
		return errors.New("no method after the interface; want none, off or dhcp")
	}
	if i.Method, err = parseMethod(rest[0]); err != nil {
		return err
	}
	if err := i.parseAddresses(fields[0], fields[1], fields[2], fields[3]); err != nil {
		return err
	}
	if i.Hostname = fields[4]; i.Hostname != "" {
		if err := checkHostname(i.Hostname); err != nil {
			return err
		}
	}
	return i.parseTail(rest[1:], true)
}

// parseDevice takes an interface, which is one field or the six of a MAC
// address, off the front of fields.
func (i *Interface) parseDevice(fields []string) (rest []string, err error) {
	if len(fields) >= 6 && isMAC(fields[:6]) {
		i.Device.MAC, err = parseMAC(strings.Join(fields[:6], ":"))
		return fields[6:], err
	}
	name := fields[0]
	if parts := strings.Split(name, "-"); len(parts) == 6 && isMAC(parts) {
		i.Device.MAC, err = parseMAC(strings.Join(parts, ":"))
		return fields[1:], err
	}
	// IFNAMSIZ is 16 with its NUL; see dev_valid_name in the kernel.
	if len(name) > 15 || name == "." || name == ".." || strings.ContainsAny(name, "/[] \t") {
		return nil, fmt.Errorf("%q is neither the name nor the MAC address of an interface", name)
	}
	i.Device.Name = name
	return fields[1:], nil
}

func (i *Interface) parseAddresses(own, peer, gateway, mask string) error {
	if own == "" {
		if i.Method == MethodStatic {
			return errors.New("no address")
		}
		if peer != "" || mask != "" || gateway != "" {
			return errors.New("peer, gateway or netmask without an address")
		}
		return nil
	}
	addr, err := parseAddr(own)
	if err != nil {
		return err
	}
	bits, err := parseMask(mask, addr)
	if err != nil {
		return err
	}
	i.Address = netip.PrefixFrom(addr, bits)
	if gateway != "" {
		if i.Gateway, err = parseAddr(gateway); err != nil {
			return fmt.Errorf("gateway: %w", err)
		}
		if i.Gateway.Is4() != addr.Is4() {
			return fmt.Errorf("gateway %s is of another family than %s", i.Gateway, addr)
		}
	}
	if peer == "" {
		return nil
	}
	text, length, has := strings.Cut(peer, "/")
	other, err := parseAddr(text)
	if err != nil {
		return fmt.Errorf("peer: %w", err)
	}
	if other.Is4() != addr.Is4() {
		return fmt.Errorf("peer %s is of another family than %s", other, addr)
	}
	bits = other.BitLen()
	if has {
		if bits, err = parseMask(length, other); err != nil {
			return fmt.Errorf("peer: %w", err)
		}
	}
	i.Peer = netip.PrefixFrom(other, bits)
	return nil
}

// parseTail parses what follows the method: MTU and MAC, or name servers.
func (i *Interface) parseTail(rest []string, dns bool) error {
	if len(rest) == 0 {
		return nil
	}
	first, others := rest[0], rest[1:]
	if len(others) == 6 && isMAC(others) || first != "" && isDigits(first) {
		return i.parseLink(first, others)
	}
	if dns && len(rest) <= 2 {
		for _, text := range rest {
			if text == "" {
				continue
			}
			addr, err := parseAddr(text)
			if err != nil {
				return fmt.Errorf("name server: %w", err)
			}
			i.DNS = append(i.DNS, addr)
		}
		return nil
	}
	if first == "" && strings.Join(others, "") == "" && len(others) <= 1 {
		return nil
	}
	return fmt.Errorf("%q after the method; want [MTU][:MAC] or up to two name servers", strings.Join(rest, ":"))
}

func (i *Interface) parseLink(mtu string, mac []string) error {
	if mtu != "" {
		n, err := strconv.Atoi(mtu)
		if err != nil || n < 68 || n > 65535 {
			return fmt.Errorf("MTU %q; allowed are 68 to 65535", mtu)
		}
		i.MTU = n
	}
	if len(mac) == 0 || len(mac) == 1 && mac[0] == "" {
		return nil
	}
	if len(mac) != 6 || !isMAC(mac) {
		return fmt.Errorf("%q is no MAC address", strings.Join(mac, ":"))
	}
	var err error
	i.SetMAC, err = parseMAC(strings.Join(mac, ":"))
	return err
}

// splitFields splits at the colons outside of brackets.
func splitFields(value string) ([]string, error) {
	var fields []string
	start, inside := 0, false
	for n, c := range value {
		switch {
		case c < '!' || c > '~':
			return nil, errors.New("has a space, control or non-ASCII character")
		case c == '[' && inside || c == ']' && !inside:
			return nil, errors.New("brackets do not match")
		case c == '[':
			inside = true
		case c == ']':
			inside = false
		case c == ':' && !inside:
			fields = append(fields, value[start:n])
			start = n + 1
		}
	}
	if inside {
		return nil, errors.New("brackets do not match")
	}
	return append(fields, value[start:]), nil
}
