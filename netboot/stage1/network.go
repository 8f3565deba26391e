package stage1

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"xnodeos.org/internal/nodeconfig"
)

// Link is a network card.
type Link struct {
	Index   int
	Name    string
	MAC     net.HardwareAddr // that it answers to now
	PermMAC net.HardwareAddr // that it was made with; nil if it does not tell
	Carrier bool
}

// ID is the MAC address that stays the same in the system.
func (l Link) ID() net.HardwareAddr {
	if len(l.PermMAC) > 0 {
		return l.PermMAC
	}
	return l.MAC
}

func (l Link) String() string { return fmt.Sprintf("%s (%s)", l.Name, l.ID()) }

// Lease is what a link was given.
type Lease struct {
	Address netip.Prefix
	Peer    netip.Prefix // of a point-to-point link; zero if none
	Gateway netip.Addr   // zero if none
	DNS     []netip.Addr
	MTU     int // 0: leave it
	From    nodeconfig.Method
}

// NetworkPlan is what command line and node config ask of the network. With no
// rule every card asks by DHCP; with rules only the cards that they name work.
type NetworkPlan struct {
	Rules []nodeconfig.Interface
	DNS   []netip.Addr
}

// PlanNetwork reads dracut's words. The words of the command line win over the
// file as a whole. A word that cannot be carried out becomes a note.
func PlanNetwork(cmdline []string, config *nodeconfig.Config) (NetworkPlan, []string) {
	var plan NetworkPlan
	var notes []string
	var words []nodeconfig.Word
	for _, text := range cmdline {
		w, err := nodeconfig.ParseWord(text)
		if err != nil {
			notes = append(notes, err.Error())
			continue
		}
		words = append(words, w)
	}
	if len(cmdline) == 0 {
		var err error
		if words, err = config.Network(); err != nil {
			notes = append(notes, err.Error())
		}
	}
	for _, w := range words {
		if err := w.Supported(); err != nil {
			notes = append(notes, err.Error())
			continue
		}
		if w.IP != nil {
			plan.Rules = append(plan.Rules, *w.IP)
		} else {
			plan.DNS = append(plan.DNS, w.Nameserver)
		}
	}
	return plan, notes
}

// withHostname gives the config the hostname of an ip= word: one of the command
// line wins over the config, one of its own network file fills a gap.
func withHostname(c *nodeconfig.Config, plan NetworkPlan, fromCmdline bool) *nodeconfig.Config {
	i := slices.IndexFunc(plan.Rules, func(r nodeconfig.Interface) bool { return r.Hostname != "" })
	if i < 0 || !fromCmdline && c.Hostname() != "" {
		return c
	}
	files := maps.Clone(c.Files)
	if files == nil {
		files = map[string][]byte{}
	}
	files["hostname"] = []byte(plan.Rules[i].Hostname + "\n")
	return &nodeconfig.Config{Files: files}
}

// dhcpRule is what a card without words does.
var dhcpRule = nodeconfig.Interface{Method: nodeconfig.MethodDHCP}

// Assign says which rule each link follows, by index. A static rule that names
// no interface goes to the first link with carrier, as in dracut, and stays with
// it: before is what Assign returned last time.
func (p NetworkPlan) Assign(links []Link, before map[int]nodeconfig.Interface) map[int]nodeconfig.Interface {
	rules := make(map[int]nodeconfig.Interface)
	for _, l := range links {
		if r, ok := before[l.Index]; ok {
			rules[l.Index] = r
		} else if r, ok := p.named(l); ok {
			rules[l.Index] = r
		} else if len(p.Rules) == 0 {
			rules[l.Index] = dhcpRule
		}
	}
	for _, r := range p.Rules {
		if !r.Device.Any() {
			continue
		}
		for _, l := range links {
			if _, taken := rules[l.Index]; taken || r.Method == nodeconfig.MethodStatic && !l.Carrier {
				continue
			}
			if r.Method == nodeconfig.MethodStatic && holds(rules, r) {
				break
			}
			rules[l.Index] = r
		}
	}
	return rules
}

func (p NetworkPlan) named(l Link) (nodeconfig.Interface, bool) {
	for _, r := range p.Rules {
		d := r.Device
		if d.Name != "" && d.Name == l.Name || d.MAC != nil && (slices.Equal(d.MAC, l.MAC) || slices.Equal(d.MAC, l.PermMAC)) {
			return r, true
		}
	}
	return nodeconfig.Interface{}, false
}

// holds says whether a static rule without an interface was given out already:
// two links with one address help nobody.
func holds(rules map[int]nodeconfig.Interface, r nodeconfig.Interface) bool {
	for _, o := range rules {
		if o.Device.Any() && o.Method == r.Method && o.Address == r.Address {
			return true
		}
	}
	return false
}

// Missing returns the rules that name an interface which is not there.
func (p NetworkPlan) Missing(links []Link) []nodeconfig.Interface {
	var missing []nodeconfig.Interface
	for _, r := range p.Rules {
		one := NetworkPlan{Rules: []nodeconfig.Interface{r}}
		if !r.Device.Any() && !slices.ContainsFunc(links, func(l Link) bool { _, ok := one.named(l); return ok }) {
			missing = append(missing, r)
		}
	}
	return missing
}

// staticLease is the lease of a rule that brings its own address.
func staticLease(r nodeconfig.Interface, dns []netip.Addr) Lease {
	return Lease{Address: r.Address, Peer: r.Peer, Gateway: r.Gateway, MTU: r.MTU,
		DNS: append(slices.Clone(r.DNS), dns...), From: nodeconfig.MethodStatic}
}

// netDriver does to the machine what Network decides.
type netDriver interface {
	// Links lists the Ethernet cards.
	Links() ([]Link, error)
	// Up sets MAC and MTU where the rule has one, and the link up.
	Up(l Link, r nodeconfig.Interface) error
	// DHCP asks for a lease once, with retries of some seconds.
	DHCP(ctx context.Context, l Link) (Lease, error)
	// Configure gives the link its address and routes.
	Configure(l Link, lease Lease) error
	// Down takes all addresses off the link and sets it down.
	Down(l Link) error
}

// LinkResult is what the system is told of a link.
type LinkResult struct {
	Link  Link
	Rule  nodeconfig.Interface
	Lease *Lease // nil where none came
}

// Network brings up the links of the machine while the payload is looked for.
type Network struct {
	driver netDriver
	plan   NetworkPlan
	clock  func() time.Duration
	con    *Console

	// Changed tells that a link got its address.
	Changed *signal

	jobs sync.WaitGroup

	mu    sync.Mutex
	links []Link
	rules map[int]nodeconfig.Interface
	up    map[int]upLink
	busy  map[int]bool
	lease map[int]*Lease
}

// upLink is a link that was set up, and when.
type upLink struct {
	link Link
	at   time.Duration
}

// NewNetwork returns a network that is down.
func NewNetwork(driver netDriver, plan NetworkPlan, clock func() time.Duration, con *Console) *Network {
	return &Network{driver: driver, plan: plan, clock: clock, con: con, Changed: newSignal(),
		up: map[int]upLink{}, busy: map[int]bool{}, lease: map[int]*Lease{}}
}

// Run works until the context ends, and returns when no goroutine of its own is
// left. changed wakes it.
func (n *Network) Run(ctx context.Context, changed *signal) {
	defer n.jobs.Wait()
	said := ""
	for ctx.Err() == nil {
		wake := changed.C()
		if err := n.step(ctx); err != nil && err.Error() != said {
			said = err.Error()
			n.con.Sayf("network: %s", said)
		}
		pause(ctx, wake, linkPoll)
	}
}

const (
	// linkPoll is how soon a new carrier is noticed.
	linkPoll = 50 * time.Millisecond
	// carrierTime is how long a link that was just set up may still see its cable.
	// Virtual cards do so at once; for others the hand-over does not wait.
	carrierTime = 300 * time.Millisecond
)

func (n *Network) step(ctx context.Context) error {
	links, err := n.driver.Links()
	if err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links = append([]Link{}, links...) // not nil from now on
	n.rules = n.plan.Assign(links, n.rules)
	for _, l := range links {
		r, ok := n.rules[l.Index]
		_, isUp := n.up[l.Index]
		if !isUp && (ok || n.needsCarrier()) {
			if err := n.driver.Up(l, r); err != nil {
				return err
			}
			n.up[l.Index] = upLink{l, n.clock()}
			continue // carrier is seen at the next look
		}
		if !ok || !l.Carrier || n.busy[l.Index] || n.lease[l.Index] != nil {
			continue
		}
		n.busy[l.Index] = true
		n.jobs.Go(func() { n.serve(ctx, l, r) })
	}
	return nil
}

// needsCarrier says whether links must be up only to see where the cable is.
func (n *Network) needsCarrier() bool {
	return slices.ContainsFunc(n.plan.Rules, func(r nodeconfig.Interface) bool {
		return r.Device.Any() && r.Method == nodeconfig.MethodStatic && !holds(n.rules, r)
	})
}

// serve gives one link its address.
func (n *Network) serve(ctx context.Context, l Link, r nodeconfig.Interface) {
	lease := staticLease(r, n.plan.DNS)
	err := guard(func() error {
		if r.Method == nodeconfig.MethodDHCP {
			var err error
			if lease, err = n.askDHCP(ctx, l); err != nil {
				return err
			}
			lease.DNS = append(lease.DNS, n.plan.DNS...)
		}
		return n.driver.Configure(l, lease)
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	if err != nil {
		if ctx.Err() == nil {
			n.con.Sayf("%s: %v", l, err)
		}
		// A link that failed is not tried again here: busy stays. The system does.
		return
	}
	n.busy[l.Index], n.lease[l.Index] = false, &lease
	n.con.Sayf("%s: %s", l, lease)
	n.Changed.Notify()
}

// String describes a lease on the console.
func (l Lease) String() string {
	text := fmt.Sprintf("%s by %s", l.Address, map[bool]string{true: "dhcp", false: "the command line or node config"}[l.From == nodeconfig.MethodDHCP])
	if l.Gateway.IsValid() {
		text += fmt.Sprintf(", gateway %s", l.Gateway)
	}
	if len(l.DNS) > 0 {
		text += fmt.Sprintf(", dns %v", l.DNS)
	}
	return text
}

// Bounds of asking for a lease again: a switch port may take 30 s to forward.
const (
	dhcpAgainFirst = time.Second
	dhcpAgainMost  = 8 * time.Second
)

func (n *Network) askDHCP(ctx context.Context, l Link) (Lease, error) {
	wait := dhcpAgainFirst
	for {
		lease, err := n.driver.DHCP(ctx, l)
		if err == nil || ctx.Err() != nil {
			return lease, err
		}
		n.con.Debugf("%s: %v", l, err)
		pause(ctx, nil, wait)
		wait = min(2*wait, dhcpAgainMost)
	}
}

// Waiting says whether a link with a cable may still get an address.
func (n *Network) Waiting() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, l := range n.links {
		if _, ok := n.rules[l.Index]; !ok || n.lease[l.Index] != nil {
			continue
		}
		if l.Carrier || n.clock()-n.up[l.Index].at < carrierTime {
			return true
		}
	}
	return n.links == nil
}

// Results returns what became of each link that has a rule, by name.
func (n *Network) Results() []LinkResult {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []LinkResult
	for _, l := range n.links {
		if r, ok := n.rules[l.Index]; ok {
			list = append(list, LinkResult{Link: l, Rule: r, Lease: n.lease[l.Index]})
		}
	}
	slices.SortFunc(list, func(a, b LinkResult) int { return a.Link.Index - b.Link.Index })
	return list
}

// Notes says what of the plan could not be done.
func (n *Network) Notes() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var notes []string
	for _, r := range n.plan.Missing(n.links) {
		notes = append(notes, fmt.Sprintf("no network interface %s: there are %v", r.Device, n.links))
	}
	return notes
}

// Down undoes everything, for the system: kernels before 6.2 cannot rename a
// link that is up. Run must have returned.
func (n *Network) Down() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, u := range n.up {
		if err := n.driver.Down(u.link); err != nil {
			n.con.Sayf("%s: %v", u.link, err)
		}
	}
}
