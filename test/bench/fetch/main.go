// Command fetch measures what package fetch makes of a mirror: MB/s of a payload
// over the loopback, every chunk checked, beside curl of the same file; and the
// same with one of a hundred requests cut off, beside curl that retries.
//
// Both clients are processes of their own that write a file, and ask the same
// server; runs alternate. Targets are printed beside the figures; missing one is
// no error.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/netboot/stage1/fetch"
	"xnodeos.org/test/bench/rows"
)

func main() { os.Exit(rows.Run("fetch", os.Args[1:], os.Stdout, os.Stderr, run)) }

type options struct {
	pairs, sizeMB        int
	json                 bool
	client, digest, into string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var opt options
	flags := flag.NewFlagSet("fetch", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&opt.pairs, "pairs", 15, "pairs of runs, ours and curl's")
	flags.IntVar(&opt.sizeMB, "size", 512, "size of the payload in MiB")
	flags.BoolVar(&opt.json, "json", false, "print JSON rows in place of a table")
	flags.StringVar(&opt.client, "client", "", "only fetch from this URL; the measurement runs itself like this")
	flags.StringVar(&opt.digest, "digest", "", "with -client: hash of the manifest")
	flags.StringVar(&opt.into, "into", "", "with -client: file to write")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if opt.client != "" {
		return client(ctx, opt)
	}
	if opt.pairs < 1 || opt.sizeMB < 1 {
		return errors.New("-pairs and -size: want 1 or more")
	}
	if _, err := exec.LookPath("curl"); err != nil {
		return errors.New("curl is not installed; run scripts/setup --for bench")
	}
	b, err := newBench(opt, stderr)
	if err != nil {
		return err
	}
	defer os.RemoveAll(b.work)
	table, err := b.measure(ctx, opt.pairs)
	if err != nil {
		return err
	}
	if opt.json {
		return rows.WriteJSON(stdout, table)
	}
	return rows.WriteTable(stdout, table)
}

// client is our side of a run: manifest by its hash, then the payload.
func client(ctx context.Context, opt options) error {
	m, err := fetch.ParseMirror(opt.client)
	if err != nil {
		return err
	}
	begun := time.Now()
	o := fetch.Options{Clock: func() time.Duration { return time.Since(begun) }}
	found, _, err := fetch.Manifest(ctx, []fetch.Mirror{m}, fetch.Check{Digest: opt.digest}, o)
	if err != nil {
		return err
	}
	f, err := os.Create(opt.into)
	if err != nil {
		return err
	}
	return errors.Join(fetch.Payload(ctx, []fetch.Mirror{m}, &found.Payload, f, o), f.Close())
}

type bench struct {
	work   string
	self   string
	digest string
	bytes  float64
	sha256 string
	stderr io.Writer
}

// newBench makes a payload that nothing compresses, in memory if there is a
// file system for that: the first stage has no disk either.
func newBench(opt options, stderr io.Writer) (*bench, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	place := "/dev/shm"
	if info, err := os.Stat(place); err != nil || !info.IsDir() {
		place = ""
	}
	work, err := os.MkdirTemp(place, "xnodeos-bench-fetch-")
	if err != nil {
		return nil, err
	}
	b := &bench{work: work, self: self, bytes: float64(opt.sizeMB) * (1 << 20), stderr: stderr}
	if err := b.write(opt.sizeMB); err != nil {
		return nil, errors.Join(err, os.RemoveAll(work))
	}
	return b, nil
}

func (b *bench) write(sizeMB int) error {
	name := filepath.Join(b.work, fetch.PayloadName)
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.CopyN(f, rand.NewChaCha8([32]byte{1}), int64(sizeMB)<<20)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if f, err = os.Open(name); err != nil {
		return err
	}
	defer f.Close()
	payload, err := manifest.HashPayload(fetch.PayloadName, f)
	if err != nil {
		return err
	}
	file := manifest.File{Name: "vmlinuz", Size: 1, SHA256: payload.SHA256}
	initrd := file
	initrd.Name = "initrd"
	m := manifest.Manifest{
		V: manifest.Version, Label: "bench", Arch: "x86_64-linux", System: "/nix/store/" + strings.Repeat("0", 32) + "-bench",
		Closure: "sha256-RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=", Handover: manifest.HandoverScript,
		Kernel: file, Initrd: initrd, Payload: payload,
	}
	data, err := m.Encode()
	if err != nil {
		return err
	}
	b.digest, b.sha256 = manifest.DigestOf(data), payload.SHA256
	return os.WriteFile(filepath.Join(b.work, fetch.ManifestName), data, 0o644)
}

func (b *bench) measure(ctx context.Context, pairs int) ([]rows.Row, error) {
	var table []rows.Row
	for _, c := range []struct {
		name, peer string
		cut        int // one of so many requests; 0: none
		curl       []string
		target     float64
	}{
		{"fetch, each chunk checked", "curl", 0, nil, 0.95},
		{"fetch, 1 % of requests cut", "curl --retry -C -", 100, []string{"--retry", "20", "--retry-all-errors", "-C", "-"}, 0.8},
	} {
		fmt.Fprintf(b.stderr, "bench fetch: %s, %d pairs of %.0f MB\n", c.name, pairs, b.bytes/1e6)
		ours, curls, err := b.pairs(ctx, pairs, c.cut, c.curl)
		if err != nil {
			return nil, err
		}
		table = append(table, rows.New(c.name, rows.Median(ours), "MB/s").Beside(c.peer, rows.Median(curls)).RatioAtLeast(c.target))
	}
	return table, nil
}

// pairs runs both clients in turn, and returns the MB/s of each run.
func (b *bench) pairs(ctx context.Context, pairs, cut int, curl []string) (ours, curls []float64, err error) {
	url, stop, err := b.serve(cut)
	if err != nil {
		return nil, nil, err
	}
	defer stop()
	for i := range pairs + 1 {
		into := filepath.Join(b.work, "got")
		a, err := b.timed(ctx, into, b.self, "-client", url, "-digest", b.digest, "-into", into)
		if err != nil {
			return nil, nil, err
		}
		c, err := b.timed(ctx, into, "curl", append([]string{"-sS", "-o", into, url + fetch.PayloadName}, curl...)...)
		if err != nil {
			return nil, nil, err
		}
		if i > 0 { // the first pair warms up
			ours, curls = append(ours, a), append(curls, c)
		}
	}
	return ours, curls, nil
}

// timed runs a client into a new file and checks what it wrote.
func (b *bench) timed(ctx context.Context, into, name string, args ...string) (float64, error) {
	if err := os.RemoveAll(into); err != nil {
		return 0, err
	}
	begun := time.Now()
	out, err := exec.CommandContext(ctx, name, args...).CombinedOutput()
	took := time.Since(begun)
	if err != nil {
		return 0, fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	f, err := os.Open(into)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sum, err := manifest.HashFile(fetch.PayloadName, f)
	if err == nil && sum.SHA256 != b.sha256 {
		err = fmt.Errorf("%s: what it fetched has sha256 %s, want %s", name, sum.SHA256, b.sha256)
	}
	return b.bytes / 1e6 / took.Seconds(), err
}

// serve is the mirror. One of so many requests for the payload ends early, at a
// place that the seed decides.
func (b *bench) serve(cut int) (url string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	var mu sync.Mutex
	dice := rand.New(rand.NewPCG(1, 2))
	files := http.FileServer(http.Dir(b.work))
	s := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		broken := cut > 0 && dice.IntN(cut) == 0
		left := dice.Int64N(manifest.ChunkSize)
		mu.Unlock()
		if broken && strings.HasSuffix(r.URL.Path, fetch.PayloadName) {
			w = &breaking{w, left}
		}
		files.ServeHTTP(w, r)
	})}
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	return "http://" + l.Addr().String() + "/", func() { _ = s.Close(); <-served }, nil
}

// breaking is an answer that ends after some bytes.
type breaking struct {
	http.ResponseWriter

	left int64
}

// ReadFrom keeps the fast way through the kernel, as for the other answers.
func (b *breaking) ReadFrom(r io.Reader) (int64, error) {
	n, err := io.Copy(b.ResponseWriter, io.LimitReader(r, b.left))
	if b.left -= n; b.left == 0 && err == nil {
		var more [1]byte
		if m, _ := r.Read(more[:]); m > 0 {
			panic(http.ErrAbortHandler)
		}
	}
	return n, err
}

func (b *breaking) Write(p []byte) (int, error) {
	n, err := b.ReadFrom(bytes.NewReader(p))
	return int(n), err
}
