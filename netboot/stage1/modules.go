package stage1

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"

	"xnodeos.org/internal/kmod"
)

// moduleIndex is what the modules know of themselves; *kmod.Index is one.
type moduleIndex interface {
	Resolve(names ...string) ([]kmod.Module, error)
	Match(modalias string) []string
}

// Modules loads kernel modules, each once. It may be used from several
// goroutines, and a driver that takes long holds up only those who need it.
type Modules struct {
	index moduleIndex
	load  func(kmod.Module) error
	watch *Stopwatch
	con   *Console

	mu      sync.Mutex
	results map[string]*loading // by module name
	aliases map[string]bool     // that were looked at
}

// loading is one module on its way into the kernel.
type loading struct {
	done chan struct{} // closed when err is valid
	err  error
}

// NewModules returns a loader with nothing loaded.
func NewModules(index moduleIndex, load func(kmod.Module) error, watch *Stopwatch, con *Console) *Modules {
	return &Modules{index: index, load: load, watch: watch, con: con,
		results: map[string]*loading{}, aliases: map[string]bool{}}
}

// Load loads modules by name with all that they need. A module that is built
// into the kernel is no error.
func (m *Modules) Load(names ...string) error {
	defer m.watch.Begin(PhaseModules)()
	list, err := m.index.Resolve(names...)
	if err != nil {
		return fmt.Errorf("find kernel modules %q: %w", names, err)
	}
	var errs []error
	for _, mod := range list {
		// crct10dif_pclmul, a soft dependency of disks, fails on old processors.
		if err := m.once(mod); err != nil && !mod.Soft {
			errs = append(errs, fmt.Errorf("load kernel module %s: %w", mod.Name, err))
		}
	}
	return errors.Join(errs...)
}

// once loads a module, or waits for who is at it already.
func (m *Modules) once(mod kmod.Module) error {
	m.mu.Lock()
	l, begun := m.results[mod.Name]
	if !begun {
		l = &loading{done: make(chan struct{})}
		m.results[mod.Name] = l
	}
	m.mu.Unlock()
	if begun {
		<-l.done
		return l.err
	}
	defer close(l.done)
	l.err = m.load(mod)
	m.con.Debugf("module %s: %s", mod.Name, orLoaded(l.err))
	return l.err
}

func orLoaded(err error) string {
	if err != nil {
		return err.Error()
	}
	return "loaded"
}

// Alias loads what a device asks for. A driver that fails is said, not fatal:
// the machine may well start without that device.
func (m *Modules) Alias(modalias string) {
	m.mu.Lock()
	seen := m.aliases[modalias]
	m.aliases[modalias] = true
	m.mu.Unlock()
	if seen {
		return
	}
	for _, name := range m.index.Match(modalias) {
		// ENODEV is how a driver says that this device is not for it after all.
		if err := m.Load(name); err != nil && !errors.Is(err, syscall.ENODEV) {
			m.con.Sayf("%v (for %s)", err, modalias)
		}
	}
}

// Loaded returns the names of the modules that were loaded, sorted.
func (m *Modules) Loaded() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name, l := range m.results {
		select {
		case <-l.done:
			if l.err == nil {
				names = append(names, name)
			}
		default: // still on its way
		}
	}
	slices.Sort(names)
	return names
}

// seen says whether Alias was called with the modalias.
func (m *Modules) seen(modalias string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.aliases[modalias]
}
