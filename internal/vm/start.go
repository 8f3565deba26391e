package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"syscall"
	"time"

	"xnodeos.org/internal/command"
)

// qemuPackage is the Debian package that brings QEMU for x86-64 guests.
const qemuPackage = "qemu-system-x86"

// killAfter is how long QEMU may take to end itself before it is killed.
const killAfter = 3 * time.Second

// Options are what Start needs beside the machine.
type Options struct {
	// Now is the clock that times the lines; it must be monotonic as time.Now.
	Now func() time.Time
	// SerialLog gets every byte of the serial console as it came; may be nil.
	SerialLog io.Writer
	// OnLine is called with each finished line, in order, from one goroutine,
	// and holds the guest up while it runs; may be nil.
	OnLine func(Line)
}

// VM is a running QEMU.
type VM struct {
	argv    []string
	console *console
	qmp     *qmp
	wires   []*Wire
	pid     int
	end     context.CancelFunc

	done chan struct{} // closed when exit is set
	exit Exit
}

// Start runs m until the guest ends, Stop is called or ctx is over; whichever
// comes, Wait must be called to know that QEMU has gone. A missing QEMU is a
// *command.MissingError.
func Start(ctx context.Context, m Machine, o Options) (*VM, error) {
	if o.Now == nil {
		return nil, errors.New("start machine: Options.Now is not set")
	}
	m = m.withDefaults()
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("start machine: %w", err)
	}
	cables, err := newCables(m.wires())
	if err != nil {
		return nil, fmt.Errorf("start machine: %w", err)
	}
	args := append(m.baseArgs(), "-serial", "stdio",
		"-chardev", "socket,id=qmp,fd=3", "-mon", "chardev=qmp,mode=control")
	ctx, end := context.WithCancel(ctx)
	v := &VM{argv: append([]string{m.QEMU}, args...), qmp: cables.qmp, wires: cables.wires,
		end: end, done: make(chan struct{})}
	if err := v.launch(ctx, cables.theirs, o); err != nil {
		end()
		cables.close()
		return nil, fmt.Errorf("start machine: %w", err)
	}
	return v, nil
}

func (v *VM) launch(ctx context.Context, theirs []*os.File, o Options) error {
	started := o.Now()
	v.console = newConsole(o.SerialLog, o.OnLine, func() time.Duration { return o.Now().Sub(started) })
	// Not the terminal's process group: Ctrl-C there reaches us alone.
	cmd := command.Cmd{
		Name: v.argv[0], Args: v.argv[1:], Stdout: v.console, ExtraFiles: theirs,
		Grace: killAfter, DieWithUs: true, Package: qemuPackage, Flag: "--qemu",
	}
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for DieWithUs
		defer runtime.UnlockOSThread()
		process, err := command.Start(ctx, cmd)
		closeAll(theirs)
		if err != nil {
			result <- err
			return
		}
		v.pid = process.PID()
		result <- nil
		go v.qmp.run()
		v.finish(process.Wait())
		v.end()
	}()
	return <-result
}

// finish notes how QEMU ended and wakes all who wait.
func (v *VM) finish(err error) {
	// QEMU has gone, so its end of the socket is closed and the rest is there.
	<-v.qmp.done
	_ = v.qmp.conn.Close()
	for _, w := range v.wires {
		_ = w.conn.Close()
	}
	v.console.finish()
	v.exit = exitOf(err, v.qmp.shutdownReason(), v.console.since())
	close(v.done)
}

// PID is QEMU's process id.
func (v *VM) PID() int { return v.pid }

// Argv is QEMU's whole command line.
func (v *VM) Argv() []string { return append([]string(nil), v.argv...) }

// Wire is the other end of the i-th network card of kind WireNet.
func (v *VM) Wire(i int) *Wire { return v.wires[i] }

// Done is closed when QEMU has ended.
func (v *VM) Done() <-chan struct{} { return v.done }

// Wait returns how QEMU ended.
func (v *VM) Wait() Exit {
	<-v.done
	return v.exit
}

// Stop ends QEMU, if it still runs, and waits for it.
func (v *VM) Stop() Exit {
	v.end()
	return v.Wait()
}

// QMP runs a command of QEMU's machine protocol and decodes its result, which
// may be nil.
func (v *VM) QMP(ctx context.Context, command string, args, result any) error {
	return v.qmp.command(ctx, command, args, result)
}

// Lines are the lines of the console from number n on, at most the last 50,000.
func (v *VM) Lines(n int) []Line { return v.console.from(n) }

// Tail is the text of the last n lines.
func (v *VM) Tail(n int) []string {
	lines := v.console.from(0)
	lines = lines[max(0, len(lines)-n):]
	texts := make([]string, len(lines))
	for i, l := range lines {
		texts[i] = l.Text
	}
	return texts
}

// LogError tells whether Options.SerialLog took every byte.
func (v *VM) LogError() error { return v.console.logError() }

// cables are the sockets between us and QEMU: theirs go to it as descriptors
// from 3 on.
type cables struct {
	qmp    *qmp
	wires  []*Wire
	theirs []*os.File
}

func newCables(wires int) (*cables, error) {
	c := &cables{}
	ours, theirs, err := socketPair(syscall.SOCK_STREAM)
	if err != nil {
		return nil, err
	}
	c.theirs = append(c.theirs, theirs)
	if c.qmp, err = newQMP(ours); err != nil {
		_ = ours.Close()
		closeAll(c.theirs)
		return nil, err
	}
	for range wires {
		ours, theirs, err := socketPair(syscall.SOCK_DGRAM)
		if err != nil {
			c.close()
			return nil, err
		}
		c.wires = append(c.wires, &Wire{conn: ours})
		c.theirs = append(c.theirs, theirs)
	}
	return c, nil
}

func (c *cables) close() {
	_ = c.qmp.conn.Close()
	for _, w := range c.wires {
		_ = w.conn.Close()
	}
	closeAll(c.theirs)
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // a second close is harmless
	}
}

func socketPair(kind int) (net.Conn, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, kind|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	mine := os.NewFile(uintptr(fds[0]), "ours")
	theirs := os.NewFile(uintptr(fds[1]), "qemu's")
	conn, err := net.FileConn(mine)
	_ = mine.Close() // FileConn has its own copy
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("make a socket pair: %w", err)
	}
	return conn, theirs, nil
}
