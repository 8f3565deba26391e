package nodeconfig

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

func isMethod(text string) bool {
	_, err := parseMethod(text)
	return err == nil
}

func parseMethod(text string) (Method, error) {
	switch text {
	case "dhcp", "on", "any":
		return MethodDHCP, nil
	case "none", "off":
		return MethodStatic, nil
	case "dhcp6", "auto6", "either6":
		return Method(text), nil
	case "link6", "link-local", "single-dhcp", "ibft":
		return "", fmt.Errorf("method %s is %w; use dhcp or a static address", text, ErrNotSupported)
	}
	return "", fmt.Errorf("method %q; allowed are dhcp, on, any, dhcp6, auto6, either6, none, off", text)
}

// parseAddr parses an IPv4 address, or an IPv6 address in brackets.
func parseAddr(text string) (netip.Addr, error) {
	inner := text
	bracketed := strings.HasPrefix(text, "[") && strings.HasSuffix(text, "]") && len(text) > 2
	if bracketed {
		inner = text[1 : len(text)-1]
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil || addr.Zone() != "" || bracketed && !addr.Is6() || addr.Is4In6() {
		return netip.Addr{}, fmt.Errorf("%q is no IP address (IPv6 in brackets)", text)
	}
	if addr.IsUnspecified() || addr.IsMulticast() {
		return netip.Addr{}, fmt.Errorf("%s cannot be the address of a machine", addr)
	}
	return addr, nil
}

func isAddr(text string) bool {
	_, err := parseAddr(text)
	return err == nil
}

// parseMask parses a prefix length or, for IPv4, a dotted netmask.
func parseMask(text string, addr netip.Addr) (int, error) {
	if isDigits(text) {
		n, err := strconv.Atoi(text)
		if err == nil && n >= 1 && n <= addr.BitLen() {
			return n, nil
		}
	}
	if mask, err := netip.ParseAddr(text); err == nil && mask.Is4() && addr.Is4() {
		raw := mask.As4()
		if n, bits := net.IPMask(raw[:]).Size(); bits == 32 && n >= 1 {
			return n, nil
		}
	}
	return 0, fmt.Errorf("netmask %q of %s; want a prefix length from 1 to %d, or like 255.255.255.0", text, addr, addr.BitLen())
}

func isDigits(text string) bool {
	for _, r := range text {
		if r < '0' || r > '9' {
			return false
		}
	}
	return text != "" && len(text) <= 9
}

func isMAC(parts []string) bool {
	for _, p := range parts {
		if len(p) != 2 || strings.Trim(p, "0123456789abcdefABCDEF") != "" {
			return false
		}
	}
	return len(parts) == 6
}

// parseMAC refuses what no network card can have.
func parseMAC(text string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(text)
	if err != nil {
		return nil, fmt.Errorf("%q is no MAC address", text)
	}
	if mac[0]&1 != 0 || strings.Trim(text, "0:") == "" {
		return nil, fmt.Errorf("%s is a group address or zero, not the MAC address of a card", mac)
	}
	return mac, nil
}
