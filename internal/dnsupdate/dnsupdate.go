// Package dnsupdate publishes an announcement in DNS: by an RFC 2136 UPDATE
// with a TSIG key, which every common name server takes and which needs rights
// for one zone only, or by the HTTP API of PowerDNS, whose key rules the whole
// server.
//
// At the name it replaces announcements and leaves every other text alone. It
// signs nothing and judges nothing; no error and no printed value shows a key.
package dnsupdate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// DefaultTTL suits an announcement: nodes ask again when it is over.
	DefaultTTL = 60 * time.Second

	// mark begins each text that a publication replaces.
	mark = "v=xnode1"

	timeout = 10 * time.Second
	// fudge is how far apart the two clocks may be (RFC 8945 section 10).
	fudge = 300
)

// Record is one TXT record.
type Record struct {
	Name string        // owner name, with or without a dot at its end
	TTL  time.Duration // whole seconds; 0 means DefaultTTL
	Text string        // at most 255 bytes, printable ASCII
}

// Secret is a key. No verb prints it.
type Secret string

// Format writes a word in place of the key.
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, "redacted") }

// LogValue is the same, for slog.
func (Secret) LogValue() slog.Value { return slog.StringValue("redacted") }

func (r Record) ttl() uint32 {
	if r.TTL <= 0 {
		return uint32(DefaultTTL / time.Second)
	}
	return uint32(min(r.TTL/time.Second, 1<<31-1)) //nolint:gosec // bounded on this line
}

// rr makes the record, after a look at what would be cut or changed on the way.
func (r Record) rr() (*dns.TXT, error) {
	if _, ok := dns.IsDomainName(r.Name); !ok || r.Name == "" {
		return nil, fmt.Errorf("%q is no domain name", r.Name)
	}
	if len(r.Text) == 0 || len(r.Text) > 255 {
		return nil, fmt.Errorf("the text has %d bytes; one string of a TXT record holds 1 to 255", len(r.Text))
	}
	if strings.ContainsFunc(r.Text, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
		return nil, fmt.Errorf("the text %q has characters that announcements do not have", r.Text)
	}
	return &dns.TXT{
		Hdr: dns.RR_Header{Name: dns.CanonicalName(r.Name), Rrtype: dns.TypeTXT, Class: dns.ClassINET, Ttl: r.ttl()},
		Txt: []string{r.Text},
	}, nil
}

// Update publishes by RFC 2136.
type Update struct {
	// Server is the primary name server, "address:port".
	Server string
	// Zone is the zone that holds the name; "" asks the server for it.
	Zone string
	// KeyName and Key are the TSIG key, the latter in base64; hmac-sha256.
	KeyName string
	Key     Secret
	// Now is the clock: a signed message carries the time.
	Now func() time.Time
}

// ServerError is a server that refused. Code is DNS's response code.
type ServerError struct {
	Server string
	Code   int
	Remedy string
}

func (e *ServerError) Error() string {
	return fmt.Sprintf("%s answers %s%s", e.Server, dns.RcodeToString[e.Code], e.Remedy)
}

// Publish replaces the announcements at the record's name by it, in one
// message: nobody sees none or two. It can be repeated.
func (u *Update) Publish(ctx context.Context, r Record) error {
	if err := u.publish(ctx, r); err != nil {
		return fmt.Errorf("publish at %s by DNS update: %w", strings.TrimSuffix(r.Name, "."), err)
	}
	return nil
}

func (u *Update) publish(ctx context.Context, r Record) error {
	rr, err := r.rr()
	if err != nil {
		return err
	}
	old, err := ask(ctx, u.Server, rr.Hdr.Name, dns.TypeTXT)
	if err != nil {
		return err
	}
	zone := dns.CanonicalName(u.Zone)
	if u.Zone == "" {
		if zone, err = zoneOf(old, u.Server, rr.Hdr.Name); err != nil {
			return err
		}
	}
	m := new(dns.Msg).SetUpdate(zone)
	var stale []dns.RR
	for _, have := range old.Answer {
		if txt, ok := have.(*dns.TXT); ok && strings.HasPrefix(strings.Join(txt.Txt, ""), mark) && dns.CanonicalName(txt.Hdr.Name) == rr.Hdr.Name {
			stale = append(stale, txt)
		}
	}
	m.Remove(stale)
	m.Insert([]dns.RR{rr})
	return u.send(ctx, m)
}

// zoneOf reads the zone's name off an answer: a name without TXT records comes
// with the zone's SOA, one with them may need to be asked for it.
func zoneOf(m *dns.Msg, server, name string) (string, error) {
	for _, rr := range m.Ns {
		switch rr := rr.(type) {
		case *dns.SOA:
			return dns.CanonicalName(rr.Hdr.Name), nil
		case *dns.NS:
			return dns.CanonicalName(rr.Hdr.Name), nil
		}
	}
	return "", fmt.Errorf("%s does not say which zone holds %q; name the zone", server, name)
}

func (u *Update) send(ctx context.Context, m *dns.Msg) error {
	name := dns.CanonicalName(u.KeyName)
	m.SetTsig(name, dns.HmacSHA256, fudge, u.Now().Unix())
	// TCP, because a lost answer would leave the outcome open.
	c := &dns.Client{Net: "tcp", Timeout: timeout, TsigSecret: map[string]string{name: string(u.Key)}}
	reply, _, err := c.ExchangeContext(ctx, m, u.Server)
	switch {
	case reply != nil && reply.Rcode != dns.RcodeSuccess:
		return &ServerError{u.Server, reply.Rcode, u.remedy(reply)}
	case err != nil:
		return fmt.Errorf("ask %s: %w", u.Server, err)
	case reply.IsTsig() == nil:
		return fmt.Errorf("the answer of %s is not signed with the key %q", u.Server, u.KeyName)
	}
	return nil
}

func (u *Update) remedy(reply *dns.Msg) string {
	if sig := reply.IsTsig(); sig != nil && sig.Error != dns.RcodeSuccess {
		switch sig.Error {
		case dns.RcodeBadTime:
			return " (BADTIME); set the clock of this machine or of the server"
		case dns.RcodeBadKey, dns.RcodeBadSig:
			return fmt.Sprintf(" (%s); the server knows no key %q with this secret and hmac-sha256", dns.RcodeToString[int(sig.Error)], u.KeyName)
		}
	}
	switch reply.Rcode {
	case dns.RcodeNotAuth:
		return fmt.Sprintf("; it does not serve this zone, or knows no key %q with this secret", u.KeyName)
	case dns.RcodeRefused:
		// PowerDNS says no more than this, whatever it minds.
		return fmt.Sprintf("; it takes no update with the key %q: compare name and secret (hmac-sha256) and both clocks, and look at its settings "+
			"(PowerDNS: dnsupdate=yes, allow-dnsupdate-from, and TSIG-ALLOW-DNSUPDATE of the zone)", u.KeyName)
	case dns.RcodeNotZone:
		return "; the name is not in the zone"
	}
	return ""
}

// ask asks one server for what it holds itself.
func ask(ctx context.Context, server, name string, kind uint16) (*dns.Msg, error) {
	m := new(dns.Msg).SetQuestion(name, kind)
	m.RecursionDesired = false
	c := &dns.Client{Net: "tcp", Timeout: timeout}
	reply, _, err := c.ExchangeContext(ctx, m, server)
	switch {
	case err != nil:
		return nil, fmt.Errorf("ask %s: %w", server, err)
	case reply.Rcode != dns.RcodeSuccess && reply.Rcode != dns.RcodeNameError:
		return nil, &ServerError{server, reply.Rcode, ""}
	case len(reply.Question) != 1 || dns.CanonicalName(reply.Question[0].Name) != name || reply.Question[0].Qtype != kind:
		return nil, errors.New(server + " answers another question")
	}
	return reply, nil
}
