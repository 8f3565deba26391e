// Command try is the second half of scripts/try: the project's main job from
// end to end, with nothing but real parts. It makes a fleet on this machine
// (PowerDNS, git, a binary cache), builds the images of its node, boots the ISO
// in QEMU, and announces three releases: what runs, a better one, and a broken
// one, which the node takes back by itself.
//
// It measures what it sees and asserts what must be so. Exit codes: 0 the story
// ended well, 1 it did not (the last message says where).
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"xnodeos.org/internal/vm"
	"xnodeos.org/test/repeat"
)

// options are the words of scripts/try.
type options struct {
	xnodeos  string
	work     string // folder for everything but the artifacts
	out      string // for the artifacts
	firmware string
	as       string
	memory   int // MiB
}

func main() {
	var o options
	flag.StringVar(&o.xnodeos, "xnodeos", "", "the operator's program")
	flag.StringVar(&o.work, "work", "", "folder for the fleet, the node config and the console log")
	flag.StringVar(&o.out, "out", "out", "folder for the artifacts")
	flag.StringVar(&o.firmware, "firmware", "bios", "bios or uefi")
	flag.StringVar(&o.as, "as", "cd", "cd, disk or usb")
	flag.IntVar(&o.memory, "memory", 768, "the machine's memory in MiB")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "try: error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	begun := time.Now()
	s, err := newStory(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.end()) }()
	for _, step := range []func(context.Context) error{s.build, s.boot, s.first, s.better, s.broken, s.history} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	s.row("everything after setup", seconds(time.Since(begun)))
	s.table()
	fmt.Printf("==> the node follows its fleet. Once more, by hand: %s vm run %s\n", o.xnodeos, s.iso)
	return nil
}

// machine is what the ISO is booted in.
func (o options) machine(iso string, port uint16) (vm.Machine, error) {
	m := vm.Machine{
		Firmware: vm.Firmware(o.firmware), MemoryMiB: o.memory,
		Drives: []vm.Drive{{File: iso, As: vm.Attach(o.as), Snapshot: o.as != "cd"}},
		Nets:   []vm.Net{{Kind: vm.UserNet, Forwards: []vm.Forward{{Host: port, Guest: 22}}}},
	}
	if m.Firmware == vm.UEFI {
		var err error
		if m.OVMF, err = vm.FindOVMF("/usr/share", ""); err != nil {
			return m, err
		}
	}
	return m, nil
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// megabytes is the size of files together.
func megabytes(names ...string) string {
	var sum int64
	for _, name := range names {
		if info, err := os.Stat(name); err == nil {
			sum += info.Size()
		}
	}
	return fmt.Sprintf("%.1f MB", float64(sum)/1e6)
}

// one returns the only file that a pattern matches.
func one(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) != 1 {
		return "", fmt.Errorf("files %s: %d found, want one", pattern, len(found))
	}
	return found[0], nil
}

// sameFiles compares every file below want with the one of its name below got.
func sameFiles(want, got string) error {
	wanted, err := repeat.Sums(want)
	if err != nil {
		return err
	}
	have, err := repeat.Sums(got)
	if err != nil {
		return err
	}
	for name, sum := range wanted {
		if have[name] != sum {
			return fmt.Errorf("%s has other bytes", name)
		}
	}
	return nil
}
