package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/cache"
	"xnodeos.org/internal/nix/daemon"
	"xnodeos.org/internal/nix/nar"
	"xnodeos.org/internal/nix/substitute"
	"xnodeos.org/internal/testkit/nixstore"
	"xnodeos.org/test/bench/rows"
)

// latency is what a round trip to the far cache takes.
const latency = 20 * time.Millisecond

// measureSubstitute brings a closure of about 300 MB from one HTTP cache into
// an empty store, with our substituter through nix-daemon and with nix copy.
func measureSubstitute(ctx context.Context, o options) ([]rows.Row, error) {
	b, err := newSubstituteBench(ctx, o)
	if err != nil {
		return nil, err
	}
	defer b.remove()
	stop, err := b.serve()
	if err != nil {
		return nil, err
	}
	defer stop()
	far, stopFar, err := delayed(strings.TrimPrefix(b.url, "http://"), latency)
	if err != nil {
		return nil, err
	}
	defer stopFar()
	var table []rows.Row
	var peak float64
	for _, c := range []struct {
		name, url string
		peer      peer
		target    float64
	}{
		{"substitution, loopback", b.url, throughDaemon, 1.0},
		{"substitution, loopback, peer as root", b.url, direct, 1.0},
		{"substitution, 20 ms away", "http://" + far, direct, 0.7},
	} {
		fmt.Fprintf(o.stderr, "bench agent: %s, %d pairs of %.0f MB in %d paths\n", c.name, o.pairs, float64(b.list.NarSize())/1e6, len(b.list.Paths))
		ours, peers, rss, err := b.pairs(ctx, c.url, c.peer)
		if err != nil {
			return nil, err
		}
		peak = max(peak, rss)
		table = append(table, rows.New(c.name, rows.Median(ours), "s").Beside("nix copy --from"+string(c.peer), rows.Median(peers)).RatioAtMost(c.target))
	}
	return append(table, rows.New("substitution, peak RSS", peak, "MiB").AtMost(60)), nil
}

type substituteBench struct {
	options

	work string
	list *nix.ClosureList
	key  *nix.CacheKey
	url  string
}

func newSubstituteBench(ctx context.Context, o options) (*substituteBench, error) {
	place := "/dev/shm" // the same for both, and no disk of this machine in the figures
	if info, err := os.Stat(place); err != nil || !info.IsDir() {
		place = ""
	}
	work, err := os.MkdirTemp(place, "xnodeos-bench-substitute-")
	if err != nil {
		return nil, err
	}
	b := &substituteBench{options: o, work: work}
	if err := b.fill(ctx); err != nil {
		return nil, errors.Join(err, nar.RemoveTree(work))
	}
	return b, nil
}

func (b *substituteBench) remove() {
	if err := nar.RemoveTree(b.work); err != nil {
		fmt.Fprintf(b.stderr, "bench agent: %v\n", err)
	}
}

// fill makes the closure and pushes it.
func (b *substituteBench) fill(ctx context.Context) error {
	store, err := nixstore.Make(filepath.Join(b.work, "origin"), "")
	if err != nil {
		return err
	}
	if err := store.Add(ctx, benchClosure()...); err != nil {
		return err
	}
	if b.list, err = store.List(ctx, "system"); err != nil {
		return err
	}
	if b.key, err = nix.GenerateCacheKey("bench-1"); err != nil {
		return err
	}
	if _, err = cache.Push(ctx, filepath.Join(b.work, "cache"), b.list, store.Store, b.key, cache.PushOptions{}); err != nil {
		return err
	}
	return nar.RemoveTree(store.Dir)
}

// benchClosure is shaped like a small NixOS: a few large paths, many small ones,
// each of which refers to some before it, 8,000 files.
func benchClosure() []nixstore.Path {
	var paths []nixstore.Path
	var names []string
	for i := range 200 {
		p := nixstore.Path{Name: fmt.Sprintf("package-%03d", i), Files: map[string]string{}}
		for _, ref := range []int{i / 2, i / 3, i - 7} {
			if ref >= 0 && ref < i {
				p.Refs = append(p.Refs, names[ref])
			}
		}
		p.Refs = unique(p.Refs)
		size := 60 << 20 / (i + 1) // 60, 30, 20, 15 ... MiB
		for n, left := 0, size; left > 0; n++ {
			length := min(left, 4<<10+n*n%97<<10) // 4 to 100 KiB
			if n%50 == 49 {
				length = min(left, 4<<20)
			}
			p.Files[fmt.Sprintf("share/%d/file-%d", n%20, n)] = likeCode(uint64(i)<<32|uint64(n), length)
			left -= length
		}
		names = append(names, p.Name)
		paths = append(paths, p)
	}
	return append(paths, nixstore.Path{Name: "system", Files: map[string]string{"init": "x"}, Refs: names})
}

func unique(all []string) []string {
	seen := map[string]bool{}
	var out []string
	for _, s := range all {
		if !seen[s] {
			out = append(out, s)
		}
		seen[s] = true
	}
	return out
}

// likeCode compresses about as machine code does, to a third: words of a small
// vocabulary with random ones between them.
func likeCode(seed uint64, length int) string {
	var b strings.Builder
	b.Grow(length + 32)
	x := seed*0x9e3779b97f4a7c15 + 1
	for b.Len() < length {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		if x%8 < 2 {
			b.WriteString(strconv.FormatUint(x, 36))
		} else {
			word := x >> 32 % 256 * 0x5851f42d4c957f2d
			b.WriteString(strconv.FormatUint(word>>24, 32))
		}
	}
	return b.String()[:length]
}

func (b *substituteBench) serve() (stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.FileServer(http.Dir(filepath.Join(b.work, "cache")))}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	b.url = "http://" + l.Addr().String()
	return func() { _ = s.Close(); <-done }, nil
}

// pairs runs both in turn and returns seconds, and our largest resident set in MiB.
func (b *substituteBench) pairs(ctx context.Context, url string, how peer) (ours, peers []float64, peak float64, err error) {
	for i := range b.options.pairs + 1 {
		a, rss, err := b.ours(ctx, url)
		if err != nil {
			return nil, nil, 0, err
		}
		p, err := b.peer(ctx, url, how)
		if err != nil {
			return nil, nil, 0, err
		}
		fmt.Fprintf(b.stderr, "bench agent:   %.2f s, nix copy %.2f s, %.1f MiB\n", a, p, rss)
		peak = max(peak, rss)
		if i > 0 { // the first pair warms up
			ours, peers = append(ours, a), append(peers, p)
		}
	}
	return ours, peers, peak, nil
}

// node makes an empty store for one run.
func (b *substituteBench) node(ctx context.Context) (*nixstore.Store, error) {
	s, err := nixstore.Make(filepath.Join(b.work, "node"), "require-sigs = true\ntrusted-users =\nallowed-users = *\ntrusted-public-keys = "+b.key.Public()+"\n")
	if err != nil {
		return nil, err
	}
	_, err = s.Run(ctx, "nix-store", "--init")
	return s, err
}

func (b *substituteBench) ours(ctx context.Context, url string) (seconds, rss float64, err error) {
	_, socket, stop, err := b.daemon(ctx)
	if err != nil {
		return 0, 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	cmd := exec.CommandContext(ctx, b.self, "-child", "substitute", url, b.list.Digest(), b.key.Public(), socket, nixstore.PathOf("system"))
	cmd.Stderr = b.stderr
	begun := time.Now()
	out, err := cmd.Output()
	took := time.Since(begun)
	if err != nil {
		return 0, 0, fmt.Errorf("our run: %w", err)
	}
	var said childResult
	if err := json.Unmarshal(out, &said); err != nil {
		return 0, 0, fmt.Errorf("our run said %q: %w", out, err)
	}
	if said.Missing != len(b.list.Paths) {
		return 0, 0, fmt.Errorf("our run brought %d paths, want %d", said.Missing, len(b.list.Paths))
	}
	return took.Seconds(), said.PeakMiB, nil
}

// daemon starts the nix-daemon of a new node; stop ends and removes both.
func (b *substituteBench) daemon(ctx context.Context) (s *nixstore.Store, socket string, stop func() error, err error) {
	if s, err = b.node(ctx); err != nil {
		return nil, "", nil, err
	}
	served, cancel := context.WithCancel(ctx)
	socket, wait, err := s.Daemon(served)
	stop = func() error {
		cancel()
		if wait != nil {
			wait()
		}
		return nar.RemoveTree(s.Dir)
	}
	if err != nil {
		return nil, "", nil, errors.Join(err, stop())
	}
	return s, socket, stop, nil
}

// peer is how nix copy writes: as a user without rights has to, which is how we
// do it, or into the store itself, as only root may.
type peer string

const (
	throughDaemon peer = " --to daemon"
	direct        peer = " --to local"
)

func (b *substituteBench) peer(ctx context.Context, url string, how peer) (seconds float64, err error) {
	s, socket, stop, err := b.daemon(ctx)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	to := s.URL()
	if how == throughDaemon {
		to = "unix://" + socket
	}
	begun := time.Now()
	_, err = s.Run(ctx, "nix", "copy", "--from", url, "--to", to, nixstore.PathOf("system"))
	return time.Since(begun).Seconds(), err
}

type childResult struct {
	Missing int     `json:"missing"`
	PeakMiB float64 `json:"peak_mib"`
}

// substituteChild is our side: a process as the follower is one, with the
// follower's memory limit for Go.
func substituteChild(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) != 5 {
		return errors.New("want URL, digest, key, socket and system")
	}
	debug.SetMemoryLimit(40 << 20)
	c, err := cache.Open(args[0], nil)
	if err != nil {
		return err
	}
	digest, err := nix.ParseHash(args[1])
	if err != nil {
		return err
	}
	key, err := nix.ParsePublicKey(args[2])
	if err != nil {
		return err
	}
	begun := time.Now()
	result, err := substitute.Run(ctx, substitute.Options{
		Digest: digest, System: nix.StorePath(args[4]), Caches: []*cache.Cache{c},
		Read: cache.Options{Clock: func() time.Duration { return time.Since(begun) }, Keys: []nix.PublicKey{key}},
		Connect: func(ctx context.Context) (*daemon.Conn, error) {
			return daemon.Dial(ctx, daemon.Options{Socket: args[3]})
		},
		Free: func() (int64, error) { return 1 << 40, nil },
	})
	if err != nil {
		return err
	}
	defer result.Close()
	peak, err := peakRSS()
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(childResult{Missing: result.Missing, PeakMiB: peak})
}

// peakRSS is the process's own VmHWM in MiB.
func peakRSS() (float64, error) {
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(data), "VmHWM:")
	var kib float64
	if _, err := fmt.Sscanf(rest, "%f kB", &kib); err != nil {
		return 0, fmt.Errorf("read VmHWM: %w", err)
	}
	return kib / 1024, nil
}
