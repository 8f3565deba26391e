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
// goroutines; one module is loaded at a time.
type Modules struct {
	index moduleIndex
	load  func(kmod.Module) error
	watch *Stopwatch
	con   *Console

	mu      sync.Mutex
	results map[string]error // by module name
	aliases map[string]bool  // that were looked at
}

// NewModules returns a loader with nothing loaded.
func NewModules(index moduleIndex, load func(kmod.Module) error, watch *Stopwatch, con *Console) *Modules {
	return &Modules{index: index, load: load, watch: watch, con: con,
		results: map[string]error{}, aliases: map[string]bool{}}
}

// Load loads modules by name with all that they need. A module that is built
// into the kernel is no error.
func (m *Modules) Load(names ...string) error {
	defer m.watch.Begin(PhaseModules)()
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.loadLocked(names)
}

func (m *Modules) loadLocked(names []string) error {
	list, err := m.index.Resolve(names...)
	if err != nil {
		return fmt.Errorf("find kernel modules %q: %w", names, err)
	}
	var errs []error
	for _, mod := range list {
		result, done := m.results[mod.Name]
		if !done {
			result = m.load(mod)
			m.results[mod.Name] = result
			m.con.Debugf("module %s: %s", mod.Name, orLoaded(result))
		}
		if result != nil {
			errs = append(errs, fmt.Errorf("load kernel module %s: %w", mod.Name, result))
		}
	}
	return errors.Join(errs...)
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
	defer m.watch.Begin(PhaseModules)()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.aliases[modalias] {
		return
	}
	m.aliases[modalias] = true
	for _, name := range m.index.Match(modalias) {
		// ENODEV is how a driver says that this device is not for it after all.
		if err := m.loadLocked([]string{name}); err != nil && !errors.Is(err, syscall.ENODEV) {
			m.con.Sayf("%v (for %s)", err, modalias)
		}
	}
}

// Loaded returns the names of the modules that were loaded, sorted.
func (m *Modules) Loaded() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var names []string
	for name, err := range m.results {
		if err == nil {
			names = append(names, name)
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
