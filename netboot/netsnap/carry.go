package netsnap

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"xnodeos.org/internal/nodeconfig"
)

// Carried is what the next system is told.
type Carried struct {
	// Words are ip= and nameserver= words, for the file "network" of a node
	// config. None: the next system asks by DHCP on every card.
	Words []string
	// Cards are the names of the cards over which a default route leads.
	Cards []string
	// Lost is what is not carried.
	Lost []Loss
}

// Loss is something that the next system will not have. Cut says that the old
// system's way out depends on it.
type Loss struct {
	Text string
	Cut  bool
}

const usualMTU = 1500

// Carry says the snapshot in words.
func (s *Snapshot) Carry() Carried {
	var c Carried
	static := false
	for _, l := range s.Links {
		if s.hasDefault(l.Index) && l.Kind == CardKind {
			c.Cards = append(c.Cards, l.Name)
		}
		switch {
		case l.Kind != CardKind:
			s.software(l, &c)
		case l.Master == 0 && l.Up:
			static = s.card(l, &c) || static
		}
	}
	if static {
		for _, a := range s.DNS {
			c.word("nameserver="+a.String(), fmt.Sprintf("name server %s", a), false)
		}
	}
	s.otherRoutes(&c)
	if s.Rules > 0 {
		c.lose(false, "%d policy routing rules: not carried yet", s.Rules)
	}
	return c
}

func (c *Carried) lose(cut bool, format string, args ...any) {
	c.Lost = append(c.Lost, Loss{Text: fmt.Sprintf(format, args...), Cut: cut})
}

// word adds a word that the first stage understands.
func (c *Carried) word(text, what string, cut bool) bool {
	w, err := nodeconfig.ParseWord(text)
	if err == nil {
		err = w.Supported()
	}
	if err != nil {
		c.lose(cut, "%s: %v", what, err)
		return false
	}
	c.Words = append(c.Words, text)
	return true
}

// software says what becomes of a link that is no card.
func (s *Snapshot) software(l Link, c *Carried) {
	all := append(s.addresses(l.Index, true), s.addresses(l.Index, false)...)
	if len(all) == 0 && !s.hasDefault(l.Index) {
		return
	}
	var texts []string
	for _, a := range all {
		texts = append(texts, a.Prefix.String())
	}
	c.lose(s.hasDefault(l.Index), "%s (%s) with %s: a %s is not carried yet", l.Name, l.Kind, orNone(texts), l.Kind)
}

func orNone(texts []string) string {
	if len(texts) == 0 {
		return "no address"
	}
	return strings.Join(texts, ", ")
}

// card makes the word of a network card, and tells whether it is a static one.
func (s *Snapshot) card(l Link, c *Carried) (static bool) {
	v4, v6 := s.addresses(l.Index, true), s.addresses(l.Index, false)
	route, routed := s.defaultRoute(l.Index, true)
	var main Address
	switch {
	case routed && route.From == FromDHCP || hasLease(v4):
		c.word(dhcpWord(l), l.Name, true)
		v4 = permanent(v4)
	case len(v4) > 0:
		main, v4 = pick(v4, route)
		static = c.word(staticWord(l, main, route), fmt.Sprintf("%s of %s", main.Prefix, l.Name), routed)
	case len(permanent(v6)) > 0:
		route, routed = s.defaultRoute(l.Index, false)
		main, v6 = pick(permanent(v6), route)
		static = c.word(staticWord(l, main, route), fmt.Sprintf("%s of %s", main.Prefix, l.Name), routed)
	}
	for _, a := range append(permanent(v4), permanent(v6)...) {
		c.lose(false, "address %s of %s: a further address of a card is not carried yet", a.Prefix, l.Name)
	}
	return static
}

func hasLease(list []Address) bool { return len(permanent(list)) < len(list) }

func permanent(list []Address) []Address {
	var kept []Address
	for _, a := range list {
		if a.Permanent {
			kept = append(kept, a)
		}
	}
	return kept
}

// pick takes the address by which the gateway is reached, else the first.
func pick(list []Address, route Route) (main Address, others []Address) {
	at := 0
	for i, a := range list {
		if route.Gateway.IsValid() && (a.Prefix.Contains(route.Gateway) || a.Peer.IsValid() && a.Peer.Contains(route.Gateway)) {
			at = i
			break
		}
	}
	others = append(append([]Address{}, list[:at]...), list[at+1:]...)
	return list[at], others
}

// device is a MAC address with dashes, which no field separator breaks.
func device(l Link) string { return strings.ReplaceAll(l.ID().String(), ":", "-") }

func dhcpWord(l Link) string {
	word := "ip=" + device(l) + ":dhcp"
	if l.MTU != usualMTU {
		word += ":" + strconv.Itoa(l.MTU)
	}
	return word
}

func staticWord(l Link, a Address, route Route) string {
	peer, gateway := "", ""
	if a.Peer.IsValid() {
		peer = bracket(a.Peer.Addr()) + "/" + strconv.Itoa(a.Peer.Bits())
	}
	if route.Gateway.IsValid() {
		gateway = bracket(route.Gateway)
	}
	word := fmt.Sprintf("ip=%s:%s:%s:%d::%s:none", bracket(a.Prefix.Addr()), peer, gateway, a.Prefix.Bits(), device(l))
	if l.MTU != usualMTU {
		word += ":" + strconv.Itoa(l.MTU)
	}
	return word
}

func bracket(a netip.Addr) string {
	if a.Is4() {
		return a.String()
	}
	return "[" + a.WithZone("").String() + "]"
}

// otherRoutes names the routes that a person made beside the default one.
func (s *Snapshot) otherRoutes(c *Carried) {
	for _, r := range s.Routes {
		if !r.Default() && r.From == FromPerson {
			c.lose(false, "route to %s by %s: not carried yet", r.To, r.Gateway)
		}
	}
}
