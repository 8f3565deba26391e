package dnsupdate_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"xnodeos.org/internal/dnsupdate"
	"xnodeos.org/internal/testkit/pdns"
)

const name = "stable._xnode.fleet.example.org"

// texts asks the server for what it holds.
func texts(t *testing.T, server, name string) (texts []string, ttl uint32) {
	t.Helper()
	reply, _, err := (&dns.Client{Net: "tcp", Timeout: 10 * time.Second}).ExchangeContext(t.Context(), new(dns.Msg).SetQuestion(dns.Fqdn(name), dns.TypeTXT), server)
	if err != nil {
		t.Fatal(err)
	}
	for _, rr := range reply.Answer {
		texts, ttl = append(texts, strings.Join(rr.(*dns.TXT).Txt, "")), rr.Header().Ttl
	}
	slices.Sort(texts)
	return texts, ttl
}

type publisher interface {
	Publish(ctx context.Context, r dnsupdate.Record) error
}

// TestPublish holds both ways to the same behaviour, at the real server.
func TestPublish(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"update", "api"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			s := pdns.Run(t, pdns.Options{Records: []pdns.Record{{Name: name, Type: "TXT", Content: `"v=spf1 -all"`, TTL: 300}}})
			var p publisher = s.Update()
			if way == "api" {
				p = s.PowerDNS()
			}
			for i, r := range []dnsupdate.Record{
				{Name: name, Text: "v=xnode1; s=1; " + strings.Repeat("x", 230)},
				{Name: name + ".", Text: "v=xnode1; s=2", TTL: 5 * time.Second},
				{Name: strings.ToUpper(name), Text: "v=xnode1; s=3", TTL: 5 * time.Second},
				{Name: name, Text: "v=xnode1; s=3", TTL: 5 * time.Second},
			} {
				if err := p.Publish(t.Context(), r); err != nil {
					t.Fatal(err)
				}
				got, ttl := texts(t, s.Addr, name)
				if diff := cmp.Diff([]string{"v=spf1 -all", r.Text}, got); diff != "" {
					t.Errorf("publication %d (-want +got):\n%s", i+1, diff)
				}
				want := uint32(r.TTL / time.Second)
				if r.TTL == 0 {
					want = 60
				}
				if ttl != want {
					t.Errorf("publication %d: TTL %d; want %d", i+1, ttl, want)
				}
			}
			if err := p.Publish(t.Context(), dnsupdate.Record{Name: "other." + name, Text: "v=xnode1; s=1"}); err != nil {
				t.Errorf("a new name: %v", err)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	s := pdns.Run(t, pdns.Options{})
	good := dnsupdate.Record{Name: name, Text: "v=xnode1; s=1"}
	with := func(change func(*dnsupdate.Update)) publisher {
		u := s.Update()
		change(u)
		return u
	}
	api := func(change func(*dnsupdate.API)) publisher {
		a := s.PowerDNS()
		change(a)
		return a
	}
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for _, tt := range []struct {
		name   string
		by     publisher
		record dnsupdate.Record
		want   string
	}{
		{"zone found by itself", with(func(u *dnsupdate.Update) { u.Zone = "" }), good, ""},
		{"another secret", with(func(u *dnsupdate.Update) { u.Key = "AAAA" }), good, "with the key \"xnode-update\": compare name and secret"},
		{"another key name", with(func(u *dnsupdate.Update) { u.KeyName = "other" }), good, "with the key \"other\": compare name and secret"},
		{"secret is no base64", with(func(u *dnsupdate.Update) { u.Key = "?!" }), good, "base64"},
		{"wrong clock", with(func(u *dnsupdate.Update) { u.Now = func() time.Time { return time.Unix(1_000_000_000, 0) } }), good, "set the clock|both clocks"},
		{"another zone", with(func(u *dnsupdate.Update) { u.Zone = "example.net" }), good, "it does not serve this zone|REFUSED"},
		{"name outside the zone", s.Update(), dnsupdate.Record{Name: "example.net", Text: "v=xnode1"}, "REFUSED|NOTZONE"},
		{"no server", with(func(u *dnsupdate.Update) { u.Server = strings.TrimPrefix(closed.URL, "http://") }), good, "connection refused"},
		{"long text", s.Update(), dnsupdate.Record{Name: name, Text: strings.Repeat("x", 256)}, "256 bytes"},
		{"odd text", s.Update(), dnsupdate.Record{Name: name, Text: `v=xnode1; "`}, "characters that announcements do not have"},
		{"odd name", s.Update(), dnsupdate.Record{Name: "a..b", Text: "v=xnode1"}, "no domain name"},
		{"another API key", api(func(a *dnsupdate.API) { a.Key = "other" }), good, "does not take this API key"},
		{"another zone by API", api(func(a *dnsupdate.API) { a.Zone = "example.net" }), good, "no zone \"example.net\""},
		{"no zone by API", api(func(a *dnsupdate.API) { a.Zone = "" }), good, "no zone is named"},
		{"no API", api(func(a *dnsupdate.API) { a.URL = closed.URL }), good, "connection refused"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.by.Publish(t.Context(), tt.record)
			if tt.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !slices.ContainsFunc(strings.Split(tt.want, "|"), func(want string) bool { return strings.Contains(err.Error(), want) }) {
				t.Errorf("Publish = %v; want an error with %q", err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), string(s.Key)) || strings.Contains(err.Error(), string(s.APIKey))) {
				t.Errorf("the error shows a key: %v", err)
			}
		})
	}
	if text := fmt.Sprintf("%v %+v %#v %s %q %x", s.Key, s.Update(), s.PowerDNS(), s.APIKey, s.Key, s.Key); strings.Contains(text, string(s.Key)) || strings.Contains(text, string(s.APIKey)) {
		t.Errorf("a key is printed: %s", text)
	}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	one, two := pdns.Run(t, pdns.Options{}), pdns.Run(t, pdns.Options{})
	r := dnsupdate.Record{Name: name, Text: "v=xnode1; s=2"}
	if err := one.Update().Publish(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if err := two.Update().Publish(t.Context(), dnsupdate.Record{Name: name, Text: "v=xnode1; s=1"}); err != nil {
		t.Fatal(err)
	}
	var story []string
	where := map[string]string{one.Addr: "one", two.Addr: "two"}
	seen := func(server string, err error) {
		story = append(story, fmt.Sprintf("%s: %v", where[server], err))
		if err != nil { // the second server learns of it
			if err := two.PowerDNS().Publish(t.Context(), r); err != nil {
				t.Error(err)
			}
		}
	}
	if err := dnsupdate.Watch(t.Context(), []string{one.Addr, two.Addr}, r, 10*time.Millisecond, seen); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"one: <nil>", "two: it still has another announcement there", "two: <nil>"}, story); diff != "" {
		t.Errorf("story (-want +got):\n%s", diff)
	}
	ctx, stop := context.WithCancel(t.Context())
	err := dnsupdate.Watch(ctx, []string{one.Addr}, dnsupdate.Record{Name: "no." + name, Text: "x"}, time.Millisecond, func(string, error) { stop() })
	var unseen *dnsupdate.UnseenError
	if !errors.As(err, &unseen) || len(unseen.Reasons) != 1 || !strings.Contains(err.Error(), "NXDOMAIN") {
		t.Errorf("Watch of what never comes = %v", err)
	}
}
