package stage1

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/nodeconfig"
	"xnodeos.org/netboot/stage1/state"
)

// Bounds of what a state may hold up. A disk that was asked for and is late gets
// its time, because a node without its key is another node.
const (
	stateFind    = 30 * time.Second // for the disk to be there
	stateSettled = 10 * time.Second // the same, once all devices seem to be there
	stateWork    = 2 * time.Minute  // to make a file system, or replay a journal
	partitionsIn = 5 * time.Second  // for the kernel to show a new partition
)

// stateDir is where the state is mounted until there is a new root; keptDir is
// its place there.
const (
	stateDir = runDir + "/state"
	keptDir  = newRoot + "/var/lib/xnode"
)

// openState is what became of the state.
type openState struct {
	record BootState
	dir    string // where it is mounted; "" without
	floors state.Floors
	key    state.Identity
}

// startState looks for the disk that the command line names, or else the image,
// or else the volume, beside everything else.
func (s *stage) startState(ctx context.Context, image nodeconfig.StateDisk, trust string) {
	asked := s.options.State
	if asked.IsZero() {
		asked = image
	}
	s.early = !asked.IsZero()
	s.background("open "+state.PartitionName, func() {
		defer close(s.opened)
		s.state.record.Result = StateNone
		if asked.IsZero() {
			select {
			case <-s.settled:
				asked = s.set.config.State()
			case <-ctx.Done():
			}
		}
		if asked.IsZero() {
			return
		}
		opened, err, gone := bounded(stateFind+stateWork, func() (openState, error) { return s.openState(ctx, asked, trust) })
		if err = errors.Join(err, gone); err != nil {
			opened.record.Disk, opened.record.Result, opened.record.Reason = asked.Name, StateIgnored, err.Error()
			s.note(fmt.Sprintf("%s is ignored, this node keeps nothing: %v", state.PartitionName, err))
		}
		s.state = opened
	})
}

// awaitState waits for startState, which is bounded.
func (s *stage) awaitState() openState {
	timer := time.NewTimer(configWait + configRead + stateFind + stateWork)
	defer timer.Stop()
	select {
	case <-s.opened:
		return s.state
	case <-timer.C:
		return openState{record: BootState{Result: StateIgnored, Reason: errNoAnswer.Error()}}
	}
}

// sequenceFloor is for a payload that servers offer: it waits for the floors of
// a state that came with the image.
func (s *stage) sequenceFloor() uint32 {
	if !s.early {
		return 0
	}
	return s.awaitState().floors.Sequence()
}

func (s *stage) openState(ctx context.Context, asked nodeconfig.StateDisk, trust string) (openState, error) {
	o := openState{record: BootState{Disk: asked.Name}}
	found, err := s.findState(ctx, asked.Name)
	if err != nil {
		return o, err
	}
	o.record.Partition = found.Device()
	plan, err := judgeState(ctx, found, asked.New)
	if err != nil {
		return o, err
	}
	if plan.Action != state.Open {
		s.con.Sayf("%s: %s", plan.Disk, sayPlan(plan, asked.New))
		if plan.Disk, err = makeState(ctx, plan); err != nil {
			return o, err
		}
	}
	o.record.Partition = plan.Disk.Device()
	s.saySound(plan)
	if err := s.mountState(ctx, plan.Disk); err != nil {
		return o, err
	}
	marker := state.Marker{V: 1, Trust: trust, SMBIOS: strings.ToLower(readLine(os.DirFS("/sys"), "class/dmi/id/product_uuid")), Disk: found.Serial}
	o.key, err = state.OpenIdentity(ctx, stateDir, marker)
	if err != nil {
		return o, errors.Join(fmt.Errorf("%s: %w", plan.Disk, err), unmountState())
	}
	o.record.Result = StateOpened
	if o.key.Made {
		o.record.Result = StateMade
	}
	s.con.Sayf("%s on %s is %s", state.PartitionName, plan.Disk, o.record.Result)
	o.dir = stateDir
	var notes []string
	o.floors, notes = state.ReadFloors(stateDir)
	s.note(notes...)
	if err := s.raiseClock(o.floors.Time, "the time that was kept on "+state.PartitionName); err != nil {
		s.note(err.Error())
	}
	return o, nil
}

func sayPlan(plan state.Plan, discard bool) string {
	text := string(plan.Action)
	switch {
	case plan.Begun:
		text += " again, which was cut off before"
	case discard && plan.Action == state.MakePartition:
		text += " anew; take new: away before the next boot, or it does so again"
	}
	return text
}

func (s *stage) saySound(plan state.Plan) {
	if plan.Unclean {
		s.con.Sayf("%s was not unmounted; its journal is replayed", plan.Disk)
	}
	if plan.Damaged {
		s.note(fmt.Sprintf("the kernel has found errors in the file system of %s; have it checked with e2fsck", plan.Disk))
	}
}

// findState waits until the disk is there.
func (s *stage) findState(ctx context.Context, name string) (state.Disk, error) {
	sys := os.DirFS("/sys")
	var settled time.Duration
	for begun := uptime(); ; {
		changed := s.devices.Changed.C()
		found, err := state.Find(state.ListDisks(sys), name)
		if err == nil {
			return found, nil
		}
		now := uptime()
		if settled == 0 && s.devices.Settled() {
			settled = now
		}
		late := now-begun > stateFind || settled > 0 && now-settled > stateSettled
		if !errors.Is(err, state.ErrNotThere) || late || ctx.Err() != nil {
			return state.Disk{}, errors.Join(err, ctx.Err())
		}
		pause(ctx, changed, lookPause*10)
	}
}

// judgeState decides what to do with the disk. The kernel shows a disk before it
// has read its partitions: a table without any gets a moment.
func judgeState(ctx context.Context, found state.Disk, discard bool) (state.Plan, error) {
	for end := uptime() + partitionsIn; ; pause(ctx, nil, 5*lookPause) {
		all := state.ListDisks(os.DirFS("/sys"))
		plan, err := state.Judge(all, found, discard, readDisk)
		var foreign *state.ForeignError
		parted := slices.ContainsFunc(all, func(d state.Disk) bool { return d.Parent == found.Name })
		if !errors.As(err, &foreign) || foreign.What != state.PartitionTable || parted || uptime() > end || ctx.Err() != nil {
			return plan, err
		}
	}
}

func readDisk(d state.Disk, read func(io.ReaderAt) error) error {
	f, err := os.Open(d.Device())
	if err != nil {
		return err
	}
	return errorsFirst(read(f), f.Close())
}

// makeState carries out a plan and returns the device with the file system.
func makeState(ctx context.Context, plan state.Plan) (state.Disk, error) {
	if err := ctx.Err(); err != nil {
		return plan.Disk, err
	}
	// O_EXCL: the kernel refuses it where something of the disk is in use.
	f, err := os.OpenFile(plan.Disk.Device(), os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return plan.Disk, fmt.Errorf("%s: %w", plan.Action, err)
	}
	err = state.Make(plan, f, plan.Disk.Sectors*512, state.MakeOptions{Random: rand.Reader, Time: wallClock()})
	if err == nil && plan.Action == state.MakeDisk {
		err = rereadPartitions(ctx, f)
	}
	if err := errors.Join(err, f.Close()); err != nil || plan.Action != state.MakeDisk {
		return plan.Disk, err
	}
	return awaitPartition(ctx, plan.Disk)
}

// rereadPartitions tells the kernel of a new table; it may be looking at the disk
// just then.
func rereadPartitions(ctx context.Context, f *os.File) error {
	for end := uptime() + partitionsIn; ; pause(ctx, nil, lookPause) {
		_, err := unix.IoctlRetInt(int(f.Fd()), unix.BLKRRPART)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || uptime() > end || ctx.Err() != nil {
			return fmt.Errorf("let the kernel read the new partition table: %w", err)
		}
	}
}

func awaitPartition(ctx context.Context, whole state.Disk) (state.Disk, error) {
	for end := uptime() + partitionsIn; uptime() < end && ctx.Err() == nil; pause(ctx, nil, lookPause) {
		for _, d := range state.ListDisks(os.DirFS("/sys")) {
			if d.Parent == whole.Name && d.Label == state.PartitionName && exists(d.Device()) {
				return d, nil
			}
		}
	}
	return whole, errors.New("the kernel does not show the partition that was made; start the machine again")
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return !errors.Is(err, fs.ErrNotExist)
}

func (s *stage) mountState(ctx context.Context, d state.Disk) error {
	if err := s.modules.Load("ext4"); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	// Nothing that lies there is ever started, or believed to be a device.
	flags := []mountFlag{flagNoSUID, flagNoDev, flagNoExec}
	if err := (mountOp{d.Device(), stateDir, "ext4", flags, "errors=remount-ro"}).do(); err != nil {
		return fmt.Errorf("%w; it is left as it is: have it checked with e2fsck, or begin anew with xnode.state=new:DISK", err)
	}
	return nil
}

func unmountState() error {
	return errors.Join(unix.Unmount(stateDir, 0), os.Remove(stateDir))
}

// keepState moves the state to its place in the new root, or makes a key that
// lasts until the next boot. It returns the key's fingerprint.
func (s *stage) keepState(o openState, m *manifest.Manifest) (string, error) {
	if o.dir == "" {
		if err := os.MkdirAll(runDir, 0o755); err != nil {
			return "", err
		}
		key, err := state.NewKey(runDir)
		if err != nil {
			return "", err
		}
		s.con.Sayf("node key %s, a new one at each boot", key.Fingerprint)
		return key.Fingerprint, nil
	}
	if err := state.WriteBooted(o.dir, o.floors, m.Sequence); err != nil {
		s.note(err.Error())
	}
	if err := (mountOp{o.dir, keptDir, "", []mountFlag{flagMove}, ""}).do(); err != nil {
		return "", err
	}
	s.con.Sayf("node key %s, kept on %s", o.key.Fingerprint, filepath.Base(o.record.Partition))
	return o.key.Fingerprint, os.Remove(o.dir)
}
