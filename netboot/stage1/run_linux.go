package stage1

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/kmod"
	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/nodeconfig"
)

// Bounds of the waits on the main path. None of them is reached on a machine
// whose devices answer.
const (
	// configWait bounds the wait for a volume XNODE-CFG, configRead the time that
	// reading it may take in addition.
	configWait = 15 * time.Second
	configRead = 30 * time.Second
	// dhcpWait is how long a hand-over with a local payload is held up by a
	// server that has not answered: only the boot record wants to know the
	// address, and the system asks again anyway.
	dhcpWait = 2 * time.Second
	// stopWait bounds the end of goroutines that may sit in a system call.
	stopWait  = 2 * time.Second
	flushWait = 2 * time.Second
	lookPause = 20 * time.Millisecond
	// driverLoaders is how many drivers start at the same time.
	driverLoaders = 4
)

// stage is one run of the first stage.
type stage struct {
	con     *Console
	watch   *Stopwatch
	options Options

	mu    sync.Mutex
	notes []string

	modules *Modules
	devices *Devices
	volumes *Volumes
	// networks gets the network as soon as the node config is settled.
	networks chan *Network

	stop context.CancelFunc // ends all background work
	jobs sync.WaitGroup
}

// Run is the first stage, from the first mount to the system's init, which takes
// the place of this program. It returns only where not even a reboot works; PID 1
// ends then, and the kernel panics.
func Run(ctx context.Context) error {
	s := &stage{con: NewConsole(uptime), watch: NewStopwatch(uptime), options: Options{Panic: DefaultPanic},
		networks: make(chan *Network, 1)}
	err := guard(func() error { return s.boot(ctx) })
	return s.fail(ctx, err)
}

func (s *stage) boot(ctx context.Context) error {
	if err := s.begin(); err != nil {
		return err
	}
	embedded, err := nodeconfig.ReadBooted(os.DirFS("/"))
	if err != nil {
		return stepError("read node config", err, "")
	}
	takeover, err := nodeconfig.ReadTakeover(os.DirFS("/"))
	if err != nil {
		return stepError("read hand-over", err, "the memory of this machine may be bad")
	}
	brought := broughtConfig{embedded, takeover}
	// A volume that anybody may plug in says nothing about trust in the payload.
	delivered, _ := brought.with(nil)
	want, err := s.wanted(delivered)
	if err != nil {
		return err
	}
	work, cancel := context.WithCancel(ctx)
	s.stop = cancel
	defer cancel()
	s.startDevices(work)
	config := s.startConfig(work, brought)
	payload, err := s.search(want).run(work)
	if err != nil {
		return err
	}
	return s.handOver(ctx, payload, func() settings { return s.awaitConfig(config, brought) })
}

// begin makes the machine visible and reads what it was told.
func (s *stage) begin() error {
	unix.Umask(0o022)
	err := mountEarly()
	openConsoles(s.con)
	if err != nil {
		return stepError("mount", err, "")
	}
	release, err := kernelRelease()
	if err != nil {
		return stepError("find kernel modules", err, "")
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return stepError("read command line", err, "")
	}
	words := ParseCmdline(string(line))
	var notes []string
	s.options, notes = ParseOptions(words)
	if s.options.Debug {
		s.con.Verbose()
	}
	s.con.Sayf("first stage on Linux %s", release)
	s.note(notes...)
	// Before anything is looked for in the initramfs: where memory is short, the
	// kernel unpacked only the beginning of it and says nothing.
	memory, err := readMemory()
	if err != nil {
		return stepError("check memory", err, "")
	}
	if err := memory.Check(MemoryNeeded); err != nil {
		return err
	}
	return s.openModules(release, words)
}

// openModules reads what the initramfs has for this kernel. The command line's
// "module.parameter=value" is handed on, as modprobe does.
func (s *stage) openModules(release string, cmdline []Word) error {
	fsys := os.DirFS(filepath.Join("/lib/modules", release))
	index, err := kmod.Open(fsys)
	if err != nil {
		return stepError("find kernel modules", err, "write the artifact again: kernel and initrd do not belong together")
	}
	var words []string
	for _, w := range cmdline {
		words = append(words, w.String())
	}
	s.modules = NewModules(index, func(m kmod.Module) error {
		return kmod.LoadWith(fsys, m, kmod.Params(words, m.Name))
	}, s.watch, s.con)
	return nil
}

// note says something on the console that the system's administrator should
// find in the boot record as well.
func (s *stage) note(notes ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range notes {
		s.con.Sayf("note: %s", n)
		s.notes = append(s.notes, n)
	}
}

func (s *stage) noted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string{}, s.notes...)
}

// startDevices begins to load drivers and to look at disks.
func (s *stage) startDevices(ctx context.Context) {
	// ext4 and erofs ask for the checksum by a name that no device has.
	if err := s.modules.Load("crc32c_generic"); err != nil {
		s.con.Debugf("%v", err)
	}
	events, err := listenUevents(ctx)
	if err != nil {
		s.note(err.Error())
	}
	sys := os.DirFS("/sys")
	s.devices = NewDevices(sys, s.modules, events, uptime, driverLoaders)
	s.volumes = NewVolumes(sys, openBlock, uptime, s.con)
	s.background("find devices", func() { s.devices.Run(ctx, "loop", "squashfs", "overlay", "isofs") })
	s.background("look at disks", func() { s.volumes.Run(ctx, s.devices.Changed) })
}

// background runs f beside the main path until it returns. What goes wrong in it
// is said; the main path notices by what it misses.
func (s *stage) background(step string, f func()) {
	s.jobs.Go(func() {
		if err := guard(func() error { f(); return nil }); err != nil {
			s.con.Sayf("error: %v", stepError(step, err, ""))
		}
	})
}

func (s *stage) search(want wantedManifest) *search {
	found := &search{
		sources: []payloadSource{
			&embeddedSource{root: "/", want: want},
			&localSource{volumes: s.volumes, mounter: kernelMounter{s.modules}, want: want, kind: mediumKind, tried: map[string]bool{}},
			s.httpSource(want),
		},
		watch: s.watch, con: s.con, limit: searchLimit,
	}
	if s.options.Blocks {
		found.blocks = func() error { return s.modules.Load("dm_mod", "dm_verity") }
	}
	return found
}

// handOver builds the new root, leaves what the system needs, and becomes its
// init.
func (s *stage) handOver(ctx context.Context, payload *Candidate, config func() settings) error {
	path := payload.Path
	if payload.Keep != nil {
		var err error
		if path, err = payload.Keep(); err != nil {
			return stepError("keep medium", err, "")
		}
	}
	s.con.Debugf("payload checked")
	var tree *manifest.Verity
	if payload.Blocks {
		tree = payload.Manifest.Payload.Verity
	}
	if err := buildRoot(s.modules, path, tree); err != nil {
		return stepError("build new root", err, "if this is an input/output error the medium is damaged: write it again")
	}
	if err := checkSystem(payload.Manifest); err != nil {
		return stepError("look at system", err, "write the artifact again")
	}
	s.con.Debugf("new root built")
	set := config()
	s.awaitNetwork(ctx, set.network)
	s.con.Debugf("node config and network settled")
	s.stopWork(set.network)
	s.con.Debugf("network down")
	leaves, err := s.leave(payload, set)
	if err != nil {
		return stepError("leave node config", err, "")
	}
	if err := s.setClockAndName(payload.Manifest, set.config); err != nil {
		return err
	}
	if err := switchRoot(); err != nil {
		return stepError("switch root", err, "")
	}
	s.con.Debugf("old root emptied")
	return s.start(ctx, payload, leaves)
}

// awaitNetwork gives the network a short time, until all cards are there and
// those with a cable have an address.
func (s *stage) awaitNetwork(ctx context.Context, network *Network) {
	defer s.watch.Begin(PhaseDHCP)()
	for end := uptime() + dhcpWait; uptime() < end && (!s.devices.Settled() || network.Waiting()); {
		pause(ctx, network.Changed.C(), lookPause)
	}
}

// stopWork ends what runs in the background. What sits in a system call is left
// behind: the hand-over ends it.
func (s *stage) stopWork(network *Network) {
	s.stop()
	if !waitBounded(&s.jobs, stopWait) {
		s.con.Debugf("some background work did not end in time")
	}
	network.Down()
}

// leave writes what the system finds below /run, and returns the boot record.
func (s *stage) leave(payload *Candidate, set settings) (BootRecord, error) {
	results := set.network.Results()
	s.note(set.network.Notes()...)
	record := BootRecord{
		V: 1, Manifest: payload.Digest, System: payload.Manifest.System, Label: payload.Manifest.Label,
		Medium: payload.Medium, Sequence: payload.Manifest.Sequence, Time: payload.Manifest.Time,
		Network: networkOf(results), Upstream: upstreamOf(s.options.Upstream), Notes: s.noted(),
	}
	leaves := slices.Concat(nodeLeaves(set.config), networkLeaves(results, set.plan.DNS), upstreamLeaves(s.options.Upstream))
	if err := errors.Join(writeLeaves("/run", leaves), writeLeaves(newRoot, rootLeaves(set.config))); err != nil {
		return record, err
	}
	return record, s.writeRecord(record)
}

func (s *stage) writeRecord(record BootRecord) error {
	record.Seconds = secondsOf(s.watch.Times())
	l, err := recordLeaf(record)
	if err != nil {
		return err
	}
	return writeLeaves("/run", []leaf{l, {"xnode/first-stage.log", 0o644, []byte(s.con.Kept())}})
}

func (s *stage) setClockAndName(m *manifest.Manifest, config *nodeconfig.Config) error {
	raised, err := raiseClock(m.Time)
	if err != nil {
		return stepError("set clock", err, "")
	}
	if raised {
		s.con.Sayf("the clock was before the manifest's time and was set to it")
	}
	if name := config.Hostname(); name != "" {
		if err := unix.Sethostname([]byte(name)); err != nil {
			return stepError("set hostname", err, "")
		}
	}
	return nil
}

// start runs in the new root.
func (s *stage) start(ctx context.Context, payload *Candidate, record BootRecord) error {
	m := payload.Manifest
	if err := checkKernel(m); err != nil {
		return stepError("look at system", err, "let kernel, initrd and payload come from one build")
	}
	if m.Handover == manifest.HandoverPrepareRoot {
		end := s.watch.Begin(PhasePrepareRoot)
		err := prepareRoot(ctx, s.con, m.System)
		end()
		if err != nil {
			return stepError("prepare-root", err, "the system's activation failed; build it again")
		}
		if err := killLeftovers(); err != nil {
			return stepError("prepare-root", err, "")
		}
	}
	times := s.watch.Times()
	if times.Devices > time.Second/10 {
		s.con.Sayf("waited %.2f s for devices", times.Devices.Seconds())
	}
	s.con.Sayf("starting %s from %s", m.Label, payload.Medium)
	s.con.Sayf("%s", times)
	if err := s.writeRecord(record); err != nil {
		return stepError("leave boot record", err, "")
	}
	s.con.Flush(flushWait)
	return stepError("hand over", execInit(m.System), "")
}
