// Command squashfs measures imagebuild/squashfs beside mksquashfs: the wall
// time of whole processes that read the same tree from the page cache and
// write an image, in alternating pairs, and the sizes of the images.
//
// It prints rows as scripts/bench collects them. It does not check the images;
// the tests of imagebuild/squashfs and test/qemu do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"xnodeos.org/imagebuild/squashfs"
	"xnodeos.org/internal/command"
	"xnodeos.org/test/bench/rows"
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
	flags.StringVar(&c.tree, "tree", "", "folder to pack; empty: two trees are made of Go's own and of the host's files")
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
	table, err := measureAll(ctx, c, work)
	if err != nil {
		return err
	}
	if c.json {
		return rows.WriteJSON(stdout, table)
	}
	return rows.WriteTable(stdout, table)
}

// measureAll measures the tree that was asked for, or those that are made: a
// mixed one, for which there are targets, and one of programs, whose figures
// are only reported.
func measureAll(ctx context.Context, c config, work string) ([]rows.Row, error) {
	if c.tree != "" {
		return measure(ctx, c, work, target{"tree", 1.0, 1.03})
	}
	var table []rows.Row
	for _, made := range []struct {
		target
		make func(context.Context, string) error
	}{
		{target{"mixed tree", 1.0, 1.03}, makeMixed},
		{target{name: "programs"}, makePrograms},
	} {
		c.tree = filepath.Join(work, made.name)
		if err := made.make(ctx, c.tree); err != nil {
			return nil, fmt.Errorf("make a tree: %w", err)
		}
		more, err := measure(ctx, c, work, made.target)
		if err != nil {
			return nil, err
		}
		table = append(table, more...)
	}
	return table, nil
}

// target says which ratios to the peer are wanted; 0 is none.
type target struct {
	name       string
	wall, size float64
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
func measure(ctx context.Context, c config, work string, want target) ([]rows.Row, error) {
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
	what := fmt.Sprintf("squashfs of %s, %.0f MB, %d files, %d cores", want.name, float64(bytes)/1e6, files, c.procs)
	const peer = "mksquashfs -comp zstd -Xcompression-level 3 -b 128K"
	wall := rows.New(what+": wall", rows.Median(walls[0]), "s").Beside(peer, rows.Median(walls[1]))
	size := rows.New(what+": size", sizes[0]/1e6, "MB").Beside(peer, sizes[1]/1e6)
	if want.wall > 0 {
		wall, size = wall.RatioAtMost(want.wall), size.RatioAtMost(want.size)
	}
	return []rows.Row{wall, size}, nil
}
