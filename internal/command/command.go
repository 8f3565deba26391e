// Package command starts other programs: the only place of the module that does.
//
// A program that is cancelled is asked to end (SIGTERM to its whole process
// group), killed with everything it started after a grace time, and always
// reaped before the call returns. A failed program's error carries the end of
// its standard error; a missing one names the Debian package or flag that
// brings it. The package knows nothing of any particular program, and runs no
// shell.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	defaultGrace = 5 * time.Second
	// tailSize is how much of standard error an error keeps.
	tailSize = 4 << 10
	// outputLimit bounds what Output holds in memory.
	outputLimit = 64 << 20
)

// Cmd describes one run of a program. Only Name is needed.
type Cmd struct {
	Name string   // program: a path, or a name that is looked up in PATH
	Args []string // arguments, without the program's own name
	Dir  string   // working folder; empty means ours

	Env    []string // the whole environment; nil inherits ours
	AddEnv []string // KEY=VALUE words that override Env or what is inherited

	Stdin      io.Reader  // nil means nothing to read; must not block for ever once the program ended
	Stdout     io.Writer  // nil discards; may be set together with StdoutLine
	Stderr     io.Writer  // beside the tail that errors carry; nil discards
	ExtraFiles []*os.File // inherited as descriptors 3, 4, ...

	// StdoutLine and StderrLine get each line without its end as it comes.
	// They are never called at the same time. Lines over 64 KiB come in parts.
	StdoutLine func(line string)
	StderrLine func(line string)

	// Grace is the time between SIGTERM and SIGKILL when the context ends,
	// and how long pipes held open by stray children are read; 0 means 5 s.
	Grace time.Duration
	// Foreground keeps the program in our process group, so that it can read
	// the terminal; only the program itself is then signalled, not what it started.
	Foreground bool
	// DieWithUs has the kernel kill the program when we die, however. Linux
	// looks at the thread that started it: hold that one with
	// runtime.LockOSThread until Wait returns.
	DieWithUs bool

	Package string // the Debian package that brings the program, for the error when it is missing
	Flag    string // the flag that names another program file, for the same error
}

// Error is a program that ran and failed, or was ended by the context. It
// unwraps to *exec.ExitError or to the context's cause.
type Error struct {
	Name   string // base name of the program
	Stderr string // the last 4 KiB of its standard error, trimmed
	Err    error
}

func (e *Error) Error() string {
	if e.Stderr == "" {
		return fmt.Sprintf("%s: %v", e.Name, e.Err)
	}
	return fmt.Sprintf("%s: %v; it said: %s", e.Name, e.Err, e.Stderr)
}

func (e *Error) Unwrap() error { return e.Err }

// MissingError is a program that does not exist or may not be executed.
type MissingError struct {
	Name          string
	Package, Flag string
	Err           error
}

func (e *MissingError) Error() string {
	cause := e.Err
	var lookup *exec.Error
	if errors.As(cause, &lookup) {
		cause = lookup.Err // its own text repeats the name
	}
	text := fmt.Sprintf("find program %q: %v", e.Name, cause)
	var remedies []string
	if e.Package != "" {
		remedies = append(remedies, "install the Debian package "+e.Package)
	}
	if e.Flag != "" {
		remedies = append(remedies, "name the program with "+e.Flag)
	}
	if len(remedies) > 0 {
		text += "; " + strings.Join(remedies, " or ")
	}
	return text
}

func (e *MissingError) Unwrap() error { return e.Err }

// Process is a started program. Its owner must call Wait.
type Process struct {
	ctx   context.Context // of the start: os/exec ends the program by it, Wait must know
	cmd   *exec.Cmd
	spec  Cmd
	tail  *tail
	lines []*lineWriter

	lock  sync.Mutex // held while a signal is sent
	ended bool       // the program's id may belong to somebody else from now on

	once sync.Once
	err  error
}

// Run runs a program to its end.
func Run(ctx context.Context, c Cmd) error {
	p, err := Start(ctx, c)
	if err != nil {
		return err
	}
	return p.Wait()
}

// Output runs a program and returns its standard output, at most 64 MiB.
func Output(ctx context.Context, c Cmd) ([]byte, error) {
	out := &limited{limit: outputLimit}
	if c.Stdout != nil {
		c.Stdout = io.MultiWriter(out, c.Stdout)
	} else {
		c.Stdout = out
	}
	err := Run(ctx, c)
	if out.over {
		return nil, fmt.Errorf("%s: output is longer than %d bytes", filepath.Base(c.Name), out.limit)
	}
	if err != nil {
		return nil, err
	}
	return out.data, nil
}

// Start starts a program; the end of ctx ends it.
func Start(ctx context.Context, c Cmd) (*Process, error) {
	if c.Name == "" {
		panic("BUG: command without a program name")
	}
	if err := context.Cause(ctx); err != nil {
		return nil, &Error{Name: filepath.Base(c.Name), Err: err}
	}
	cmd := exec.CommandContext(ctx, c.Name, c.Args...)
	p := &Process{ctx: ctx, cmd: cmd, spec: c, tail: &tail{limit: tailSize}}
	cmd.Dir, cmd.Env, cmd.Stdin, cmd.ExtraFiles = c.Dir, c.Env, c.Stdin, c.ExtraFiles
	if len(c.AddEnv) > 0 {
		cmd.Env = append(cmd.Environ(), c.AddEnv...) // the last of equal keys wins
	}
	lock := new(sync.Mutex)
	cmd.Stdout = p.output(lock, c.Stdout, c.StdoutLine, nil)
	cmd.Stderr = p.output(lock, c.Stderr, c.StderrLine, p.tail)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !c.Foreground}
	if c.DieWithUs {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	cmd.WaitDelay = c.Grace
	if c.Grace == 0 {
		cmd.WaitDelay = defaultGrace
	}
	cmd.Cancel = func() error { return p.Signal(syscall.SIGTERM) }
	if err := cmd.Start(); err != nil {
		return nil, startError(c, err)
	}
	return p, nil
}

// startError tells a missing program from a missing folder: the system says
// "no such file" to both.
func startError(c Cmd, err error) error {
	if c.Dir != "" {
		if _, statErr := os.Stat(c.Dir); statErr != nil {
			return fmt.Errorf("start %q in folder: %w", c.Name, statErr)
		}
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		var pe *os.PathError
		if errors.As(err, &pe) {
			err = pe.Err // its text is "fork/exec NAME", and we name it anyway
		}
		return &MissingError{Name: c.Name, Package: c.Package, Flag: c.Flag, Err: err}
	}
	return fmt.Errorf("start %q: %w", c.Name, err)
}

// output joins the receivers of one stream. A lone *os.File is handed on as it
// is: the program then writes to it without a copying goroutine of ours.
func (p *Process) output(lock *sync.Mutex, w io.Writer, line func(string), t *tail) io.Writer {
	var all []io.Writer
	if w != nil {
		all = append(all, w)
	}
	if line != nil {
		lw := &lineWriter{lock: lock, line: line}
		p.lines = append(p.lines, lw)
		all = append(all, lw)
	}
	if t != nil {
		all = append(all, t)
	}
	switch len(all) {
	case 0:
		return nil
	case 1:
		return all[0]
	}
	return io.MultiWriter(all...)
}

// PID is the process id of the program, also the id of its process group
// unless it runs in the foreground.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Signal sends a signal to the program and all of its process group. Once
// Wait saw the program's end it returns os.ErrProcessDone.
func (p *Process) Signal(sig syscall.Signal) error {
	p.lock.Lock()
	defer p.lock.Unlock()
	if p.ended {
		return os.ErrProcessDone
	}
	return p.kill(sig)
}

func (p *Process) kill(sig syscall.Signal) error {
	pid := p.PID()
	if !p.spec.Foreground {
		pid = -pid
	}
	err := syscall.Kill(pid, sig)
	if errors.Is(err, syscall.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// Wait waits for the program's end and reaps it. It may be called again.
func (p *Process) Wait() error {
	p.once.Do(func() { p.err = p.wait() })
	return p.err
}

func (p *Process) wait() error {
	waitExit(p.PID())
	cause := context.Cause(p.ctx)
	p.lock.Lock()
	if cause != nil && !p.spec.Foreground {
		// The program is dead but not yet reaped, so the group's id is still
		// its own: what is left of the group can be killed without a race.
		if err := p.kill(syscall.SIGKILL); err != nil && !errors.Is(err, os.ErrProcessDone) {
			cause = errors.Join(cause, err)
		}
	}
	p.ended = true
	p.lock.Unlock()
	err := p.cmd.Wait()
	for _, lw := range p.lines {
		lw.flush()
	}
	if err == nil {
		return nil
	}
	if cause != nil {
		err = cause
	}
	return &Error{Name: filepath.Base(p.spec.Name), Stderr: strings.TrimSpace(p.tail.String()), Err: err}
}

// waitExit returns when the child pid has ended, and leaves it to be reaped.
func waitExit(pid int) {
	for {
		var info unix.Siginfo
		err := unix.Waitid(unix.P_PID, pid, &info, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return // ended, or an error that cmd.Wait will report
		}
	}
}
