package kmod

import (
	"fmt"
)

// Resolve returns what must be loaded so that all the named modules work, in
// the order of loading: soft dependencies of the kind "pre", dependencies, the
// module, soft dependencies of the kind "post". Each module comes once; what
// is built into the kernel is left out. A name may be an alias, and then
// stands for all modules that have it. An unknown name is an *UnknownError; an
// unknown soft dependency is none, as for modprobe.
func (x *Index) Resolve(names ...string) ([]Module, error) {
	r := newResolver(x)
	for _, name := range names {
		found := x.find(name)
		if len(found) == 0 && !x.builtin[normal(name)] {
			return nil, fmt.Errorf("resolve: %w", &UnknownError{Name: name})
		}
		for _, module := range found {
			if err := r.visit(module, false); err != nil {
				return nil, fmt.Errorf("resolve %q: %w", name, err)
			}
		}
	}
	return r.modules(), nil
}

// find returns the loadable modules that a name or alias stands for.
func (x *Index) find(name string) []string {
	key := normal(name)
	if x.modules[key] != nil {
		return []string{key}
	}
	// As for modprobe, an alias comes before what is built in: the built-in
	// crc32 is the library, the alias crc32 its fast implementations.
	var found []string
	for _, module := range x.Match(name) {
		if x.modules[module] != nil {
			found = append(found, module)
		}
	}
	return found
}

type visit uint8

const (
	unseen visit = iota
	underway
	done
)

type resolver struct {
	index *Index
	state map[string]visit
	soft  map[string]bool // only needed softly
	order []string
}

func newResolver(x *Index) *resolver {
	return &resolver{index: x, state: make(map[string]visit), soft: make(map[string]bool)}
}

func (r *resolver) modules() []Module {
	mods := make([]Module, 0, len(r.order))
	for _, name := range r.order {
		m := r.index.modules[name].Module
		m.Soft = r.soft[name]
		mods = append(mods, m)
	}
	return mods
}

// visit appends the module after all that it needs. A circle (soft
// dependencies may form one) is cut where it closes.
func (r *resolver) visit(name string, soft bool) error {
	e := r.index.modules[name]
	if r.state[name] != unseen {
		if !soft && r.soft[name] {
			r.harden(e)
		}
		return nil
	}
	if e == nil {
		if r.index.builtin[name] {
			return nil
		}
		return &UnknownError{Name: name}
	}
	r.state[name] = underway
	r.soft[name] = soft
	also := r.index.soft[name]
	r.visitSoft(also.pre)
	for _, dep := range e.deps {
		if err := r.visit(dep, soft); err != nil {
			return fmt.Errorf("needed by %q: %w", name, err)
		}
	}
	r.order = append(r.order, name)
	r.state[name] = done
	r.visitSoft(also.post)
	return nil
}

// harden makes a module that was taken along softly, and what it depends on,
// needed in earnest.
func (r *resolver) harden(e *entry) {
	r.soft[e.Name] = false
	for _, dep := range e.deps {
		if r.soft[dep] {
			r.harden(r.index.modules[dep])
		}
	}
}

// visitSoft takes along what can be had; what lacks a dependency is left.
func (r *resolver) visitSoft(names []string) {
	for _, name := range names {
		for _, module := range r.index.find(name) {
			if !r.complete(module, make(map[string]bool)) {
				continue
			}
			if err := r.visit(module, true); err != nil {
				panic("BUG: a complete module does not resolve: " + err.Error())
			}
		}
	}
}

// complete says whether a module and all its dependencies exist.
func (r *resolver) complete(name string, seen map[string]bool) bool {
	if seen[name] {
		return true
	}
	seen[name] = true
	e := r.index.modules[name]
	if e == nil {
		return r.index.builtin[name]
	}
	for _, dep := range e.deps {
		if !r.complete(dep, seen) {
			return false
		}
	}
	return true
}
