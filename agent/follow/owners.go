package follow

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/miekg/dns"
)

// askOwners finds the name servers of a name through a resolver and asks each
// of them. It follows an alias out of their zone the same way.
func (s *search) askOwners(ctx context.Context, resolver, name string, hops int) *Answer {
	if hops == 0 {
		s.fault("", Loop, fmt.Errorf("more than %d CNAMEs", maxHops))
		return nil
	}
	servers, err := s.owners(ctx, resolver, name)
	if err != nil {
		s.add(err)
		return nil
	}
	for _, server := range servers {
		reply, err := s.exchange(ctx, server, query{name: name, kind: dns.TypeTXT})
		if err != nil {
			s.add(err)
			continue
		}
		answer, next, err := reply.texts(name)
		switch {
		case err != nil:
			s.add(err)
		case answer != nil:
			answer = s.accepted(answer)
		default:
			answer = s.askOwners(ctx, resolver, next, hops-1)
		}
		if answer != nil || ctx.Err() != nil {
			return answer
		}
	}
	return nil
}

// owners returns the addresses of the name servers of the zone that holds name:
// the nearest name at or above it with NS records.
func (s *search) owners(ctx context.Context, resolver, name string) ([]string, error) {
	for zone := name; ; {
		r, err := s.exchange(ctx, resolver, query{name: zone, kind: dns.TypeNS, recurse: true})
		if err != nil {
			return nil, err
		}
		var hosts []string
		for _, rr := range r.Answer {
			if ns, ok := rr.(*dns.NS); ok && dns.CanonicalName(ns.Hdr.Name) == zone && len(hosts) < maxServers {
				hosts = append(hosts, dns.CanonicalName(ns.Ns))
			}
		}
		if len(hosts) > 0 {
			return s.addresses(ctx, resolver, zone, hosts)
		}
		_, parent, ok := strings.Cut(zone, ".")
		if !ok || parent == "" {
			return nil, &Fault{resolver, NoServer, fmt.Errorf("it knows no name servers for %q or a name above it", name)}
		}
		zone = parent
	}
}

func (s *search) addresses(ctx context.Context, resolver, zone string, hosts []string) ([]string, error) {
	port := s.client.Port
	if port == "" {
		port = "53"
	}
	var servers []string
	var faults []error
	for _, host := range hosts {
		for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
			r, err := s.exchange(ctx, resolver, query{name: host, kind: kind, recurse: true})
			if err != nil {
				faults = append(faults, err)
				continue
			}
			for _, rr := range r.Answer {
				var ip net.IP
				switch a := rr.(type) {
				case *dns.A:
					ip = a.A
				case *dns.AAAA:
					ip = a.AAAA
				default:
					continue
				}
				if len(servers) < maxServers {
					servers = append(servers, net.JoinHostPort(ip.String(), port))
				}
			}
		}
	}
	if len(servers) == 0 {
		return nil, &Fault{resolver, NoServer, fmt.Errorf("no address of the name servers of %q: %w", zone, errors.Join(faults...))}
	}
	return servers, nil
}
