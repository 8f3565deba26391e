package dnsupdate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Seen is called by Watch when a server shows the record (err is nil), and when
// its reason not to changes.
type Seen func(server string, err error)

// UnseenError says which servers do not show a record.
type UnseenError struct {
	Name    string
	Reasons map[string]error // by server
}

func (e *UnseenError) Error() string {
	var parts []string
	for server, err := range e.Reasons {
		parts = append(parts, server+": "+err.Error())
	}
	slices.Sort(parts)
	return fmt.Sprintf("the record at %q is not to be seen everywhere; %s", e.Name, strings.Join(parts, "; "))
}

// Watch asks the servers, each for itself, until all show exactly this one
// announcement at the name or ctx ends. The waits are every long. The error at
// the end of ctx is *UnseenError.
func Watch(ctx context.Context, servers []string, r Record, every time.Duration, seen Seen) error {
	name := dns.CanonicalName(r.Name)
	open := &UnseenError{Name: strings.TrimSuffix(name, "."), Reasons: map[string]error{}}
	for _, server := range servers {
		open.Reasons[server] = fmt.Errorf("not asked yet")
	}
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		for _, server := range servers {
			last, waiting := open.Reasons[server]
			if !waiting {
				continue
			}
			err := shows(ctx, server, name, r.Text)
			if ctx.Err() != nil {
				return open
			}
			if err == nil {
				delete(open.Reasons, server)
			} else {
				open.Reasons[server] = err
			}
			if seen != nil && (err == nil || err.Error() != last.Error()) {
				seen(server, err)
			}
		}
		if len(open.Reasons) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return open
		case <-ticker.C:
		}
	}
}

// shows says whether a server, asked like a node asks it, has the record.
func shows(ctx context.Context, server, name, text string) error {
	m := new(dns.Msg).SetQuestion(name, dns.TypeTXT)
	c := &dns.Client{Net: "tcp", Timeout: timeout}
	reply, _, err := c.ExchangeContext(ctx, m, server)
	if err != nil {
		return err
	}
	if reply.Rcode != dns.RcodeSuccess {
		return fmt.Errorf("it answers %s", dns.RcodeToString[reply.Rcode])
	}
	var found []string
	for _, rr := range reply.Answer {
		if txt, ok := rr.(*dns.TXT); ok && strings.HasPrefix(strings.Join(txt.Txt, ""), mark) {
			found = append(found, strings.Join(txt.Txt, ""))
		}
	}
	switch {
	case len(found) == 0:
		return fmt.Errorf("it has no announcement there")
	case len(found) > 1:
		return fmt.Errorf("it has %d announcements there", len(found))
	case found[0] != text:
		return fmt.Errorf("it still has another announcement there")
	}
	return nil
}
