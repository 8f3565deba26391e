package follow

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/miekg/dns"

	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/trust"
)

const owner = "stable._xnode.fleet.example.org"

// world is what a node knows: keys, the record that it accepted, and the time.
type world struct {
	t       *testing.T
	signers *trust.Signers
	have    *announce.Record
	clock   announce.Clock
}

func key(t *testing.T, seed byte) *sshsign.Signer {
	t.Helper()
	s, err := sshsign.Open(t.Context(), sshsign.OpenOptions{Path: testkit.KeyFile(t, seed)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, clock: announce.Clock{Now: time.Unix(1795180800+3600, 0), Synchronised: true}}
	var err error
	w.signers, err = trust.Parse([]byte(trust.Line(key(t, 1).PublicKey(), "ops", trust.NamespaceAnnounce) + "\n" +
		trust.Line(key(t, 3).PublicKey(), "images", trust.NamespaceManifest)))
	if err != nil {
		t.Fatal(err)
	}
	if w.have, err = announce.Parse(w.text(func(*announce.Record) {})); err != nil {
		t.Fatal(err)
	}
	return w
}

// signed makes a record of release 1042 that change may turn into another one.
func (w *world) signed(name string, seed byte, change func(*announce.Record)) string {
	w.t.Helper()
	r := announce.Record{
		Sequence: 1042, Commit: strings.Repeat("0123456789", 4), Digest: sha256.Sum256(nil),
		Published: 1795180800, Expires: 1795785600,
	}
	change(&r)
	out, err := announce.Sign(w.t.Context(), name, r, key(w.t, seed))
	if err != nil {
		w.t.Fatal(err)
	}
	return out.Text()
}

func (w *world) text(change func(*announce.Record)) string { return w.signed(owner, 1, change) }

// look does what a node does with an answer, and says how it ended.
func (w *world) look(c *Client) (result string, err error) {
	var found *announce.Record
	var order announce.Order
	_, err = c.LookupGood(w.t.Context(), owner, func(a *Answer) error {
		r, signer, err := announce.Choose(owner, a.Texts, w.signers)
		if err != nil {
			return err
		}
		if err := r.Fresh(signer, w.clock); err != nil {
			return err
		}
		order, err = announce.Admit(w.have, 0, r)
		found = r
		return err
	})
	if err != nil {
		return "no news", err
	}
	result = fmt.Sprintf("%s: release %d", order, found.Sequence)
	if found.Halted {
		result += " halted"
	}
	return result, nil
}

func next(r *announce.Record) { r.Sequence++ }

type attack struct {
	name    string
	servers []script
	want    string // how it ends
	reason  string // of no news: in the text of the error
	quick   bool   // it ends by silence: do not wait long
}

// TestHostile plays what DNS can do to a node, and prints what the node did.
func TestHostile(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	attacks := append(w.records(), w.servers()...)
	reasons := make([]string, len(attacks))
	var group sync.WaitGroup
	for i, a := range attacks {
		c := &Client{Timeout: 30 * time.Second, Rounds: 1}
		if a.quick {
			c.Timeout = 3 * time.Second
		}
		for _, do := range a.servers {
			c.Resolvers = append(c.Resolvers, serve(t, do))
		}
		group.Go(func() {
			got, err := w.look(c)
			reasons[i] = got
			var none *NoNewsError
			if err != nil {
				reasons[i] = got + ": " + tell(err, c.Resolvers)
				if !errors.As(err, &none) || len(none.Faults) != len(a.servers) {
					t.Errorf("%s: %d faults of %d servers: %v", a.name, len(none.Faults), len(a.servers), err)
				}
			}
			var order *announce.OrderError // must stay visible: an equivocation is alarmed
			if strings.HasPrefix(a.name, "equivocating") && (!errors.As(err, &order) || order.Order != announce.Equivocation) {
				t.Errorf("%s: %v hides the equivocation", a.name, err)
			}
			if got != a.want || err != nil && !strings.Contains(err.Error(), a.reason) {
				t.Errorf("%s: %s (%v); want %s %s", a.name, got, err, a.want, a.reason)
			}
		})
	}
	group.Wait()
	var table strings.Builder
	tab := tabwriter.NewWriter(&table, 0, 8, 2, ' ', 0)
	fmt.Fprintf(tab, "attack\tthe node\n")
	for i, a := range attacks {
		fmt.Fprintf(tab, "%s\t%s\n", a.name, reasons[i])
	}
	tab.Flush()
	t.Log("release 1042 runs; what DNS says, and what the node makes of it\n" + table.String())
}

// tell is an error without what differs from run to run.
func tell(err error, servers []string) string {
	text := strings.TrimPrefix(err.Error(), fmt.Sprintf("no news from %q: ", owner))
	for i, s := range servers {
		text = strings.ReplaceAll(text, s, fmt.Sprintf("server %d", i+1))
	}
	if len(text) > 150 {
		text = text[:147] + "..."
	}
	return text
}

// records are attacks by what stands in the record.
func (w *world) records() []attack {
	newer := w.text(next)
	one := func(lines ...string) []script { return []script{say(nil, lines...)} }
	return []attack{
		{name: "the record again", servers: one(txt(w.have.Text())), want: "same: release 1042"},
		{name: "a newer release", servers: one(txt(newer)), want: "newer: release 1043"},
		{name: "halt", servers: one(txt(w.text(func(r *announce.Record) { r.Published++; r.Halted = true }))), want: "newer: release 1042 halted"},
		{name: "split into strings", servers: one(txt(newer[:7], newer[7:100], newer[100:])), want: "newer: release 1043"},
		{name: "among other texts", servers: one(txt("v=spf1 -all"), txt(newer), txt("x")), want: "newer: release 1043"},
		{name: "replayed", servers: one(txt(w.text(func(r *announce.Record) { r.Sequence-- }))), want: "no news", reason: "older than what was accepted"},
		{name: "unhalted by replay", servers: one(txt(w.text(func(r *announce.Record) { r.Published-- }))), want: "no news", reason: "older than what was accepted"},
		{name: "equivocating, other commit", servers: one(txt(w.text(func(r *announce.Record) { r.Commit = strings.Repeat("a", 40) }))), want: "no news", reason: "contradicts"},
		{name: "equivocating, other digest, later", servers: one(txt(w.text(func(r *announce.Record) { r.Digest[0]++; r.Published++ }))), want: "no news", reason: "contradicts"},
		{name: "jump over 2^20", servers: one(txt(w.text(func(r *announce.Record) { r.Sequence += announce.MaxJump + 1 }))), want: "no news", reason: "skips more than"},
		{name: "expired", servers: one(txt(w.text(func(r *announce.Record) {
			r.Sequence++
			r.Published -= 7 * 24 * 3600
			r.Expires = 1795180800
		}))), want: "no news", reason: "it expired at"},
		{name: "from the future", servers: one(txt(w.text(func(r *announce.Record) { r.Sequence++; r.Published += 2 * 24 * 3600 }))), want: "no news", reason: "set the clock of the machine that signs"},
		{name: "changed", servers: one(txt(strings.Replace(newer, "s=1043", "s=1044", 1))), want: "no news", reason: "its signature is not for"},
		{name: "by an unknown key", servers: one(txt(w.signed(owner, 9, next))), want: "no news", reason: "that is not listed"},
		{name: "by a key of another role", servers: one(txt(w.signed(owner, 3, next))), want: "no news", reason: "not for xnode-announce"},
		{name: "of another name", servers: one(txt(w.signed("stable._xnode.other.example.org", 1, next))), want: "no news", reason: "its signature is not for"},
		{name: "oversized", servers: one(txt(newer[:200], newer[200:], "; z="+strings.Repeat("z", 20))), want: "no news", reason: "allowed are 255"},
		{name: "two valid records", servers: one(txt(newer), txt(w.have.Text())), want: "no news", reason: "2 valid announcements"},
		{name: "one valid, one forged", servers: one(txt(w.signed(owner, 9, next)), txt(newer)), want: "newer: release 1043"},
		{name: "text cut off", servers: one(txt(newer[:200])), want: "no news", reason: "not an announcement"},
		{name: "repeated tag", servers: one(txt(strings.Replace(newer, "; t=", "; s=9; t=", 1))), want: "no news", reason: "is there twice"},
		{name: "alias, signed for the name asked", servers: one("@ 60 IN CNAME elsewhere.example.net.", "elsewhere.example.net. 60 IN TXT \""+newer+`"`), want: "newer: release 1043"},
		{name: "alias, signed for its target", servers: one("@ 60 IN CNAME elsewhere.example.net.", "elsewhere.example.net. 60 IN TXT \""+w.signed("elsewhere.example.net", 1, next)+`"`), want: "no news", reason: "its signature is not for"},
		{name: "text at another name", servers: one("elsewhere.example.net. 60 IN TXT \"" + newer + `"`), want: "no news", reason: "has no TXT record"},
		{name: "aliases in a circle", servers: one("@ 60 IN CNAME a.example.net.", "a.example.net. 60 IN CNAME b.example.net.", "b.example.net. 60 IN CNAME a.example.net."), want: "no news", reason: "more than 8 CNAMEs"},
	}
}

// servers are attacks by what the server does.
func (w *world) servers() []attack {
	newer := w.text(next)
	honest := say(nil, txt(newer))
	code := func(code int) script { return say(func(m *dns.Msg) { m.Rcode = code }) }
	silent := func(*dns.Msg, string) [][]byte { return nil }
	wrong := func(change func(*dns.Msg)) script { return say(change, txt(newer)) }
	cut := func(over script) script {
		return func(q *dns.Msg, network string) [][]byte {
			if network == "udp" {
				return [][]byte{answer(q, func(m *dns.Msg) { m.Truncated = true })}
			}
			return over(q, network)
		}
	}
	var crowd []string
	for i := range 65 {
		crowd = append(crowd, txt(fmt.Sprint(i)))
	}
	forged := say(nil, txt(w.signed(owner, 9, next)))
	replayed := say(nil, txt(w.text(func(r *announce.Record) { r.Sequence-- })))
	return []attack{
		{name: "NXDOMAIN", servers: []script{code(dns.RcodeNameError)}, want: "no news", reason: "no name"},
		{name: "no record", servers: []script{say(nil)}, want: "no news", reason: "no text"},
		{name: "SERVFAIL", servers: []script{code(dns.RcodeServerFailure)}, want: "no news", reason: "SERVFAIL"},
		{name: "REFUSED, without the question", servers: []script{say(func(m *dns.Msg) { m.Rcode = dns.RcodeRefused; m.Question = nil })}, want: "no news", reason: "REFUSED"},
		{name: "SERVFAIL, then an honest server", servers: []script{code(dns.RcodeServerFailure), honest}, want: "newer: release 1043"},
		{name: "forged, then an honest server", servers: []script{forged, honest}, want: "newer: release 1043"},
		{name: "replayed, then an honest server", servers: []script{replayed, honest}, want: "newer: release 1043"},
		{name: "silent, then an honest server", servers: []script{silent, honest}, want: "newer: release 1043", quick: true},
		{name: "silent", servers: []script{silent}, want: "no news", reason: "silent", quick: true},
		{name: "three faults", servers: []script{forged, code(dns.RcodeServerFailure), replayed}, want: "no news", reason: "SERVFAIL"},
		{name: "another id", servers: []script{wrong(func(m *dns.Msg) { m.Id++ })}, want: "no news", reason: "an answer to another query", quick: true},
		{name: "another question", servers: []script{wrong(func(m *dns.Msg) { m.Question[0].Name = "example.net." })}, want: "no news", reason: "an answer to another question", quick: true},
		{name: "another type", servers: []script{wrong(func(m *dns.Msg) { m.Question[0].Qtype = dns.TypeA })}, want: "no news", reason: "an answer to another question", quick: true},
		{name: "two questions", servers: []script{wrong(func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) })}, want: "no news", reason: "an answer to 2 questions", quick: true},
		{name: "the query itself", servers: []script{wrong(func(m *dns.Msg) { m.Response = false })}, want: "no news", reason: "no answer", quick: true},
		{name: "not DNS", servers: []script{func(*dns.Msg, string) [][]byte { return [][]byte{[]byte("HTTP/1.1 200 OK\r\n\r\n")} }}, want: "no news", reason: "malformed", quick: true},
		{name: "an empty packet, then the answer", servers: []script{func(q *dns.Msg, _ string) [][]byte { return [][]byte{{}, answer(q, nil, txt(newer))} }}, want: "newer: release 1043"},
		{name: "spoofed before the answer", servers: []script{func(q *dns.Msg, _ string) [][]byte {
			spoofed := q.Copy()
			spoofed.Id++
			return [][]byte{answer(spoofed, nil, txt("x")), answer(q, nil, txt(newer))}
		}}, want: "newer: release 1043"},
		{name: "a datagram of 4 KB", servers: []script{func(q *dns.Msg, _ string) [][]byte {
			return [][]byte{append(answer(q, nil, txt(newer)), make([]byte, 4000)...)}
		}}, want: "no news", reason: "more than 1232 bytes", quick: true},
		{name: "cut off, whole over TCP", servers: []script{cut(honest)}, want: "newer: release 1043"},
		{name: "cut off, cut off over TCP", servers: []script{cut(wrong(func(m *dns.Msg) { m.Truncated = true }))}, want: "no news", reason: "cut off over TCP as well"},
		{name: "cut off, silent over TCP", servers: []script{cut(silent)}, want: "no news", reason: "no answer over tcp", quick: true},
		{name: "cut off, another id over TCP", servers: []script{cut(wrong(func(m *dns.Msg) { m.Id++ }))}, want: "no news", reason: "an answer to another query"},
		{name: "cut off, 60 KB over TCP", servers: []script{cut(func(q *dns.Msg, _ string) [][]byte {
			return [][]byte{append(answer(q, nil, txt(newer)), make([]byte, 60000)...)}
		})}, want: "no news", reason: "more than 16384 bytes"},
		{name: "65 texts", servers: []script{cut(say(nil, crowd...))}, want: "no news", reason: "oversized"},
		{name: "a TTL of 68 years", servers: []script{say(nil, strings.Replace(txt(newer), " 60 ", " 2147483647 ", 1))}, want: "newer: release 1043"},
	}
}

// TestHostileTCP: a server that sends one byte a second is left alone when the
// time of the try is over.
func TestHostileTCP(t *testing.T) {
	t.Parallel()
	drip := func(q *dns.Msg, network string) [][]byte {
		if network == "udp" {
			return [][]byte{answer(q, func(m *dns.Msg) { m.Truncated = true })}
		}
		time.Sleep(3 * time.Second)
		return nil
	}
	c := &Client{Resolvers: []string{serve(t, drip)}, Timeout: 500 * time.Millisecond, Rounds: 1}
	var none *NoNewsError
	if _, err := c.Lookup(t.Context(), owner); !errors.As(err, &none) || none.Faults[0].Kind != Silent {
		t.Errorf("Lookup = %v; want the reason %q", err, Silent)
	}
}

// TestOwners follows an alias from one zone's servers to another's, and does
// not believe a server that does not own the name.
func TestOwners(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	newer := w.text(next)
	owning := func(m *dns.Msg) { m.Authoritative = true }
	do := func(q *dns.Msg, network string) [][]byte {
		name := q.Question[0].Name
		switch q.Question[0].Qtype {
		case dns.TypeNS:
			if name == "fleet.example.org." || name == "example.net." {
				return say(nil, name+" 60 IN NS ns."+name)(q, network)
			}
			return say(nil)(q, network)
		case dns.TypeA:
			return say(nil, "@ 60 IN A 127.0.0.1")(q, network)
		case dns.TypeAAAA:
			return say(nil)(q, network)
		}
		switch {
		case q.RecursionDesired: // a cache that holds back the news
			return say(nil, txt(w.have.Text()))(q, network)
		case name == owner+".":
			return say(owning, "@ 30 IN CNAME elsewhere.example.net.")(q, network)
		case name == "elsewhere.example.net.":
			return say(owning, txt(newer))(q, network)
		}
		return say(nil, txt(newer))(q, network)
	}
	server := serve(t, do)
	_, port, _ := strings.Cut(server, ":")
	c := &Client{Resolvers: []string{server}, Port: port, Timeout: 30 * time.Second, Rounds: 1}
	if got, err := w.look(c); got != "same: release 1042" {
		t.Errorf("through the cache: %s, %v", got, err)
	}
	validated := serve(t, say(func(m *dns.Msg) { m.AuthenticatedData = true }, txt(newer)))
	if got, err := (&Client{Resolvers: []string{validated}}).Lookup(t.Context(), owner); err != nil || !got.Secure {
		t.Errorf("an answer that is called validated: %+v, %v", got, err)
	}
	c.Authoritative = true
	if got, err := w.look(c); got != "newer: release 1043" {
		t.Errorf("from the owners: %s, %v", got, err)
	}
	var none *NoNewsError
	if _, err := c.Lookup(t.Context(), "other.fleet.example.org"); !errors.As(err, &none) || none.Faults[0].Kind != NotOwner {
		t.Errorf("a server that does not own the name: %v; want the reason %q", err, NotOwner)
	}
	if _, err := c.Lookup(t.Context(), "a.example.com"); !errors.As(err, &none) || none.Faults[0].Kind != NoServer {
		t.Errorf("a name without servers: %v; want the reason %q", err, NoServer)
	}
}

// TestOwnersWithoutEnd: name servers that send us on and on get so many queries
// and no more, and a lookup ends in time however they answer.
func TestOwnersWithoutEnd(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	server := serve(t, func(q *dns.Msg, network string) [][]byte {
		asked.Add(1)
		name := q.Question[0].Name
		switch q.Question[0].Qtype {
		case dns.TypeNS:
			return say(nil, name+" 60 IN NS a.example.net.", name+" 60 IN NS b.example.net.", name+" 60 IN NS c.example.net.")(q, network)
		case dns.TypeA:
			return say(nil, "@ 60 IN A 127.0.0.1")(q, network)
		case dns.TypeAAAA:
			return say(nil)(q, network)
		}
		return say(func(m *dns.Msg) { m.Authoritative = true }, "@ 60 IN CNAME x."+name)(q, network)
	})
	_, port, _ := strings.Cut(server, ":")
	c := &Client{Resolvers: []string{server}, Port: port, Authoritative: true, Timeout: 30 * time.Second, Rounds: 1}
	var none *NoNewsError
	if _, err := c.Lookup(t.Context(), owner); !errors.As(err, &none) || asked.Load() > maxQueries {
		t.Errorf("%d queries, %v", asked.Load(), err)
	}
	silent := serve(t, func(*dns.Msg, string) [][]byte { return nil })
	c = &Client{Resolvers: slices.Repeat([]string{silent}, 100), Timeout: time.Hour, Limit: time.Second}
	if _, err := c.Lookup(t.Context(), owner); !errors.As(err, &none) {
		t.Errorf("a hundred silent servers: %v; want no news", err)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if _, err := c.Lookup(ctx, owner); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}

// FuzzJudge holds whatever bytes a server may send to the rules: no panic, and
// an answer only to the question.
func FuzzJudge(f *testing.F) {
	q := new(dns.Msg).SetQuestion(owner+".", dns.TypeTXT)
	q.Id = 7
	f.Add(answer(q, nil, txt("v=xnode1; s=1", `a\"b\\c`)))
	f.Add(answer(q, nil, "@ 60 IN CNAME a.example.net.", `a.example.net. 60 IN TXT "x"`))
	f.Add(answer(q, func(m *dns.Msg) { m.Rcode = dns.RcodeNameError }))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := judge(data, q, udpSize)
		if err != nil {
			return
		}
		if m.Id != 7 || len(data) > udpSize {
			t.Fatalf("taken: %v", m)
		}
		if len(m.Question) == 0 {
			return // an error code without the question
		}
		r := &reply{m, "server", "server over udp"}
		if a, _, err := r.texts(owner + "."); err == nil && a != nil {
			if len(a.Texts) == 0 || len(a.Texts) > maxTexts || a.TTL < 0 {
				t.Fatalf("%+v", a)
			}
		}
	})
}
