package follow

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/dnsupdate"
	"xnodeos.org/internal/testkit/pdns"
)

const fleet = "fleet.example.org"

// TestPowerDNS asks the real server for what it can answer.
func TestPowerDNS(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 200)
	records := []pdns.Record{
		{Name: "split." + fleet, Type: "TXT", Content: `"v=xn" "ode1; " "s=1"`, TTL: 90},
		{Name: "odd." + fleet, Type: "TXT", Content: `"a\"b\\c\255;d"`, TTL: 90},
		{Name: "address." + fleet, Type: "A", Content: "127.0.0.1", TTL: 90},
		{Name: "alias." + fleet, Type: "CNAME", Content: "split." + fleet, TTL: 30},
		{Name: "nowhere." + fleet, Type: "CNAME", Content: "gone." + fleet, TTL: 30},
		{Name: "loop." + fleet, Type: "CNAME", Content: "loop." + fleet, TTL: 30},
		{Name: "broken." + fleet, Type: "TXT", Content: `"never closed`, TTL: 30},
		{Name: "outside." + fleet, Type: "CNAME", Content: "host.example.net", TTL: 30},
	}
	var many []string
	for i := range 20 {
		many = append(many, fmt.Sprintf("%02d%s", i, long))
		records = append(records, pdns.Record{Name: "many." + fleet, Type: "TXT", Content: `"` + many[i] + `"`, TTL: 90})
	}
	s := pdns.Run(t, pdns.Options{Records: records})
	c := &Client{Resolvers: []string{s.Addr}, Timeout: 20 * time.Second, Rounds: 1}
	for _, tt := range []struct {
		name  string
		texts []string
		ttl   time.Duration
		from  string
		fault Kind
	}{
		{"split", []string{"v=xnode1; s=1"}, 90 * time.Second, "udp", ""},
		{"SPLIT", []string{"v=xnode1; s=1"}, 90 * time.Second, "udp", ""},
		{"odd", []string{"a\"b\\c\xff;d"}, 90 * time.Second, "udp", ""},
		{"alias", []string{"v=xnode1; s=1"}, 30 * time.Second, "udp", ""},
		{"many", many, 90 * time.Second, "tcp", ""},
		{"gone", nil, 0, "", NoName},
		{"nowhere", nil, 0, "", NoName},
		{"address", nil, 0, "", NoText},
		{"outside", nil, 0, "", NoText},
		{"broken", nil, 0, "", Failed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := c.Lookup(t.Context(), tt.name+"."+fleet)
			if tt.fault != "" {
				var none *NoNewsError
				if !errors.As(err, &none) || len(none.Faults) != 1 || none.Faults[0].Kind != tt.fault || none.Faults[0].Server != s.Addr {
					t.Errorf("Lookup = %v, %v; want no news for the reason %q", got, err, tt.fault)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(got.Texts)
			if diff := cmp.Diff(&Answer{Texts: tt.texts, TTL: tt.ttl, From: s.Addr + " over " + tt.from}, got); diff != "" {
				t.Errorf("Lookup (-want +got):\n%s", diff)
			}
		})
	}
	for name, want := range map[string]Kind{"example.net": Failed, "loop." + fleet: Loop, "a..b": BadName, "": BadName} {
		_, err := c.Lookup(t.Context(), name)
		var none *NoNewsError
		if !errors.As(err, &none) || none.Faults[0].Kind != want && !(want == Loop && none.Faults[0].Kind == Failed) {
			t.Errorf("Lookup(%q) = %v; want the reason %q", name, err, want)
		}
	}
}

// TestPowerDNSUpdate sees what is published at once, over both ways of
// publishing and both of asking.
func TestPowerDNSUpdate(t *testing.T) {
	t.Parallel()
	const name = "stable._xnode." + fleet
	s := pdns.Run(t, pdns.Options{})
	_, port, _ := strings.Cut(s.Addr, ":")
	// The server answers for its own zone also as if it were a resolver.
	asked := &Client{Resolvers: []string{s.Addr}, Timeout: 20 * time.Second}
	owners := &Client{Resolvers: []string{s.Addr}, Authoritative: true, Port: port, Timeout: 20 * time.Second}
	for i := range 4 {
		r := dnsupdate.Record{Name: name, Text: fmt.Sprintf("v=xnode1; s=%d", i+1), TTL: time.Duration(i+5) * time.Second}
		var err error
		if i%2 == 0 {
			err = s.Update().Publish(t.Context(), r)
		} else {
			err = s.PowerDNS().Publish(t.Context(), r)
		}
		if err != nil {
			t.Fatal(err)
		}
		for way, c := range map[string]*Client{"resolver": asked, "authoritative": owners} {
			got, err := c.Lookup(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(&Answer{Texts: []string{r.Text}, TTL: r.TTL, From: s.Addr + " over udp"}, got); diff != "" {
				t.Errorf("%s, publication %d (-want +got):\n%s", way, i+1, diff)
			}
		}
	}
}

func TestResolvers(t *testing.T) {
	t.Parallel()
	got, err := Resolvers(strings.NewReader("# local\nnameserver 192.0.2.1\nnameserver 2001:db8::1\nsearch example.org\n"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"192.0.2.1:53", "[2001:db8::1]:53"}, got); diff != "" {
		t.Errorf("Resolvers (-want +got):\n%s", diff)
	}
	for in, want := range map[string]string{"192.0.2.1": "192.0.2.1:53", "[2001:db8::1]": "[2001:db8::1]:53", "2001:db8::1": "[2001:db8::1]:53", "192.0.2.1:5300": "192.0.2.1:5300"} {
		if got := endpoint(in); got != want {
			t.Errorf("endpoint(%q) = %q; want %q", in, got, want)
		}
	}
	if _, err := (&Client{}).Lookup(t.Context(), "a.org"); err == nil || !strings.Contains(err.Error(), "agent.toml") {
		t.Errorf("without resolvers: %v", err)
	}
}
