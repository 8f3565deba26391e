package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/vm"
	"xnodeos.org/test/site"
)

// limit bounds a boot, and the way of one release.
const limit = 4 * time.Minute

// timings let the story be told in minutes; a node of a user waits longer.
const timings = "\n[activate]\nswitch_timeout = \"2m\"\nprobe_timeout = \"90s\"\nsettle = \"5s\"\nstable_uptime = \"1s\"\n"

// story is what scripts/try tells.
type story struct {
	options

	site  *site.Site
	iso   string
	vm    *vm.VM
	log   *os.File
	login site.Login
	rows  [][2]string
}

func newStory(ctx context.Context, o options) (*story, error) {
	s := &story{options: o}
	if err := os.RemoveAll(o.work); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.work, 0o755); err != nil {
		return nil, err
	}
	work, err := filepath.Abs(o.work)
	if err != nil {
		return nil, err
	}
	say("a fleet on this machine: PowerDNS, a git server, a binary cache; keys and config repository by xnodeos init")
	s.site, err = site.Start(ctx, site.Options{Dir: work, Xnodeos: o.xnodeos, Agent: timings, Log: func(line string) { fmt.Println("    " + line) }})
	if err != nil {
		return nil, err
	}
	return s, s.prepareNode(ctx, work)
}

// prepareNode completes the fleet's node config as a user would: a name, and
// who may log in.
func (s *story) prepareNode(ctx context.Context, work string) error {
	key := filepath.Join(work, "key")
	if err := command.Run(ctx, command.Cmd{Name: "ssh-keygen", Args: []string{"-q", "-t", "ed25519", "-N", "", "-C", "xnodeos try", "-f", key}, Package: "openssh-client"}); err != nil {
		return err
	}
	public, err := os.ReadFile(key + ".pub")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.site.Node, "authorized_keys"), public, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.site.Node, "hostname"), []byte("try\n"), 0o644); err != nil {
		return err
	}
	port, err := vm.FreePort(ctx)
	if err != nil {
		return err
	}
	s.login, err = site.LoadLogin(fmt.Sprintf("127.0.0.1:%d", port), key)
	return err
}

// build makes the images twice: the first time with what the caches have, the
// second time to compare.
func (s *story) build(ctx context.Context) error {
	say("building the ISO and the netboot tree of the pocket system")
	var took [2]time.Duration
	folders := [2]string{s.out, filepath.Join(s.work, "again")}
	for i, out := range folders {
		begun := time.Now()
		err := command.Run(ctx, command.Cmd{
			Name:   s.xnodeos,
			Args:   []string{"image", "build", "--system", "pocket", "--format", "iso,netboot", "--node-config", s.site.Node, "--out", out},
			Stdout: os.Stdout, Stderr: os.Stderr, Foreground: true,
		})
		if err != nil {
			return fmt.Errorf("image build: %w", err)
		}
		took[i] = time.Since(begun)
	}
	again, err := one(filepath.Join(folders[1], "*.iso"))
	if err != nil {
		return err
	}
	s.iso = filepath.Join(s.out, filepath.Base(again)) // out may hold other artifacts as well
	if err := sameFiles(folders[1], folders[0]); err != nil {
		return fmt.Errorf("two builds of the same input differ: %w", err)
	}
	netboot := filepath.Join(s.out, "netboot")
	s.row("payload (squashfs)", megabytes(filepath.Join(netboot, "system.squashfs")))
	s.row("kernel + initrd", megabytes(filepath.Join(netboot, "vmlinuz"), filepath.Join(netboot, "initrd")))
	s.row("ISO", megabytes(s.iso))
	s.row("ISO and netboot tree", seconds(took[0]))
	s.row("the same again", seconds(took[1])+", identical bytes")
	return nil
}

// boot starts the ISO and waits until the system says that it is up.
func (s *story) boot(ctx context.Context) error {
	say("booting %s as %s with %s firmware and %d MiB of memory (QEMU)", s.iso, s.as, s.firmware, s.memory)
	var port uint16
	if _, err := fmt.Sscanf(s.login.Addr, "127.0.0.1:%d", &port); err != nil {
		return err
	}
	m, err := s.machine(s.iso, port)
	if err != nil {
		return err
	}
	if s.log, err = os.Create(filepath.Join(s.work, "console.log")); err != nil {
		return err
	}
	s.vm, err = vm.Start(ctx, m, vm.Options{Now: time.Now, SerialLog: s.log, OnLine: func(l vm.Line) {
		if strings.Contains(l.Text, "xnode-init: ") || strings.Contains(l.Text, "XNODE-READY") {
			fmt.Println("    " + l.Text)
		}
	}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	line, err := s.vm.Expect(ctx, vm.Text("XNODE-READY "))
	if err != nil {
		return fmt.Errorf("the node did not come up; its console is in %s: %w", s.log.Name(), err)
	}
	if m := regexp.MustCompile(`seconds=([0-9.]+)`).FindStringSubmatch(line.Text); m != nil {
		s.row("XNODE-READY after kernel start", m[1]+" s")
	}
	s.row("XNODE-READY after QEMU start", seconds(line.At))
	return nil
}

// first announces what runs already.
func (s *story) first(ctx context.Context) error {
	return s.release(ctx, "1: what runs already", "pocket", `(idle|settled) release=1 `, "")
}

// better announces a system that differs visibly.
func (s *story) better(ctx context.Context) error {
	return s.release(ctx, "2: another greeting", "pocket:label=pocket-2,greeting=Hello from release 2", `settled release=2 .*system=xnodeos-pocket-2`, "applied, probed, committed")
}

// broken announces a system with a unit that fails.
func (s *story) broken(ctx context.Context) error {
	if err := s.release(ctx, "3: broken on purpose", "pocket:label=pocket-3,broken=unit", `(idle|degraded).* release=3 system=xnodeos-pocket-2.*(quarantine|went back)`, "tried, taken back, quarantined"); err != nil {
		return err
	}
	now, err := s.login.Output(ctx, "readlink -f /run/current-system")
	if err != nil {
		return err
	}
	if !strings.HasSuffix(now, "-xnodeos-pocket-2") {
		return fmt.Errorf("after the broken release the node runs %s; want pocket-2", now)
	}
	return nil
}

// release announces one system and watches the node until it has dealt with it.
func (s *story) release(ctx context.Context, name, system, done, row string) error {
	say("release %s", name)
	got, err := s.site.Release(ctx, system)
	if err != nil {
		return err
	}
	fmt.Printf("    announced: %s\n", got.Record)
	begun := time.Now()
	if err := s.watch(ctx, regexp.MustCompile(done)); err != nil {
		return fmt.Errorf("release %s: %w; the node's console is in %s", name, err, s.log.Name())
	}
	if row != "" {
		s.row("release "+name[:1]+" "+row, seconds(time.Since(begun)))
	}
	return nil
}

// errSeen ends a watch.
var errSeen = errors.New("seen")

// watch shows `xnode watch` of the node until a line matches.
func (s *story) watch(ctx context.Context, done *regexp.Regexp) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := s.watchOnce(ctx, done)
		if errors.Is(err, errSeen) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("the node did not come to %q in %s: %w", done, limit, err)
		}
		// The agent is replaced in the middle of a switch: look again.
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (s *story) watchOnce(ctx context.Context, done *regexp.Regexp) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r, w := io.Pipe()
	go func() {
		err := s.login.Run(ctx, "xnode poll; exec xnode watch", w)
		w.CloseWithError(errors.Join(err, io.EOF))
	}()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		fmt.Println("    try  " + lines.Text())
		if done.MatchString(lines.Text()) {
			cancel(errSeen)
			_ = r.Close()
			return errSeen
		}
	}
	return lines.Err()
}

// history prints what the node tells about all this.
func (s *story) history(ctx context.Context) error {
	say("what the node tells about it")
	for _, command := range []string{"xnode history", "xnode status || true", "cat /etc/motd"} {
		fmt.Printf("    try# %s\n", command)
		out, err := s.login.Output(ctx, command)
		if err != nil {
			return err
		}
		fmt.Println("    " + strings.ReplaceAll(out, "\n", "\n    "))
	}
	return nil
}

func (s *story) end() error {
	var errs []error
	if s.vm != nil {
		s.vm.Stop()
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	if s.site != nil {
		errs = append(errs, s.site.Close())
	}
	return errors.Join(errs...)
}

func (s *story) row(what, value string) { s.rows = append(s.rows, [2]string{what, value}) }

func (s *story) table() {
	fmt.Println()
	fmt.Printf("| %-46s | %-36s |\n| %-46s | %-36s |\n", "what", "this run", ":---", ":---")
	for _, r := range s.rows {
		fmt.Printf("| %-46s | %-36s |\n", r[0], r[1])
	}
	fmt.Println()
}

func say(format string, args ...any) { fmt.Printf("==> "+format+"\n", args...) }
