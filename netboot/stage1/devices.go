package stage1

import (
	"context"
	"io/fs"
	"sync"
	"time"
)

// Devices finds the machine's devices and loads what they ask for, the most
// urgent first, for as long as the first stage runs.
type Devices struct {
	sys     fs.FS
	modules *Modules
	events  <-chan Uevent // nil where the kernel does not tell; then all is by polling
	clock   func() time.Duration
	loaders int // how many drivers may be starting at the same time

	// Changed tells that a block device or a network interface may have come.
	Changed *signal

	mu    sync.Mutex
	quiet time.Duration // since when nothing is left to load; 0 while there is
}

// NewDevices returns a finder; Run does its work with the given number of
// loaders: drivers mostly wait for their hardware while they start.
func NewDevices(sys fs.FS, modules *Modules, events <-chan Uevent, clock func() time.Duration, loaders int) *Devices {
	return &Devices{sys: sys, modules: modules, events: events, clock: clock, loaders: loaders, Changed: newSignal()}
}

// Bounds of waiting for devices.
const (
	rescanFirst = 250 * time.Millisecond
	rescanMost  = 4 * time.Second
	// settleTime is how long nothing may have happened; a driver's probe that
	// runs on its own thread reports within it where it is fast at all.
	settleTime = 100 * time.Millisecond
	// settleUSB is the same where there is a USB host: a hub powers its ports,
	// debounces and resets before anything is heard of what is plugged in.
	settleUSB = 1500 * time.Millisecond
	// settleDisks bounds the wait for a USB disk that is known but not there.
	settleDisks = 5 * time.Second
)

// job is something to load. The file systems of the first stage wait until the
// drivers of disks work, and then load while the disks spin up.
type job struct {
	alias string
	names []string
}

type jobQueue [rankNetwork + 1][]job

func (q *jobQueue) pop() (job, bool) {
	for rank := range q {
		if len(q[rank]) > 0 {
			j := q[rank][0]
			q[rank] = q[rank][1:]
			return j, true
		}
	}
	return job{}, false
}

func (q *jobQueue) addAlias(alias string) {
	rank := aliasRank(alias)
	q[rank] = append(q[rank], job{alias: alias})
}

// Run works until the context ends. The named modules are loaded as soon as the
// drivers of disks are on their way.
func (d *Devices) Run(ctx context.Context, names ...string) {
	var queue jobQueue
	d.scan(&queue)
	queue[rankUSB] = append([]job{{names: names}}, queue[rankUSB]...)
	done := make(chan struct{})
	busy := 0
	defer func() {
		for ; busy > 0; busy-- {
			<-done
		}
	}()
	wait := rescanFirst
	for ctx.Err() == nil {
		d.drain(&queue)
		for busy < d.loaders {
			j, ok := queue.pop()
			if !ok {
				break
			}
			busy++
			wait = rescanFirst
			go func() {
				if err := guard(func() error { return d.do(j) }); err != nil {
					d.modules.con.Sayf("%v", err)
				}
				done <- struct{}{}
			}()
		}
		d.setQuiet(busy == 0)
		if d.await(ctx, &queue, done, wait) {
			busy--
			d.Changed.Notify()
		} else if busy == 0 {
			// Events can be lost when the socket's buffer is full.
			d.scan(&queue)
			wait = min(2*wait, rescanMost)
		}
	}
}

func (d *Devices) do(j job) error {
	if j.alias == "" {
		return d.modules.Load(j.names...)
	}
	d.modules.Alias(j.alias)
	return nil
}

// scan queues what was not looked at yet.
func (d *Devices) scan(queue *jobQueue) {
	for _, alias := range Modaliases(d.sys) {
		if !d.modules.seen(alias) {
			queue.addAlias(alias)
		}
	}
}

// drain takes the events that are there, without waiting.
func (d *Devices) drain(queue *jobQueue) {
	for {
		select {
		case e := <-d.events:
			d.take(e, queue)
		default:
			return
		}
	}
}

// await waits for one thing to happen, and says whether it was the end of a job.
func (d *Devices) await(ctx context.Context, queue *jobQueue, done <-chan struct{}, limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case e := <-d.events:
		d.take(e, queue)
	case <-done:
		return true
	}
	return false
}

func (d *Devices) take(e Uevent, queue *jobQueue) {
	if e.Action == "add" && wantedAlias(e.Modalias) && !d.modules.seen(e.Modalias) {
		queue.addAlias(e.Modalias)
	}
	if e.Action == "add" {
		d.setQuiet(false)
	}
	if e.Subsystem == "block" || e.Subsystem == "net" {
		d.Changed.Notify()
	}
}

func (d *Devices) setQuiet(quiet bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !quiet:
		d.quiet = 0
	case d.quiet == 0:
		d.quiet = d.clock()
	}
}

// Settled says whether all devices that were plugged in at the start are there,
// as far as can be told.
func (d *Devices) Settled() bool {
	d.mu.Lock()
	since := d.quiet
	d.mu.Unlock()
	if since == 0 {
		return false
	}
	switch quiet := d.clock() - since; {
	case quiet < settleTime:
		return false
	case quiet < settleUSB:
		return !HasUSB(d.sys)
	case quiet < settleDisks:
		return !DisksToCome(d.sys)
	}
	return true
}
