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
	r := resolver{index: x, state: make(map[string]visit)}
	for _, name := range names {
		found := x.find(name)
		if len(found) == 0 && !x.builtin[normal(name)] {
			return nil, fmt.Errorf("resolve: %w", &UnknownError{Name: name})
		}
		for _, module := range found {
			if err := r.visit(module); err != nil {
				return nil, fmt.Errorf("resolve %q: %w", name, err)
			}
		}
	}
	return r.order, nil
}

// find returns the loadable modules that a name or alias stands for.
func (x *Index) find(name string) []string {
	key := normal(name)
	if x.modules[key] != nil {
		return []string{key}
	}
	if x.builtin[key] {
		return nil
	}
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
	order []Module
}

// visit appends the module after all that it needs. A circle (soft
// dependencies may form one) is cut where it closes.
func (r *resolver) visit(name string) error {
	if r.state[name] != unseen {
		return nil
	}
	e := r.index.modules[name]
	if e == nil {
		if r.index.builtin[name] {
			return nil
		}
		return &UnknownError{Name: name}
	}
	r.state[name] = underway
	soft := r.index.soft[name]
	r.visitSoft(soft.pre)
	for _, dep := range e.deps {
		if err := r.visit(dep); err != nil {
			return fmt.Errorf("needed by %q: %w", name, err)
		}
	}
	r.order = append(r.order, e.Module)
	r.state[name] = done
	r.visitSoft(soft.post)
	return nil
}

// visitSoft takes along what can be had: where a soft dependency cannot be
// resolved, all that it began is taken back.
func (r *resolver) visitSoft(names []string) {
	for _, name := range names {
		for _, module := range r.index.find(name) {
			mark := len(r.order)
			if err := r.visit(module); err == nil {
				continue
			}
			for _, m := range r.order[mark:] {
				delete(r.state, m.Name)
			}
			r.order = r.order[:mark]
		}
	}
}
