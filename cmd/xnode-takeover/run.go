package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"xnodeos.org/imagebuild/takeoverfile"
	"xnodeos.org/internal/nodeconfig"
	"xnodeos.org/netboot/netsnap"
	"xnodeos.org/netboot/takeover"
)

// host is what the process was given.
type host struct {
	stdin          *os.File
	stdout, stderr io.Writer
	program        string // this program's own file
	sudoUser       string
}

func run(ctx context.Context, args []string, h host) error {
	w, err := parse(args)
	if err != nil {
		return err
	}
	if w.help {
		_, err := io.WriteString(h.stdout, help)
		return err
	}
	if !w.dryRun && !w.yes && !term.IsTerminal(int(h.stdin.Fd())) {
		return &usageError{"nobody is there to ask: say --yes, or --dry-run to only look"}
	}
	data, err := mapFile(h.program)
	if err != nil {
		return err
	}
	src, err := open(ctx, data)
	if err != nil {
		return err
	}
	opt, err := options(w, h.sudoUser)
	if err != nil {
		return err
	}
	plan, err := takeover.Prepare(ctx, src, opt, data)
	if err != nil {
		return err
	}
	if err := show(w, h, &plan.Verdict); err != nil {
		return err
	}
	if err := plan.Verdict.Err(); err != nil || w.dryRun {
		return err
	}
	if !w.yes && !agreed(h, plan.Verdict.Label) {
		return errors.New("not confirmed; nothing was changed")
	}
	return goOver(ctx, h, plan)
}

// mapFile makes the file's bytes readable without reading them: most of them
// are only handed on to the kernel.
func mapFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open this program's own file: %w", err)
	}
	defer f.Close() // the mapping stays
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("open this program's own file: %w", err)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map this program's own file: %w", err)
	}
	return data, nil
}

func open(ctx context.Context, data []byte) (takeover.Source, error) {
	var src takeover.Source
	f, err := takeoverfile.Open(bytes.NewReader(data), int64(len(data)))
	if errors.Is(err, takeoverfile.ErrNoArchive) {
		return src, errors.New("this is the bare program, with no system in it; make a takeover file with `xnodeos image build --format takeover`")
	}
	if err == nil {
		err = f.Verify(ctx)
	}
	if err != nil {
		return src, err
	}
	if src.Cmdline, err = f.Line(); err != nil {
		return src, err
	}
	part := func(p takeoverfile.Part) []byte { return data[p.Offset : p.Offset+p.Size : p.Offset+p.Size] }
	src.ManifestRaw, src.Kernel, src.Initrd = part(f.Manifest), part(f.Kernel), part(f.Initrd)
	if f.Payload != nil {
		src.Payload = part(*f.Payload)
	}
	return src, nil
}

func options(w words, sudoUser string) (takeover.Options, error) {
	opt := takeover.Options{Root: os.DirFS("/"), URLs: w.urls, Append: w.append, Methods: w.methods, SudoUser: sudoUser}
	var err error
	if opt.Process, err = takeover.ReadProcess(); err != nil {
		return opt, err
	}
	if w.nodeConfig != "" {
		if opt.NodeConfig, err = nodeconfig.ReadDir(w.nodeConfig); err != nil {
			return opt, err
		}
	}
	network, err := netsnap.Take(opt.Root)
	if err != nil {
		return opt, err
	}
	carried := network.Carry()
	opt.Words, opt.Cards = carried.Words, carried.Cards
	named := opt.NodeConfig != nil && opt.NodeConfig.Files["network"] != nil
	if named {
		// Who names the network knows better.
		given, err := opt.NodeConfig.Network()
		if err != nil {
			return opt, err
		}
		opt.Words = nil
		for _, word := range given {
			opt.Words = append(opt.Words, word.Text)
		}
	}
	for _, l := range carried.Lost {
		opt.Lost = append(opt.Lost, takeover.Loss{Text: l.Text, Cut: l.Cut && !named})
	}
	return opt, nil
}

func show(w words, h host, v *takeover.Verdict) error {
	if !w.json {
		return v.WriteText(h.stdout)
	}
	out := json.NewEncoder(h.stdout)
	out.SetIndent("", "  ")
	return out.Encode(v)
}

func agreed(h host, label string) bool {
	fmt.Fprintf(h.stderr, "This machine will now stop what it runs and start %s. Type yes: ", label)
	line, err := bufio.NewReader(h.stdin).ReadString('\n')
	return err == nil && strings.TrimSpace(line) == "yes"
}

// goOver loads the new system and leaves the old one.
func goOver(ctx context.Context, h host, plan *takeover.Plan) error {
	peak, err := plan.Load()
	if err != nil {
		return err
	}
	image := plan.Verdict.Memory.Image
	fmt.Fprintf(h.stderr, "xnodeos-takeover: loaded by %s; that took %d MiB at its peak, %.2f times the image of %d MiB\n",
		plan.Verdict.Method, peak>>20, float64(peak)/float64(image), image>>20)
	if err := ctx.Err(); err != nil {
		return errors.Join(err, plan.Unload())
	}
	if err := takeover.Leave(ctx, h.program); err != nil {
		return errors.Join(err, plan.Unload())
	}
	fmt.Fprintf(h.stderr, "xnodeos-takeover: starting %s in a moment; this session ends, and the same address and host keys answer again in a minute\n", plan.Verdict.Label)
	return nil
}
