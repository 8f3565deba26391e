package qemu

import (
	"encoding/binary"
	"net"
	"slices"
	"sync"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"xnodeos.org/internal/vm"
)

// wireNet is the far end of a guest's cable: a host that answers ARP for
// itself and gives out addresses by DHCP, a new one for every new identity. A
// node whose first stage and whose system name themselves differently is so
// given two addresses, as by many a real server.
type wireNet struct {
	mu     sync.Mutex
	leases map[string]net.IP // by identity: client-id, else MAC
	seen   []string          // message types, in order
	arps   map[string]bool   // addresses that the guest claimed or asked from
}

// The host on the wire.
var (
	wireIP  = []byte{192, 0, 2, 1}
	hostMAC = []byte{0x02, 0, 0, 0, 0, 1}
)

func newWireNet() *wireNet {
	return &wireNet{leases: map[string]net.IP{}, arps: map[string]bool{}}
}

// serve answers until the machine has ended.
func (w *wireNet) serve(wire *vm.Wire) {
	go func() {
		for {
			frame, err := wire.ReadFrame()
			if err != nil {
				return
			}
			if answer := w.answer(frame); answer != nil {
				if err := wire.WriteFrame(answer); err != nil {
					return
				}
			}
		}
	}()
}

func (w *wireNet) answer(frame []byte) []byte {
	if len(frame) < 14 {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0806:
		return w.answerARP(frame)
	case 0x0800:
		return w.answerDHCP(frame)
	}
	return nil
}

// answerARP follows RFC 826 for Ethernet and IPv4.
func (w *wireNet) answerARP(frame []byte) []byte {
	if len(frame) < 42 || binary.BigEndian.Uint16(frame[20:]) != 1 {
		return nil
	}
	w.arps[net.IP(frame[28:32]).String()] = true
	if !slices.Equal(frame[38:42], wireIP) {
		return nil
	}
	sender := frame[22:32] // MAC and address
	body := slices.Concat([]byte{0, 1, 8, 0, 6, 4, 0, 2}, hostMAC, wireIP, sender)
	return ethernet(sender[:6], 0x0806, body)
}

func (w *wireNet) answerDHCP(frame []byte) []byte {
	ip := frame[14:]
	if len(ip) < 20 || ip[9] != 17 {
		return nil
	}
	udp := ip[int(ip[0]&15)*4:]
	if len(udp) < 8 || binary.BigEndian.Uint16(udp[2:]) != dhcpv4.ServerPort {
		return nil
	}
	req, err := dhcpv4.FromBytes(udp[8:])
	if err != nil {
		return nil
	}
	w.seen = append(w.seen, req.MessageType().String())
	kind := dhcpv4.MessageTypeOffer
	switch req.MessageType() {
	case dhcpv4.MessageTypeDiscover:
	case dhcpv4.MessageTypeRequest:
		kind = dhcpv4.MessageTypeAck
	default:
		return nil
	}
	address := w.lease(req)
	if want := req.RequestedIPAddress(); kind == dhcpv4.MessageTypeAck && want != nil && !want.Equal(address) {
		kind = dhcpv4.MessageTypeNak
	}
	reply, err := dhcpv4.NewReplyFromRequest(req,
		dhcpv4.WithMessageType(kind), dhcpv4.WithYourIP(address), dhcpv4.WithServerIP(wireIP),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(wireIP)),
		dhcpv4.WithOption(dhcpv4.OptSubnetMask(net.CIDRMask(24, 32))),
		dhcpv4.WithLeaseTime(3600))
	if err != nil {
		return nil
	}
	return ethernet(req.ClientHWAddr, 0x0800, ipv4UDP(address, dhcpv4.ServerPort, dhcpv4.ClientPort, reply.ToBytes()))
}

func (w *wireNet) lease(req *dhcpv4.DHCPv4) net.IP {
	identity := string(req.Options.Get(dhcpv4.OptionClientIdentifier))
	if identity == "" {
		identity = string(req.ClientHWAddr)
	}
	if w.leases[identity] == nil {
		w.leases[identity] = net.IPv4(192, 0, 2, byte(10+len(w.leases))).To4()
	}
	return w.leases[identity]
}

// given lists the addresses that were handed out, and how often the node
// asked to have one.
func (w *wireNet) given() (addresses []string, requests int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, ip := range w.leases {
		addresses = append(addresses, ip.String())
	}
	slices.Sort(addresses)
	for _, kind := range w.seen {
		if kind == dhcpv4.MessageTypeRequest.String() {
			requests++
		}
	}
	return addresses, requests
}

// claimed tells whether the guest spoke for itself as this address.
func (w *wireNet) claimed(address string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.arps[address]
}

func ethernet(to []byte, kind uint16, body []byte) []byte {
	frame := slices.Concat(to, hostMAC, binary.BigEndian.AppendUint16(nil, kind), body)
	return append(frame, make([]byte, max(0, 60-len(frame)))...)
}

// ipv4UDP wraps a datagram from the wire's host; the UDP checksum is left out,
// as RFC 768 allows.
func ipv4UDP(to net.IP, from, port uint16, data []byte) []byte {
	p := make([]byte, 28, 28+len(data))
	p[0], p[8], p[9] = 0x45, 64, 17
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(data)))
	copy(p[12:], wireIP)
	copy(p[16:], to.To4())
	sum := uint32(0)
	for i := 0; i < 20; i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(p[10:], ^uint16(sum))
	binary.BigEndian.PutUint16(p[20:], from)
	binary.BigEndian.PutUint16(p[22:], port)
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(data)))
	return append(p, data...)
}
