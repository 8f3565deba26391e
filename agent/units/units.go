// Package units starts, watches and stops systemd units over D-Bus, for the
// agent's root half: transient services and timers, the list of failed units,
// restarts, and the manager's own state.
//
// It decides nothing: what a result means is for those who asked. The invariant
// is that a call ends when its context does, also with a systemd that no longer
// answers, and that a connection that systemd dropped (a switch may re-execute
// it) is made anew: whoever waits for a unit goes on waiting.
package units

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"

	"xnodeos.org/internal/unit"
)

// Sockets where systemd answers.
const (
	// PrivateSocket is systemd's own, for root alone. It needs no bus, so it
	// works where a release broke that.
	PrivateSocket = "/run/systemd/private"
	// SystemBus is dbus-daemon's (or dbus-broker's).
	SystemBus = "/run/dbus/system_bus_socket"
)

// dialLimit is for connecting and authentication. A frozen systemd accepts
// connections, by its backlog, and says nothing.
const dialLimit = 10 * time.Second

// callLimit is for one question to systemd. It answers in milliseconds; while
// it reloads its units on a small machine it may be silent for seconds.
const callLimit = 30 * time.Second

// Manager is systemd as seen by this process. It may be used by several
// goroutines. Close it at the end.
type Manager struct {
	sockets []string

	lock sync.Mutex
	bus  bus
	raw  *godbus.Conn // the bus's connection for calls
}

// bus is what we need of go-systemd's connection.
type bus interface {
	StartTransientUnitAux(ctx context.Context, name, mode string, props []dbus.Property, aux []dbus.PropertyCollection, ch chan<- string) (int, error)
	StopUnitContext(ctx context.Context, name, mode string, ch chan<- string) (int, error)
	RestartUnitContext(ctx context.Context, name, mode string, ch chan<- string) (int, error)
	KillUnitWithTarget(ctx context.Context, name string, target dbus.Who, signal int32) error
	ResetFailedUnitContext(ctx context.Context, name string) error
	ListUnitsByNamesContext(ctx context.Context, names []string) ([]dbus.UnitStatus, error)
	ListUnitsContext(ctx context.Context) ([]dbus.UnitStatus, error)
	GetUnitTypePropertiesContext(ctx context.Context, unit, unitType string) (map[string]any, error)
	Connected() bool
	Close()
}

// Open connects to systemd: by its private socket where we are root, else by
// the system bus. An error is unit.ErrUnavailable.
func Open(ctx context.Context) (*Manager, error) {
	sockets := []string{SystemBus}
	if os.Geteuid() == 0 {
		sockets = []string{PrivateSocket, SystemBus}
	}
	return OpenAt(ctx, sockets...)
}

// OpenAt connects to the first of these sockets that answers. All but SystemBus
// are taken for systemd's own.
func OpenAt(ctx context.Context, sockets ...string) (*Manager, error) {
	m := &Manager{sockets: sockets}
	_, err := m.connect(ctx)
	if err != nil {
		return nil, err
	}
	return m, nil
}

// Close ends the connection. Units that were started live on.
func (m *Manager) Close() {
	m.lock.Lock()
	defer m.lock.Unlock()
	m.drop()
}

func (m *Manager) drop() {
	if m.bus != nil {
		m.bus.Close()
	}
	m.bus, m.raw = nil, nil
}

// connect returns the connection that there is, or makes one.
func (m *Manager) connect(ctx context.Context) (bus, error) {
	m.lock.Lock()
	defer m.lock.Unlock()
	if m.bus != nil && m.bus.Connected() {
		return m.bus, nil
	}
	m.drop()
	var causes []error
	for _, socket := range m.sockets {
		var raw *godbus.Conn
		conn, err := dbus.NewConnection(func() (*godbus.Conn, error) {
			c, err := dial(ctx, socket)
			if raw == nil {
				raw = c // go-systemd's first is for calls, its second for signals
			}
			return c, err
		})
		if err == nil {
			m.bus, m.raw = conn, raw
			return conn, nil
		}
		causes = append(causes, err)
	}
	return nil, unavailable(errors.Join(causes...))
}

// unavailable words why nothing answers.
func unavailable(cause error) error {
	switch {
	case errors.Is(cause, fs.ErrPermission):
		return fmt.Errorf("%w: %w; run this as root", unit.ErrUnavailable, cause)
	case errors.Is(cause, fs.ErrNotExist):
		return fmt.Errorf("%w: %w; this needs a machine whose PID 1 is systemd", unit.ErrUnavailable, cause)
	default:
		return fmt.Errorf("%w: %w", unit.ErrUnavailable, cause)
	}
}

// dial connects within dialLimit. Neither go-systemd nor godbus can bound the
// authentication of a connection that outlives the context.
func dial(ctx context.Context, socket string) (*godbus.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialLimit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() }) // ends a wait for an answer
	c, err := authenticate(conn, socket == SystemBus)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, errors.Join(fmt.Errorf("%q does not let us in: %w", socket, err), ignoreClosed(conn.Close()))
	}
	return c, nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func authenticate(conn net.Conn, hello bool) (*godbus.Conn, error) {
	c, err := godbus.NewConn(conn)
	if err != nil {
		return nil, err
	}
	if err := c.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
		return nil, err
	}
	if hello { // systemd's own socket has no bus that could name us
		if err := c.Hello(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// again is how often a question is put whose connection broke, and the pause
// before it. One that got no answer counts for more: systemd may be busy for a
// moment, or may have frozen.
const (
	again         = 20
	againNoAnswer = 5
	againPause    = 250 * time.Millisecond
)

// errNoAnswer: the connection is there, and nothing comes.
var errNoAnswer = fmt.Errorf("%w: no answer within %s", unit.ErrUnavailable, callLimit)

// ask puts a question to systemd that may be put twice. A connection that
// breaks meanwhile is made anew; an answer, also an error, is final.
func (m *Manager) ask(ctx context.Context, question func(context.Context, bus) error) error {
	for tries := 0; ; {
		err := m.askOnce(ctx, question)
		if tries++; errors.Is(err, errNoAnswer) {
			tries += againNoAnswer
		}
		if err == nil || answered(err) || ctx.Err() != nil || tries >= again {
			return err
		}
		if err := sleep(ctx, againPause); err != nil {
			return err
		}
	}
}

func (m *Manager) askOnce(ctx context.Context, question func(context.Context, bus) error) error {
	b, err := m.connect(ctx)
	if err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err = question(call, b)
	if err != nil && call.Err() != nil && ctx.Err() == nil {
		return errNoAnswer
	}
	return err
}

// answered tells systemd's refusals from trouble with the connection.
func answered(err error) bool {
	var refusal godbus.Error
	return errors.As(err, &refusal)
}

// refusedAs says whether systemd answered with this error.
func refusedAs(err error, name string) bool {
	var refusal godbus.Error
	return errors.As(err, &refusal) && refusal.Name == "org.freedesktop.systemd1."+name
}

// sleep waits, or returns the context's error.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
