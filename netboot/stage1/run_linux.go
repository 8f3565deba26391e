package stage1

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/kmod"
	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/nodeconfig"
	"xnodeos.org/netboot/stage1/state"
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
	// settled is closed when set, the node config, is final.
	settled chan struct{}
	set     settings
	// opened is closed when state is final.
	opened chan struct{}
	state  openState
	// early says that the state was asked for by what came with the image, so
	// that the search for a payload waits for its floors.
	early bool

	stop context.CancelFunc // ends all background work
	jobs sync.WaitGroup
}

// Run is the first stage, from the first mount to the system's init, which takes
// the place of this program. It returns only where not even a reboot works; PID 1
// ends then, and the kernel panics.
func Run(ctx context.Context) error {
	s := &stage{con: NewConsole(uptime), watch: NewStopwatch(uptime), options: Options{Panic: DefaultPanic},
		settled: make(chan struct{}), opened: make(chan struct{})}
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
	s.startConfig(work, brought)
	s.startState(work, delivered.State(), state.TrustHash(embedded))
	payload, err := s.choose(work, want)
	if err != nil {
		return err
	}
	return s.handOver(ctx, payload, func() settings { return s.awaitConfig(brought) })
}

// choose finds a payload and builds the new root around it. Damage in a payload
// that the kernel checks block by block may show as late as here: then all is
// read before it is used, so that the damage is named and another medium or
// server gets its turn.
func (s *stage) choose(ctx context.Context, want wantedManifest) (*Candidate, error) {
	for whole := s.options.Whole; ; whole = true {
		payload, err := s.search(want, whole).run(ctx)
		if err != nil {
			return nil, err
		}
		err = s.build(payload)
		if err == nil || !payload.Blocks || ctx.Err() != nil {
			return payload, err
		}
		s.note(fmt.Sprintf("%s cannot be used block by block (%v); all of it is checked first instead", payload.Medium, err))
		dropRoot()
	}
}

// build makes the new root and looks whether the system is in it.
func (s *stage) build(payload *Candidate) error {
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
	return nil
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
	// Servers may have to be identified before a manifest tells the time.
	if err := s.raiseClock(kernelMade(), "the day its kernel was made"); err != nil {
		s.note(err.Error())
	}
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

func (s *stage) search(want wantedManifest, whole bool) *search {
	found := &search{
		sources: []payloadSource{
			&embeddedSource{root: "/", want: want},
			&localSource{volumes: s.volumes, mounter: kernelMounter{s.modules}, want: want, kind: mediumKind, tried: map[string]bool{}},
			s.httpSource(want),
		},
		watch: s.watch, con: s.con, limit: searchLimit,
		settled: func() bool { return s.devices.Settled() && s.volumes.Idle() },
	}
	if !whole {
		found.blocks = func() error { return s.modules.Load("dm_mod", "dm_verity") }
	}
	return found
}

// handOver leaves what the system needs in the new root, and becomes its init.
func (s *stage) handOver(ctx context.Context, payload *Candidate, config func() settings) error {
	set := config()
	s.awaitNetwork(ctx, set.network)
	kept := s.awaitState()
	s.con.Debugf("node config, state and network settled")
	s.stopWork(set.network)
	s.con.Debugf("network down")
	key, err := s.keepState(kept, payload.Manifest)
	if err != nil {
		return stepError("make node key", err, "")
	}
	leaves, err := s.leave(payload, set, kept.record, key)
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
func (s *stage) leave(payload *Candidate, set settings, kept BootState, key string) (BootRecord, error) {
	results := set.network.Results()
	s.note(set.network.Notes()...)
	record := BootRecord{
		V: 1, Manifest: payload.Digest, System: payload.Manifest.System, Label: payload.Manifest.Label,
		Medium: payload.Medium, Sequence: payload.Manifest.Sequence, Time: payload.Manifest.Time,
		Network: networkOf(results), State: kept, NodeKey: key, Upstream: upstreamOf(s.options.Upstream), Notes: s.noted(),
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
	if err := s.raiseClock(m.Time, "the manifest's time"); err != nil {
		return stepError("set clock", err, "")
	}
	if name := config.Hostname(); name != "" {
		if err := unix.Sethostname([]byte(name)); err != nil {
			return stepError("set hostname", err, "")
		}
	}
	return nil
}

// raiseClock sets a clock that is before the floor, and says so.
func (s *stage) raiseClock(floor int64, what string) error {
	raised, err := raiseClock(floor)
	if raised {
		s.con.Sayf("the clock was before %s and was set to it", what)
	}
	return err
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
