package kmod

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
)

// UncompressedPath returns m.Path as it is in an initramfs, where modules lie
// without their compression.
func (m Module) UncompressedPath() string {
	if i := strings.LastIndex(m.Path, ".ko"); i >= 0 {
		return m.Path[:i+len(".ko")]
	}
	return m.Path
}

// WriteSubset returns the index files for an initramfs that holds only the
// given modules, at their UncompressedPath: modules.dep, modules.alias,
// modules.softdep and modules.builtin. Dependencies that are not among mods
// are left out: hand over what Resolve or FirstStage returned. The bytes do
// not depend on the order of mods.
func (x *Index) WriteSubset(mods []Module) map[string][]byte {
	in := make(map[string]bool)
	for _, m := range mods {
		in[m.Name] = true
	}
	names := make([]string, 0, len(in))
	for name := range in {
		names = append(names, name)
	}
	slices.Sort(names)
	var dep, softdep, builtin bytes.Buffer
	for _, name := range names {
		e := x.modules[name]
		if e == nil {
			continue
		}
		dep.WriteString(e.UncompressedPath() + ":")
		for _, d := range e.deps {
			if in[d] && x.modules[d] != nil {
				dep.WriteString(" " + x.modules[d].UncompressedPath())
			}
		}
		dep.WriteByte('\n')
		if s := x.soft[name]; len(s.pre)+len(s.post) > 0 {
			softdep.WriteString("softdep " + name + softWords(" pre:", s.pre) + softWords(" post:", s.post) + "\n")
		}
	}
	builtins := make([]string, 0, len(x.builtin))
	for name := range x.builtin {
		builtins = append(builtins, name)
	}
	slices.Sort(builtins)
	for _, name := range builtins {
		fmt.Fprintf(&builtin, "kernel/%s.ko\n", name)
	}
	return map[string][]byte{
		"modules.dep":     dep.Bytes(),
		"modules.alias":   x.aliases.subset(in),
		"modules.softdep": softdep.Bytes(),
		"modules.builtin": builtin.Bytes(),
	}
}

func softWords(kind string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	return kind + " " + strings.Join(names, " ")
}

func (t *aliasTable) subset(in map[string]bool) []byte {
	var lines []string
	add := func(list []alias) {
		for _, a := range list {
			if in[a.module] {
				lines = append(lines, "alias "+a.pattern+" "+a.module+"\n")
			}
		}
	}
	for _, list := range t.byBus {
		add(list)
	}
	add(t.any)
	for pattern, modules := range t.exact {
		for _, module := range modules {
			if in[module] {
				lines = append(lines, "alias "+pattern+" "+module+"\n")
			}
		}
	}
	slices.Sort(lines)
	return []byte(strings.Join(slices.Compact(lines), ""))
}
