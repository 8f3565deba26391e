package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"xnodeos.org/agent/follow"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/dnsupdate"
	"xnodeos.org/internal/sshsign"
	"xnodeos.org/internal/testkit/pdns"
	"xnodeos.org/internal/trust"
	"xnodeos.org/test/bench/rows"
)

const (
	// Shorter than in a fleet, so that a run takes a minute or two. The load
	// is that of six times as many nodes with a TTL of a minute.
	followTTL    = 10 * time.Second
	followJitter = followTTL / 2
	// oneQuery is the room for the lookup itself at the end of the wait.
	oneQuery = 500 * time.Millisecond
	// sockets bounds the lookups at one time: the followers have one machine
	// together, where nodes have one each.
	sockets    = 512
	steadyTime = 2 * (followTTL + followJitter)
	followName = "stable._xnode.fleet.example.org"
)

// flock is many followers and one name server.
type flock struct {
	server   *pdns.Server
	signer   *sshsign.Signer
	signers  *trust.Signers
	budget   chan struct{}
	lookups  atomic.Int64
	faults   atomic.Int64
	lastErr  atomic.Pointer[error]
	waiting  atomic.Int64 // followers that have not seen the newest release
	complete chan time.Time
	mu       sync.Mutex
	delays   []time.Duration // of the newest release, one for each follower
	released time.Time
}

// measureFollowers measures how fast a fleet sees a release, and what that costs its
// name server: the real code of a follower, once for each node, against one
// PowerDNS without any resolver in between.
func measureFollowers(ctx context.Context, opt options) ([]rows.Row, error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	f, err := newFlock(ctx)
	if err != nil {
		return nil, err
	}
	var group sync.WaitGroup
	defer func() {
		stop()
		group.Wait()
		if err := f.server.Close(); err != nil {
			fmt.Fprintf(opt.stderr, "bench agent: %v\n", err)
		}
	}()
	fmt.Fprintf(opt.stderr, "bench agent: %d followers come up\n", opt.followers)
	if err := f.publish(ctx, 1, opt.followers); err != nil {
		return nil, err
	}
	for i := range opt.followers {
		group.Go(func() { f.follow(ctx, uint64(i)) })
	}
	if _, err := f.wait(ctx); err != nil {
		return nil, err
	}
	fmt.Fprintf(opt.stderr, "bench agent: %v of quiet\n", steadyTime)
	table, err := f.steady(ctx, opt.followers)
	if err != nil {
		return nil, err
	}
	var all, half, most []float64
	for i := range opt.releases {
		fmt.Fprintf(opt.stderr, "bench agent: release %d of %d\n", i+1, opt.releases)
		if err := f.publish(ctx, uint32(i)+2, opt.followers); err != nil {
			return nil, err
		}
		delays, err := f.wait(ctx)
		if err != nil {
			return nil, err
		}
		half = append(half, delays[len(delays)/2].Seconds())
		most = append(most, delays[len(delays)*99/100].Seconds())
		all = append(all, delays[len(delays)-1].Seconds())
	}
	limit := (followTTL + followJitter + oneQuery).Seconds()
	table = append(table,
		rows.New(fmt.Sprintf("release seen by half of %d followers, TTL %v", opt.followers, followTTL), rows.Median(half), "s"),
		rows.New("release seen by 99 % of them", rows.Median(most), "s"),
		rows.New("release seen by all, worst of the releases", slices.Max(all), "s").AtMost(limit),
	)
	fault := rows.New("lookups without an answer", float64(f.faults.Load()), "of "+strconv.FormatInt(f.lookups.Load(), 10))
	if last := f.lastErr.Load(); last != nil {
		fmt.Fprintf(opt.stderr, "bench agent: the last fault: %v\n", *last)
	}
	return append(table, fault), nil
}

func newFlock(ctx context.Context) (*flock, error) {
	dir, err := os.MkdirTemp("", "xnodeos-bench-followers-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	pair, err := sshsign.GenerateKey("bench")
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "key")
	if err := os.WriteFile(file, pair.PrivateFile(), 0o600); err != nil {
		return nil, err
	}
	f := &flock{budget: make(chan struct{}, sockets)}
	if f.signer, err = sshsign.Open(ctx, sshsign.OpenOptions{Path: file}); err != nil {
		return nil, err
	}
	if f.signers, err = trust.Parse([]byte(trust.Line(pair.PublicKey, "bench", trust.NamespaceAnnounce))); err != nil {
		return nil, err
	}
	f.server, err = pdns.Start(ctx, pdns.Options{})
	return f, err
}

// publish announces a release and starts the clock when the server has it.
func (f *flock) publish(ctx context.Context, sequence uint32, count int) error {
	now := time.Now().Unix()
	r, err := announce.Sign(ctx, followName, announce.Record{
		Sequence: sequence, Commit: strings.Repeat("0123456789", 4), Published: now, Expires: now + 7*24*3600,
	}, f.signer)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.delays, f.complete = make([]time.Duration, 0, count), make(chan time.Time, 1)
	f.waiting.Store(int64(count))
	f.released = time.Now() // before the server has it: the figure is no better than the truth
	f.mu.Unlock()
	return f.server.Update().Publish(ctx, dnsupdate.Record{Name: followName, TTL: followTTL, Text: r.Text()})
}

// wait returns the sorted delays once all followers have seen the release.
func (f *flock) wait(ctx context.Context) ([]time.Duration, error) {
	f.mu.Lock()
	complete := f.complete
	f.mu.Unlock()
	select {
	case <-complete:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(5 * time.Minute):
		err := fmt.Errorf("%d followers have not seen the release after 5 minutes", f.waiting.Load())
		if last := f.lastErr.Load(); last != nil {
			err = errors.Join(err, *last)
		}
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	slices.Sort(f.delays)
	return f.delays, nil
}

// follow is one node. Nodes come up one after the other within the time of one
// wait; all at once would be the start of a data centre, not a fleet.
func (f *flock) follow(ctx context.Context, seed uint64) {
	dice := rand.New(rand.NewPCG(seed, 1))
	c := &follow.Client{Resolvers: []string{f.server.Addr}}
	s := &follow.Schedule{Floor: followTTL, Random: dice.Float64}
	var have *announce.Record
	select {
	case <-time.After(time.Duration(dice.Float64() * float64(followTTL+followJitter))):
	case <-ctx.Done():
		return
	}
	_ = s.Run(ctx, nil, func(ctx context.Context) (time.Duration, error) {
		select {
		case f.budget <- struct{}{}:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
		defer func() { <-f.budget }()
		f.lookups.Add(1)
		var found *announce.Record
		a, err := c.LookupGood(ctx, followName, func(a *follow.Answer) error {
			r, signer, err := announce.Choose(followName, a.Texts, f.signers)
			if err == nil {
				err = r.Fresh(signer, announce.Clock{Now: time.Now(), Synchronised: true})
			}
			if err == nil {
				_, err = announce.Admit(have, 0, r)
			}
			found = r
			return err
		})
		if err != nil {
			if ctx.Err() == nil {
				f.faults.Add(1)
				f.lastErr.Store(&err)
			}
			return 0, err
		}
		if announce.Compare(have, found) == announce.Newer {
			f.seen()
		}
		have = found
		return a.TTL, nil
	})
}

// seen notes that one follower has the newest release.
func (f *flock) seen() {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.delays = append(f.delays, now.Sub(f.released))
	if f.waiting.Add(-1) == 0 {
		f.complete <- now
	}
}

// steady measures a while in which nothing is released.
func (f *flock) steady(ctx context.Context, count int) ([]rows.Row, error) {
	before, err := f.statistics(ctx)
	if err != nil {
		return nil, err
	}
	cpu, lookups, begun := ownCPU(), f.lookups.Load(), time.Now()
	select {
	case <-time.After(steadyTime):
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	after, err := f.statistics(ctx)
	if err != nil {
		return nil, err
	}
	took := time.Since(begun).Seconds()
	done := float64(f.lookups.Load() - lookups)
	diff := func(name string) float64 { return after[name] - before[name] }
	queries := diff("udp-queries") + diff("tcp-queries")
	if queries == 0 || done == 0 {
		return nil, errors.New("nobody asked the server while nothing was released")
	}
	query := float64(12 + len(followName) + 2 + 4 + 11) // header, name, type and class, EDNS0
	return []rows.Row{
		rows.New(fmt.Sprintf("queries of %d followers, TTL %v", count, followTTL), queries/took, "/s"),
		rows.New("the same fleet with a TTL of 60 s, calculated", queries/took*followTTL.Seconds()/60, "/s"),
		rows.New("bytes of a query and its answer", query+diff("udp-answers-bytes")/queries, "B"),
		rows.New("traffic of the server, without IP and UDP headers", (query*queries+diff("udp-answers-bytes"))/took/1000, "kB/s"),
		rows.New("CPU of the server", (diff("user-msec")+diff("sys-msec"))/10/took, "% of a core"),
		rows.New("CPU of a lookup and its verification", (ownCPU()-cpu).Seconds()*1e6/done, "us"),
	}, nil
}

// statistics reads the server's counters.
func (f *flock) statistics(ctx context.Context) (map[string]float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.server.API+"/api/v1/servers/localhost/statistics", nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("X-API-Key", string(f.server.APIKey))
	reply, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	var items []struct {
		Name  string          `json:"name"`
		Type  string          `json:"type"`
		Value json.RawMessage `json:"value"`
	}
	if err := json.NewDecoder(reply.Body).Decode(&items); err != nil {
		return nil, fmt.Errorf("read the server's counters: %w", err)
	}
	out := map[string]float64{}
	for _, item := range items {
		if item.Type != "StatisticItem" {
			continue
		}
		if n, err := strconv.ParseFloat(strings.Trim(string(item.Value), `"`), 64); err == nil {
			out[item.Name] = n
		}
	}
	return out, nil
}

// ownCPU is the time of the processor that this process has had.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic("BUG: getrusage: " + err.Error()) // with our own process it cannot fail
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
