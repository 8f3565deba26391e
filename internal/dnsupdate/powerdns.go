package dnsupdate

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/miekg/dns"
)

const maxReply = 64 << 20 // a zone with all its records

// API publishes by the HTTP API of the PowerDNS authoritative server.
type API struct {
	// URL is that of the web server, as in "http://127.0.0.1:8081".
	URL string
	// Key is the api-key of the server.
	Key Secret
	// Zone is the zone that holds the name.
	Zone string
	// Client sends the requests; nil means http.DefaultClient, with a limit of
	// time for each request.
	Client *http.Client
}

type rrset struct {
	Name       string     `json:"name"`
	Type       string     `json:"type"`
	TTL        uint32     `json:"ttl,omitempty"`
	ChangeType string     `json:"changetype,omitempty"`
	Records    []apiEntry `json:"records"`
}

type apiEntry struct {
	Content  string `json:"content"`
	Disabled bool   `json:"disabled"`
}

// Publish replaces the announcements at the record's name by it, in one
// request. It can be repeated.
func (a *API) Publish(ctx context.Context, r Record) error {
	if err := a.publish(ctx, r); err != nil {
		return fmt.Errorf("publish at %s by the PowerDNS API: %w", strings.TrimSuffix(r.Name, "."), err)
	}
	return nil
}

func (a *API) publish(ctx context.Context, r Record) error {
	rr, err := r.rr()
	if err != nil {
		return err
	}
	if a.Zone == "" {
		return errors.New("no zone is named")
	}
	// The filter is new in 4.8; a server that does not know it sends the zone.
	reply, err := a.do(ctx, http.MethodGet, "?rrset_name="+url.QueryEscape(rr.Hdr.Name)+"&rrset_type=TXT", nil)
	if err != nil {
		return err
	}
	var zone struct {
		RRsets []rrset `json:"rrsets"`
	}
	if err := json.Unmarshal(reply, &zone); err != nil {
		return fmt.Errorf("its answer is not JSON as it should be: %w", err)
	}
	set := rrset{Name: rr.Hdr.Name, Type: "TXT", TTL: r.ttl(), ChangeType: "REPLACE", Records: []apiEntry{{Content: `"` + r.Text + `"`}}}
	for _, have := range zone.RRsets {
		if dns.CanonicalName(have.Name) != rr.Hdr.Name || have.Type != "TXT" {
			continue
		}
		for _, entry := range have.Records {
			if !strings.HasPrefix(strings.TrimLeft(entry.Content, `"`), mark) {
				set.Records = append(set.Records, entry)
			}
		}
	}
	body, err := json.Marshal(map[string]any{"rrsets": []rrset{set}})
	if err != nil {
		return err
	}
	_, err = a.do(ctx, http.MethodPatch, "", body)
	return err
}

func (a *API) do(ctx context.Context, method, query string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	target := strings.TrimSuffix(a.URL, "/") + "/api/v1/servers/localhost/zones/" + url.PathEscape(dns.CanonicalName(a.Zone)) + query
	request, err := http.NewRequestWithContext(ctx, method, target, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-API-Key", string(a.Key))
	request.Header.Set("Content-Type", "application/json")
	client := a.Client
	if client == nil {
		client = http.DefaultClient
	}
	reply, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	data, err := io.ReadAll(io.LimitReader(reply.Body, maxReply+1))
	switch {
	case err != nil:
		return nil, err
	case len(data) > maxReply:
		return nil, fmt.Errorf("its answer has more than %d bytes", maxReply)
	case reply.StatusCode == http.StatusUnauthorized || reply.StatusCode == http.StatusForbidden:
		return nil, fmt.Errorf("%s; it does not take this API key, or not from this address (webserver-allow-from)", reply.Status)
	case reply.StatusCode == http.StatusNotFound:
		return nil, fmt.Errorf("%s; it has no zone %q, or api=yes is not set", reply.Status, a.Zone)
	case reply.StatusCode/100 != 2:
		return nil, fmt.Errorf("%s: %.300q", reply.Status, data)
	}
	return data, nil
}
