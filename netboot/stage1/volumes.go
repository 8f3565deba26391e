package stage1

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"xnodeos.org/internal/nodeconfig"
)

// Volume is a block device with a label that the first stage looks for.
type Volume struct {
	Device string // "/dev/sr0"
	Kind   VolumeKind
	Label  string
}

// blockReader is an open block device.
type blockReader interface {
	io.ReaderAt
	io.Closer
}

// Volumes looks at each block device once, as soon as it is there. A drive
// without a medium, or one that cannot be read, is looked at again.
type Volumes struct {
	sys   fs.FS
	open  func(device string) (blockReader, error)
	clock func() time.Duration
	con   *Console

	// Changed tells that a device was looked at.
	Changed *signal

	mu    sync.Mutex
	seen  map[string]*look
	found []Volume
}

// look is what is known of one block device.
type look struct {
	sectors int64
	busy    bool
	again   time.Duration // when to look once more; 0 if never
	tries   int
	err     error
}

// NewVolumes returns a finder; Run does its work.
func NewVolumes(sys fs.FS, open func(device string) (blockReader, error), clock func() time.Duration, con *Console) *Volumes {
	return &Volumes{sys: sys, open: open, clock: clock, con: con, Changed: newSignal(), seen: map[string]*look{}}
}

// Bounds of looking again at a drive that cannot be read.
const (
	lookAgainFirst = time.Second
	lookAgainMost  = 8 * time.Second
)

// Run looks at devices until the context ends; changed wakes it.
func (v *Volumes) Run(ctx context.Context, changed *signal) {
	for ctx.Err() == nil {
		wake := changed.C()
		v.scan()
		pause(ctx, wake, time.Second)
	}
}

func (v *Volumes) scan() {
	for _, dev := range BlockDevices(v.sys) {
		if dev.Sectors == 0 {
			continue
		}
		if l := v.begin(dev); l != nil {
			// A drive may block for long: it must not hold up the others.
			go v.look("/dev/"+dev.Name, l)
		}
	}
}

// begin returns nil if there is nothing to do for the device.
func (v *Volumes) begin(dev BlockDevice) *look {
	v.mu.Lock()
	defer v.mu.Unlock()
	l := v.seen[dev.Name]
	switch {
	case l == nil, !l.busy && l.sectors != dev.Sectors:
		l = &look{sectors: dev.Sectors}
		v.seen[dev.Name] = l
	case l.busy, l.again == 0, l.again > v.clock():
		return nil
	}
	l.busy = true
	l.tries++
	return l
}

func (v *Volumes) look(device string, l *look) {
	var kind VolumeKind
	var label string
	err := guard(func() (err error) {
		r, err := v.open(device)
		if err != nil {
			return err
		}
		kind, label, err = ReadLabel(r)
		return errorsFirst(err, r.Close())
	})
	v.mu.Lock()
	defer v.mu.Unlock()
	l.busy, l.again, l.err = false, 0, err
	if err != nil {
		l.again = v.clock() + min(lookAgainFirst<<min(l.tries-1, 6), lookAgainMost)
		v.con.Debugf("%s: %v", device, err)
	} else if kind == VolumeISO && label == MediumLabel || kind == VolumeFAT && strings.EqualFold(label, nodeconfig.VolumeLabel) {
		v.found = append(slices.DeleteFunc(v.found, func(o Volume) bool { return o.Device == device }),
			Volume{Device: device, Kind: kind, Label: label})
		v.con.Debugf("%s: %s volume %q", device, kind, label)
	} else {
		v.con.Debugf("%s: %s", device, orNothing(kind, label))
	}
	v.Changed.Notify()
}

func orNothing(kind VolumeKind, label string) string {
	if kind == "" {
		return "no volume that is looked for"
	}
	return fmt.Sprintf("%s volume %q, not looked for", kind, label)
}

func errorsFirst(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// Of returns the volumes of a kind that were found, by device name: whole disks
// before their partitions.
func (v *Volumes) Of(kind VolumeKind) []Volume {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []Volume
	for _, o := range v.found {
		if o.Kind == kind {
			list = append(list, o)
		}
	}
	slices.SortFunc(list, func(a, b Volume) int { return strings.Compare(a.Device, b.Device) })
	return list
}

// Idle says whether every device that is there was looked at.
func (v *Volumes) Idle() bool {
	devices := BlockDevices(v.sys)
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, dev := range devices {
		if l := v.seen[dev.Name]; dev.Sectors > 0 && (l == nil || l.busy) {
			return false
		}
	}
	return true
}

// Report says of each device without a medium of ours what was seen, for the
// error that nothing was found.
func (v *Volumes) Report() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	var lines []string
	for name, l := range v.seen {
		switch {
		case slices.ContainsFunc(v.found, func(o Volume) bool { return o.Device == "/dev/"+name && o.Kind == VolumeISO }):
		case l.err != nil:
			lines = append(lines, fmt.Sprintf("/dev/%s: %v", name, l.err))
		case l.busy:
			lines = append(lines, fmt.Sprintf("/dev/%s: does not answer", name))
		default:
			lines = append(lines, fmt.Sprintf("/dev/%s: no volume %s", name, MediumLabel))
		}
	}
	slices.Sort(lines)
	return lines
}
