package follow

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/miekg/dns"
)

const (
	// DefaultTimeout is that of one try.
	DefaultTimeout = 3 * time.Second
	// DefaultLimit is that of a whole lookup, however many servers it asks.
	DefaultLimit = time.Minute
	// DefaultRounds is how often the list of servers is gone through: a lost
	// datagram is no fault of the server.
	DefaultRounds = 2

	maxHops    = 8
	maxQueries = 200 // of one lookup: name servers can name many others
	maxServers = 16
	maxTexts   = 64
	maxTextLen = 4096
)

// Client asks. It keeps nothing between lookups, and can be used by several
// goroutines. The zero value has nobody to ask.
type Client struct {
	// Resolvers are recursive servers as "address:port" or "address", asked in
	// this order.
	Resolvers []string
	// Authoritative asks the name's own name servers instead, which Resolvers
	// only find: no cache in between can hold an answer back.
	Authoritative bool
	// Port is that of the own name servers; "" means 53.
	Port string
	// Timeout is that of one try, over UDP and again over TCP; 0 means
	// DefaultTimeout.
	Timeout time.Duration
	// Limit is the time of a whole lookup; 0 means DefaultLimit.
	Limit time.Duration
	// Rounds is how often all servers are tried; 0 means DefaultRounds.
	Rounds int
	// ID makes the random id of a query; nil means dns.Id, which asks the
	// kernel.
	ID func() uint16
}

// Lookup returns the first answer with a TXT record. The error is
// *NoNewsError, or the context's.
func (c *Client) Lookup(ctx context.Context, name string) (*Answer, error) {
	return c.LookupGood(ctx, name, nil)
}

// LookupGood is Lookup, but goes on to the next server after an answer that
// good does not accept: one resolver that lies must not silence the others. The
// errors of good become faults of the kind Unsuitable.
func (c *Client) LookupGood(ctx context.Context, name string, good func(*Answer) error) (*Answer, error) {
	s := &search{client: c, news: &NoNewsError{Name: name}, good: good}
	if _, ok := dns.IsDomainName(name); !ok || name == "" {
		s.fault("", BadName, fmt.Errorf("%q is no domain name", name))
		return nil, s.news
	}
	limit := c.Limit
	if limit <= 0 {
		limit = DefaultLimit
	}
	inner, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	answer := s.run(inner, dns.CanonicalName(name))
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case answer == nil:
		return nil, s.news
	}
	return answer, nil
}

// Resolvers reads the servers of a resolv.conf(5), as "address:port".
func Resolvers(conf io.Reader) ([]string, error) {
	c, err := dns.ClientConfigFromReader(conf)
	if err != nil {
		return nil, fmt.Errorf("read resolv.conf: %w", err)
	}
	var out []string
	for _, server := range c.Servers {
		out = append(out, net.JoinHostPort(server, c.Port))
	}
	return out, nil
}

// search is one lookup.
type search struct {
	client *Client
	news   *NoNewsError
	good   func(*Answer) error
	asked  int
}

// exchange is the client's, as long as this lookup may ask.
func (s *search) exchange(ctx context.Context, server string, q query) (*reply, error) {
	if s.asked++; s.asked > maxQueries {
		return nil, &Fault{server, Loop, fmt.Errorf("more than %d queries for one name", maxQueries)}
	}
	return s.client.exchange(ctx, server, q)
}

func (s *search) fault(server string, kind Kind, err error) {
	s.news.Faults = append(s.news.Faults, &Fault{server, kind, err})
}

// run returns nil if there are no news.
func (s *search) run(ctx context.Context, name string) *Answer {
	rounds := s.client.Rounds
	if rounds <= 0 {
		rounds = DefaultRounds
	}
	if len(s.client.Resolvers) == 0 {
		s.fault("", NoServer, errors.New("no resolver is configured; name some in agent.toml, [dns] resolvers"))
		return nil
	}
	dead := map[string]bool{}
	for range rounds {
		for _, server := range s.client.Resolvers {
			server = endpoint(server)
			if dead[server] {
				continue
			}
			answer, retry := s.ask(ctx, server, name)
			if answer != nil || ctx.Err() != nil {
				return answer
			}
			// What a server said on purpose it will say again.
			dead[server] = !retry
		}
	}
	return nil
}

// endpoint adds DNS's port where none is named.
func endpoint(server string) string {
	if _, _, err := net.SplitHostPort(server); err == nil {
		return server
	}
	return net.JoinHostPort(strings.Trim(server, "[]"), "53")
}

// ask looks the name up with the help of one resolver.
func (s *search) ask(ctx context.Context, resolver, name string) (answer *Answer, retry bool) {
	before := len(s.news.Faults)
	if s.client.Authoritative {
		answer = s.askOwners(ctx, resolver, name, maxHops)
	} else {
		answer = s.askRecursive(ctx, resolver, name)
	}
	for _, f := range s.news.Faults[before:] {
		if f.Kind == Silent || f.Kind == Network {
			retry = true
		}
	}
	return answer, retry
}

func (s *search) askRecursive(ctx context.Context, resolver, name string) *Answer {
	reply, err := s.exchange(ctx, resolver, query{name: name, kind: dns.TypeTXT, recurse: true})
	if err != nil {
		s.add(err)
		return nil
	}
	answer, next, err := reply.texts(name)
	if err == nil && answer == nil {
		err = &Fault{resolver, NoText, fmt.Errorf("the chain of names ends at %q, which it does not resolve", next)}
	}
	if err != nil {
		s.add(err)
		return nil
	}
	return s.accepted(answer)
}

// accepted returns the answer if the caller accepts it, else nil.
func (s *search) accepted(answer *Answer) *Answer {
	if s.good != nil {
		if err := s.good(answer); err != nil {
			s.fault(answer.From, Unsuitable, err)
			return nil
		}
	}
	return answer
}

// add takes the error of an exchange, which is a *Fault.
func (s *search) add(err error) {
	var f *Fault
	if !errors.As(err, &f) {
		f = &Fault{Kind: Network, Err: err}
	}
	s.news.Faults = append(s.news.Faults, f)
}

// reply is a message that answers our question, and who sent it.
type reply struct {
	*dns.Msg

	server, from string
}

// texts follows the chain of CNAMEs from name and returns the texts at its end.
// Without any, next is where the chain leaves what this server told.
func (r *reply) texts(name string) (answer *Answer, next string, err error) {
	ttl := uint32(1<<31 - 1)
	for range maxHops {
		var texts []string
		for _, rr := range r.Answer {
			txt, ok := rr.(*dns.TXT)
			if !ok || dns.CanonicalName(txt.Hdr.Name) != name || txt.Hdr.Class != dns.ClassINET {
				continue
			}
			text := join(txt.Txt)
			if len(texts) == maxTexts || len(text) > maxTextLen {
				return nil, "", &Fault{r.server, Oversized, fmt.Errorf("more than %d texts, or one of more than %d bytes", maxTexts, maxTextLen)}
			}
			texts, ttl = append(texts, text), min(ttl, txt.Hdr.Ttl)
		}
		if texts != nil {
			return &Answer{Texts: texts, TTL: time.Duration(ttl) * time.Second, From: r.from, Secure: r.AuthenticatedData}, name, nil
		}
		target := ""
		for _, rr := range r.Answer {
			if alias, ok := rr.(*dns.CNAME); ok && dns.CanonicalName(alias.Hdr.Name) == name {
				target, ttl = dns.CanonicalName(alias.Target), min(ttl, alias.Hdr.Ttl)
			}
		}
		if target == "" {
			return nil, name, r.nothing(name)
		}
		name = target
	}
	return nil, "", &Fault{r.server, Loop, fmt.Errorf("more than %d CNAMEs", maxHops)}
}

// nothing is the fault of a reply that has neither text nor alias at name.
func (r *reply) nothing(name string) error {
	switch {
	case r.Rcode == dns.RcodeNameError:
		return &Fault{r.server, NoName, fmt.Errorf("%q does not exist", name)}
	case dns.CanonicalName(r.Question[0].Name) == name:
		return &Fault{r.server, NoText, fmt.Errorf("%q has no TXT record", name)}
	}
	return nil
}

// join puts the strings of one record together with nothing between (RFC 7208
// section 3.3), and undoes the library's escapes.
func join(parts []string) string {
	text := strings.Join(parts, "")
	if !strings.Contains(text, `\`) {
		return text
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		switch rest := text[i+1:]; {
		case text[i] != '\\' || rest == "":
			out = append(out, text[i])
		case len(rest) >= 3 && isDigit(rest[0]) && isDigit(rest[1]) && isDigit(rest[2]):
			out = append(out, (rest[0]-'0')*100+(rest[1]-'0')*10+rest[2]-'0')
			i += 3
		default:
			out = append(out, rest[0])
			i++
		}
	}
	return string(out)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }
