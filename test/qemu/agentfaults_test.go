package qemu

import (
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"xnodeos.org/agent/statusapi"
	"xnodeos.org/internal/vm"
	"xnodeos.org/test/site"
)

// flipper serves NARs with wrong bytes while it is on.
type flipper struct {
	next http.Handler
	on   atomic.Bool
	hits atomic.Int32
}

func (f *flipper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.on.Load() && strings.HasPrefix(r.URL.Path, "/nar/") {
		f.hits.Add(1)
		w = flipped{w}
	}
	f.next.ServeHTTP(w, r)
}

type flipped struct{ http.ResponseWriter }

func (f flipped) Write(p []byte) (int, error) {
	q := append([]byte(nil), p...)
	q[len(q)/2] ^= 0x40
	return f.ResponseWriter.Write(q)
}

// TestAgentFaults has everything around a node without state be at fault, one
// after the other: its clock, the caches, its memory, DNS, the release itself.
// Each time the node keeps what it runs, says why, and goes on by itself when
// the fault is gone.
func TestAgentFaults(t *testing.T) {
	mirror, cache := &flipper{}, &flipper{}
	mirror.on.Store(true) // for the whole time
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: mirror, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	times := liveTimings()
	times.stable = 24 * 60 * 60
	f := newFleet(t, times, func(o *site.Options) {
		o.Cache = func(next http.Handler) http.Handler {
			cache.next = next
			return cache
		}
	})
	mirror.next = http.FileServer(http.Dir(f.CacheDir))

	lastYear := time.Now().AddDate(-1, 0, 0).UTC()
	n := f.boot(t, func(m *vm.Machine) {
		m.Extra = append(m.Extra, "-rtc", "base="+lastYear.Format("2006-01-02T15:04:05"))
	})
	n.watchAccepted(t, f.announce(t, "label=pocket-1"))
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	n.shell(t, fmt.Sprintf(`set -e
sed -i -e 's|^urls = \[|&"http://%s:%s", |' -e '/^\[git\]/a interval = "10s"' /run/xnode/node/agent.toml
xnode config; systemctl restart xnode-follow`, site.Gateway, port))
	t.Logf("with a clock of %s the node's clock says %s", lastYear.Format(time.DateTime), strings.TrimSpace(n.shell(t, "date -u")))

	t.Run("no stable uptime", func(t *testing.T) {
		sequence := f.announce(t, "label=pocket-2")
		n.held(t, sequence, "pocket-1", "without state tries a newer release after 24h0m0s of uptime")
	})
	t.Run("halted and DNS blocked", func(t *testing.T) { haltInGit(t, f, n, times) })
	t.Run("both caches corrupt, then one", func(t *testing.T) { corrupt(t, f, n, mirror, cache) })
	t.Run("store full", func(t *testing.T) { fillStore(t, f, n) })
	t.Run("expired", func(t *testing.T) {
		n.shell(t, "date -s @$(($(date +%s) + 3 * 365 * 86400))")
		sequence := f.announce(t, "label=pocket-5")
		s := n.watch(t, "an expired record", func(s *statusapi.Status) bool {
			return strings.Contains(s.Poll.Error, "expired") && strings.Contains(strings.Join(s.Problems, " "), "expired")
		})
		n.stays(t, s, "pocket-4")
		n.shell(t, "date -s @$(($(date +%s) - 3 * 365 * 86400))")
		n.settlesAt(t, sequence, "pocket-5")
	})
	n.checkWell(t, "pocket-5", 0)
}

// held waits until a release is held for a reason; the node keeps its system.
func (n *node) held(t *testing.T, sequence uint32, label, why string) {
	t.Helper()
	s := n.watch(t, fmt.Sprintf("release %d held: %s", sequence, why), func(s *statusapi.Status) bool {
		return s.Record != nil && s.Record.Sequence == sequence && s.Phase == "HELD" && strings.Contains(s.Reason, why)
	})
	n.stays(t, s, label)
	t.Logf("held: %s", s.Reason)
}

func (n *node) stays(t *testing.T, s *statusapi.Status, label string) {
	t.Helper()
	if !strings.HasSuffix(s.Systems.Current, "-xnodeos-"+label) || !strings.HasSuffix(s.Systems.LastGoodLive, "-xnodeos-"+label) {
		t.Errorf("%s runs, last good is %s; want %s", s.Systems.Current, s.Systems.LastGoodLive, label)
	}
}

// haltInGit halts a release that the node has seen but not begun, while the node
// cannot ask DNS: it learns it from branch announce.
func haltInGit(t *testing.T, f *fleet, n *node, times timings) {
	resolver := func(addr string) {
		t.Helper()
		n.shell(t, fmt.Sprintf(`set -e
sed -i 's/^resolvers = .*/resolvers = ["%s"]/' /run/xnode/node/agent.toml
xnode config | grep '^resolvers.*%[1]s'; systemctl restart xnode-follow`, addr))
	}
	_, port, err := net.SplitHostPort(f.DNS.Addr)
	if err != nil {
		t.Fatal(err)
	}
	good, nobody := site.Gateway+":"+port, site.Gateway+":1"
	resolver(nobody)
	halted, err := f.Change(t.Context(), "halt")
	if err != nil {
		t.Fatal(err)
	}
	s := n.watch(t, "a halt that DNS does not tell", func(s *statusapi.Status) bool {
		return s.Record != nil && s.Record.Halted && s.Phase == "HELD" && strings.Contains(s.Reason, "halted")
	})
	if !strings.Contains(s.Record.Source, "git") || s.Record.Sequence != halted.Sequence {
		t.Errorf("release %d by %s; want %d by git", s.Record.Sequence, s.Record.Source, halted.Sequence)
	}
	times.stable = 1 // it may now, but for the halt
	times.set(t, n)
	n.shell(t, "xnode poll; sleep 12") // longer than held releases are left alone
	n.held(t, halted.Sequence, "pocket-1", "halted")
	resolver(good)
	resumed, err := f.Change(t.Context(), "resume")
	if err != nil {
		t.Fatal(err)
	}
	n.settlesAt(t, resumed.Sequence, "pocket-2")
}

// corrupt announces a release that no cache has whole, then mends the second.
func corrupt(t *testing.T, f *fleet, n *node, mirror, cache *flipper) {
	cache.on.Store(true)
	before := mirror.hits.Load()
	sequence := f.announce(t, "label=pocket-3")
	s := n.watch(t, "that no cache has it whole", func(s *statusapi.Status) bool {
		return s.Record != nil && s.Record.Sequence == sequence && s.Counts.FetchFaults > 0 && strings.Contains(s.Reason, "realise")
	})
	n.stays(t, s, "pocket-2")
	t.Logf("what the node says of corrupt caches: %s", s.Reason)
	cache.on.Store(false)
	n.settlesAt(t, sequence, "pocket-3")
	if mirror.hits.Load() == before {
		t.Error("the corrupt mirror was not asked")
	}
}

// fillStore leaves the store no room, then too little, then enough.
func fillStore(t *testing.T, f *fleet, n *node) {
	n.shell(t, "cd /nix/store && dd if=/dev/zero of=.spare bs=1M count=24 2>/dev/null; cat /dev/zero >.filler 2>/dev/null; df -k .")
	sequence := f.announce(t, "label=pocket-4")
	s := n.watch(t, "that the store is full", func(s *statusapi.Status) bool {
		return s.Record != nil && s.Record.Sequence == sequence && strings.Contains(s.Reason, "the store needs room for")
	})
	n.stays(t, s, "pocket-3")
	t.Logf("what the node says of a full store: %s", s.Reason)
	n.shell(t, "rm /nix/store/.spare; xnode poll")
	n.held(t, sequence, "pocket-3", "a switch needs 32 MB")
	n.shell(t, "rm /nix/store/.filler; xnode poll")
	n.settlesAt(t, sequence, "pocket-4")
}
