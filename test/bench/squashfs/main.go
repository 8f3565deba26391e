// Command squashfs measures imagebuild/squashfs beside mksquashfs: the wall
// time of whole processes that read the same tree from the page cache and
// write an image, in alternating pairs, and the sizes of the images.
//
// It prints rows as scripts/bench collects them. It does not check the images;
// the tests of imagebuild/squashfs and test/qemu do.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"xnodeos.org/imagebuild/squashfs"
	"xnodeos.org/internal/command"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case err != nil:
		fmt.Fprintf(os.Stderr, "bench squashfs: %v\n", err)
		os.Exit(1)
	}
}

// row is one measured figure; ratio is value divided by peer_value.
type row struct {
	Name      string  `json:"name"`
	Value     float64 `json:"value"`
	Unit      string  `json:"unit"`
	Peer      string  `json:"peer"`
	PeerValue float64 `json:"peer_value"`
	Ratio     float64 `json:"ratio"`
	Target    string  `json:"target"`
	OK        bool    `json:"ok"`
}

type config struct {
	tree  string
	pairs int
	procs int
	json  bool
	write string
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	var c config
	flags := flag.NewFlagSet("squashfs", flag.ContinueOnError)
	flags.StringVar(&c.tree, "tree", "", "folder to pack; empty: a tree of about 300 MB is made from Go's and the host's /usr/lib")
	flags.IntVar(&c.pairs, "pairs", 7, "pairs of runs; the medians are reported")
	flags.IntVar(&c.procs, "procs", 2, "cores that each side may use")
	flags.BoolVar(&c.json, "json", false, "print JSON rows in place of a table")
	flags.StringVar(&c.write, "write", "", "only write -tree to this file once: what the benchmark runs as a process of its own")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if c.write != "" {
		return write(ctx, c.tree, c.write)
	}
	if c.pairs < 1 || c.procs < 1 {
		return errors.New("-pairs and -procs: want 1 or more")
	}
	work, err := os.MkdirTemp("", "xnodeos-bench-squashfs-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(work) }() // nothing but our own copies
	if c.tree == "" {
		c.tree = filepath.Join(work, "tree")
		if err := makeTree(ctx, c.tree); err != nil {
			return fmt.Errorf("make a tree: %w", err)
		}
	}
	rows, err := measure(ctx, c, work)
	if err != nil {
		return err
	}
	return show(stdout, rows, c.json)
}

// write is our side of a pair.
func write(ctx context.Context, tree, file string) error {
	src, err := squashfs.Tree(tree)
	if err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	_, err = squashfs.Write(ctx, out, src, squashfs.Options{})
	return errors.Join(err, out.Close())
}

// measure runs the pairs. The first one only warms the page cache.
func measure(ctx context.Context, c config, work string) ([]row, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ours, theirs := filepath.Join(work, "ours.squashfs"), filepath.Join(work, "peer.squashfs")
	sides := []struct {
		file string
		cmd  command.Cmd
	}{
		{ours, command.Cmd{
			Name: self, Args: []string{"-tree", c.tree, "-write", ours},
			AddEnv: []string{fmt.Sprintf("GOMAXPROCS=%d", c.procs)},
		}},
		{theirs, command.Cmd{
			Name: "mksquashfs", Package: "squashfs-tools",
			Args: []string{c.tree, theirs, "-comp", "zstd", "-Xcompression-level", "3", "-b", "128K", "-no-xattrs",
				"-noappend", "-no-progress", "-quiet", "-processors", fmt.Sprint(c.procs)},
		}},
	}
	var walls [2][]float64
	var sizes [2]float64
	for pair := range c.pairs + 1 {
		for turn := range sides {
			side := (turn + pair) % len(sides) // neither always comes second
			if err := os.Remove(sides[side].file); err != nil && !os.IsNotExist(err) {
				return nil, err
			}
			begin := time.Now()
			if err := command.Run(ctx, sides[side].cmd); err != nil {
				return nil, err
			}
			if pair > 0 {
				walls[side] = append(walls[side], time.Since(begin).Seconds())
			}
			info, err := os.Stat(sides[side].file)
			if err != nil {
				return nil, err
			}
			sizes[side] = float64(info.Size())
		}
	}
	files, bytes, err := count(c.tree)
	if err != nil {
		return nil, err
	}
	what := fmt.Sprintf("squashfs of %.0f MB, %d files, %d cores", float64(bytes)/1e6, files, c.procs)
	const peer = "mksquashfs -comp zstd -Xcompression-level 3 -b 128K"
	return []row{
		newRow(what+": wall", median(walls[0]), "s", peer, median(walls[1]), 1.0),
		newRow(what+": size", sizes[0]/1e6, "MB", peer, sizes[1]/1e6, 1.03),
	}, nil
}

func newRow(name string, value float64, unit, peer string, peerValue, limit float64) row {
	ratio := value / peerValue
	return row{name, value, unit, peer, peerValue, ratio, fmt.Sprintf("<= %.2fx", limit), ratio <= limit}
}

func median(v []float64) float64 {
	slices.Sort(v)
	if len(v)%2 == 1 {
		return v[len(v)/2]
	}
	return (v[len(v)/2-1] + v[len(v)/2]) / 2
}

func show(w io.Writer, rows []row, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(w).Encode(map[string][]row{"rows": rows})
	}
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(table, "figure\tours\tpeer\tratio\ttarget\tok") // errors come out of Flush
	for _, r := range rows {
		_, _ = fmt.Fprintf(table, "%s\t%.2f %s\t%.2f %s\t%.3f\t%s\t%v\n", r.Name, r.Value, r.Unit, r.PeerValue, r.Unit, r.Ratio, r.Target, r.OK)
	}
	return table.Flush()
}
