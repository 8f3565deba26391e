// Command image measures what `xnodeos image build` costs: the squashfs writer
// beside mksquashfs, the ISO and the netboot tree of pocket and then all formats
// from a warm store, a rebuild with another node config, what a machine has to
// load, and whether builds of all formats in different circumstances are the
// same bytes.
//
// It runs the programs as a user does and takes medians. Targets are printed
// beside the figures; missing one is no error.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"xnodeos.org/imagebuild"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/test/bench/rows"
	"xnodeos.org/test/repeat"
)

func main() { os.Exit(rows.Run("image", os.Args[1:], os.Stdout, os.Stderr, run)) }

type options struct {
	pairs, runs int
	json        bool
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var opt options
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&opt.pairs, "pairs", 7, "pairs of runs of the squashfs writer and its peer")
	flags.IntVar(&opt.runs, "runs", 5, "runs of each build")
	flags.BoolVar(&opt.json, "json", false, "print JSON rows in place of a table")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if opt.pairs < 1 || opt.runs < 1 {
		return errors.New("-pairs and -runs: want 1 or more")
	}
	b, err := newBench(ctx, stderr)
	if err != nil {
		return err
	}
	defer repeat.RemoveAll(b.work) // a temporary folder: nothing depends on it
	table, err := b.measure(ctx, opt)
	if err != nil {
		return err
	}
	if opt.json {
		return rows.WriteJSON(stdout, table)
	}
	return rows.WriteTable(stdout, table)
}

type bench struct {
	root, work, cache, program string
	stderr                     io.Writer
}

func newBench(ctx context.Context, stderr io.Writer) (*bench, error) {
	root, err := testkit.Root(".")
	if err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, err
	}
	work, err := os.MkdirTemp("", "xnodeos-bench-image-")
	if err != nil {
		return nil, err
	}
	b := &bench{root: root, work: work, cache: filepath.Join(cache, "xnodeos"), stderr: stderr}
	// Another user must be able to enter it.
	if err := os.Chmod(work, 0o755); err != nil {
		return b, err
	}
	b.program, err = testkit.BuildPrograms(ctx, root, filepath.Join(work, "programs"))
	return b, err
}

func (b *bench) measure(ctx context.Context, opt options) ([]rows.Row, error) {
	table, err := b.squashfs(ctx, opt.pairs)
	if err != nil {
		return nil, err
	}
	for _, part := range []func(context.Context, int) ([]rows.Row, error){b.builds, b.everything, b.rebuilds, b.circumstances} {
		more, err := part(ctx, opt.runs)
		if err != nil {
			return nil, err
		}
		table = append(table, more...)
	}
	return table, nil
}

func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.stderr, "bench image: "+format+"\n", args...)
}

// squashfs runs the other measurement as it is and takes its rows over.
func (b *bench) squashfs(ctx context.Context, pairs int) ([]rows.Row, error) {
	b.say("squashfs beside mksquashfs, %d pairs", pairs)
	program := filepath.Join(b.work, "squashfs")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, "./test/bench/squashfs")
	build.Dir, build.Stderr = b.root, b.stderr
	if err := build.Run(); err != nil {
		return nil, fmt.Errorf("build the squashfs measurement: %w", err)
	}
	cmd := exec.CommandContext(ctx, program, "-json", "-pairs", strconv.Itoa(pairs))
	cmd.Stderr = b.stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("measure squashfs: %w", err)
	}
	return rows.ReadJSON(bytes.NewReader(out))
}

// nodeConfig makes a node config that differs from others in its name.
func (b *bench) nodeConfig(name string) (string, error) {
	dir := filepath.Join(b.work, "node-"+name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "hostname"), []byte(name+"\n"), 0o644)
}

func (b *bench) builder(config string) repeat.Builder {
	return repeat.Builder{
		Program: b.program, Cache: b.cache, Work: b.work,
		Args: []string{"--system", "pocket", "--format", "iso,netboot", "--node-config", config},
	}
}

// allFormats writes everything that there is.
func (b *bench) allFormats(config string) repeat.Builder {
	all := b.builder(config)
	all.Args = []string{"--system", "pocket", "--format", strings.Join(imagebuild.FormatNames(), ","), "--embed-payload", "--node-config", config}
	return all
}

// builds times the whole of both formats: pocket is in the Nix store, nothing
// else is cached, so that payload, hashes and images are made anew.
func (b *bench) builds(ctx context.Context, runs int) ([]rows.Row, error) {
	config, err := b.nodeConfig("first")
	if err != nil {
		return nil, err
	}
	b.say("ISO and netboot tree of pocket, %d runs", runs)
	var seconds []float64
	var loaded float64
	for i := range runs + 1 {
		dir, took, err := b.builder(config).Build(ctx, repeat.Circumstance{Name: fmt.Sprintf("build %d", i)})
		if err != nil {
			return nil, err
		}
		if i > 0 { // the first run builds pocket and warms the page cache
			seconds = append(seconds, took.Seconds())
		}
		if loaded, err = size(filepath.Join(dir, "netboot", "vmlinuz"), filepath.Join(dir, "netboot", "initrd")); err != nil {
			return nil, err
		}
		if err := repeat.RemoveAll(filepath.Dir(dir)); err != nil {
			return nil, err
		}
	}
	return []rows.Row{
		rows.New("ISO and netboot tree of pocket, warm store", rows.Median(seconds), "s").AtMost(8),
		rows.New("kernel + initrd, pocket", loaded/1e6, "MB").AtMost(20),
	}, nil
}

// everything times all formats in the same way.
func (b *bench) everything(ctx context.Context, runs int) ([]rows.Row, error) {
	config, err := b.nodeConfig("every")
	if err != nil {
		return nil, err
	}
	b.say("all formats of pocket, %d runs", runs)
	var seconds []float64
	for i := range runs {
		dir, took, err := b.allFormats(config).Build(ctx, repeat.Circumstance{Name: fmt.Sprintf("every %d", i)})
		if err != nil {
			return nil, err
		}
		seconds = append(seconds, took.Seconds())
		if err := repeat.RemoveAll(filepath.Dir(dir)); err != nil {
			return nil, err
		}
	}
	return []rows.Row{rows.New("all formats of pocket, warm store", rows.Median(seconds), "s").AtMost(15)}, nil
}

// rebuilds times what a user waits for who changed a file of the node config.
func (b *bench) rebuilds(ctx context.Context, runs int) ([]rows.Row, error) {
	b.say("rebuild with another node config, %d runs", runs)
	var seconds []float64
	out := filepath.Join(b.work, "rebuild")
	for i := range runs + 1 {
		config, err := b.nodeConfig(fmt.Sprintf("rebuild%d", i))
		if err != nil {
			return nil, err
		}
		cmd := exec.CommandContext(ctx, b.program, append([]string{"image", "build", "--out", out}, b.builder(config).Args...)...)
		begun := time.Now()
		if output, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("rebuild: %w\n%s", err, output)
		}
		if i > 0 { // the first run fills the caches
			seconds = append(seconds, time.Since(begun).Seconds())
		}
	}
	return []rows.Row{rows.New("rebuild, only the node config changed", rows.Median(seconds), "s").AtMost(1)}, nil
}

// circumstances counts the files that come out with other bytes.
func (b *bench) circumstances(ctx context.Context, _ int) ([]rows.Row, error) {
	config, err := b.nodeConfig("same")
	if err != nil {
		return nil, err
	}
	first, _, err := b.allFormats(config).Build(ctx, repeat.Circumstance{Name: "first"})
	if err != nil {
		return nil, err
	}
	want, err := repeat.Sums(first)
	if err != nil {
		return nil, err
	}
	var table []rows.Row
	for _, c := range repeat.Circumstances() {
		b.say("two builds compared: %s", c.Name)
		dir, _, err := b.allFormats(config).Build(ctx, c)
		if err != nil {
			return nil, err
		}
		got, err := repeat.Sums(dir)
		if err != nil {
			return nil, err
		}
		differing := len(repeat.Differing(want, got))
		table = append(table, rows.New(fmt.Sprintf("files that differ, all formats, built %s (of %d)", c.Name, len(want)), float64(differing), "files").AtMost(0))
		if err := repeat.RemoveAll(filepath.Dir(dir)); err != nil {
			return nil, err
		}
	}
	return table, nil
}

// size sums files up, in bytes.
func size(paths ...string) (float64, error) {
	var sum float64
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil {
			return 0, err
		}
		sum += float64(info.Size())
	}
	return sum, nil
}
