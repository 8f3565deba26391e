// Package kmod knows the modules of one kernel: which exist, what each needs,
// which one drives a device, which the first stage may need, and how they are
// loaded. It takes the place of depmod's and modprobe's reading side.
//
// It reads the text files that depmod writes (modules.dep, modules.alias,
// modules.softdep, modules.builtin; see modules.dep(5) and modprobe.d(5)) and
// never the binary ones, knows no modprobe.d, and never unloads anything. In
// module names "-" and "_" are one, as everywhere in Linux; this package
// writes "_".
package kmod

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// maxIndexFile bounds each file that Open reads; Debian's largest has 1.3 MB.
const maxIndexFile = 64 << 20

// Module is one loadable module. Name is its name in the kernel, with "_";
// Path leads from lib/modules/<kver> to its file. In what Resolve returns, Soft
// says that the module is only there as a soft dependency: the others work
// without it, and it may fail to load (crct10dif_pclmul does on old processors).
type Module struct {
	Name, Path string
	Soft       bool
}

// UnknownError says that no module, built-in or alias has the name.
type UnknownError struct{ Name string }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("kernel module %q: neither a module nor built into this kernel", e.Name)
}

// Index is what depmod says about the modules of one kernel. It does not
// change after Open and may be used from several goroutines.
type Index struct {
	modules map[string]*entry
	builtin map[string]bool
	aliases aliasTable
	soft    map[string]soft
}

type entry struct {
	Module
	deps []string // names
}

// soft holds the soft dependencies of one module: names or aliases.
type soft struct{ pre, post []string }

// Open reads the index of the kernel modules in fsys, whose root is
// lib/modules/<kver>. modules.softdep and modules.builtin may be missing.
func Open(fsys fs.FS) (*Index, error) {
	x := &Index{modules: make(map[string]*entry), builtin: make(map[string]bool), soft: make(map[string]soft)}
	for _, file := range []struct {
		name     string
		optional bool
		parse    func(text string) error
	}{
		{"modules.dep", false, x.parseDep},
		{"modules.alias", false, x.parseAlias},
		{"modules.softdep", true, x.parseSoftdep},
		{"modules.builtin", true, x.parseBuiltin},
	} {
		text, err := readText(fsys, file.name)
		if file.optional && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open kernel modules: %w; the folder lib/modules/<version> of a kernel is wanted, as depmod leaves it", err)
		}
		if err := file.parse(text); err != nil {
			return nil, fmt.Errorf("open kernel modules: %s: %w", file.name, err)
		}
	}
	return x, nil
}

// Names returns the names of all loadable modules, sorted.
func (x *Index) Names() []string {
	names := make([]string, 0, len(x.modules))
	for name := range x.modules {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// Lookup returns the loadable module of that name.
func (x *Index) Lookup(name string) (Module, bool) {
	e, ok := x.modules[normal(name)]
	if !ok {
		return Module{}, false
	}
	return e.Module, true
}

// Has says whether the kernel can do what the module does: it is loadable or
// built in.
func (x *Index) Has(name string) bool {
	name = normal(name)
	return x.modules[name] != nil || x.builtin[name]
}

func readText(fsys fs.FS, name string) (string, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b strings.Builder
	if info, err := f.Stat(); err == nil && info.Size() > 0 && info.Size() < maxIndexFile {
		b.Grow(int(info.Size()))
	}
	n, err := io.Copy(&b, io.LimitReader(f, maxIndexFile+1))
	if err != nil {
		return "", fmt.Errorf("read %s: %w", name, err)
	}
	if n > maxIndexFile {
		return "", fmt.Errorf("read %s: more than %d bytes", name, maxIndexFile)
	}
	return b.String(), nil
}

// parseDep reads "path: path path" lines.
func (x *Index) parseDep(text string) error {
	number := 0
	for line := range strings.Lines(text) {
		number++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		file, needs, ok := strings.Cut(line, ":")
		if !ok || !cleanPath(file) {
			return fmt.Errorf("line %d: %q is not \"path: path ...\"", number, line)
		}
		e := &entry{Module: Module{Name: nameOf(file), Path: file}}
		for dep := range strings.FieldsSeq(needs) {
			if !cleanPath(dep) {
				return fmt.Errorf("line %d: %q is not the path of a module", number, dep)
			}
			e.deps = append(e.deps, nameOf(dep))
		}
		if x.modules[e.Name] == nil {
			x.modules[e.Name] = e
		}
	}
	return nil
}

func (x *Index) parseBuiltin(text string) error {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			x.builtin[nameOf(line)] = true
		}
	}
	return nil
}

// parseSoftdep reads "softdep name pre: a b post: c" lines. Words before the
// first "pre:" or "post:" mean nothing, as for modprobe; Debian has such lines.
func (x *Index) parseSoftdep(text string) error {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "softdep" {
			continue
		}
		name := normal(words[1])
		s := x.soft[name]
		var into *[]string
		for _, word := range words[2:] {
			switch {
			case word == "pre:":
				into = &s.pre
			case word == "post:":
				into = &s.post
			case into != nil:
				*into = append(*into, word)
			}
		}
		x.soft[name] = s
	}
	return nil
}

// cleanPath says whether p is a relative path that stays where it is: it is
// joined to a folder by those who read the module.
func cleanPath(p string) bool {
	return fs.ValidPath(p) && p != "." && strings.Contains(path.Base(p), ".ko") && !strings.ContainsAny(p, " \t")
}

// nameOf returns the module name of a file: "a/b-c.ko.xz" is "b_c".
func nameOf(file string) string {
	base := file[strings.LastIndexByte(file, '/')+1:]
	if i := strings.Index(base, ".ko"); i >= 0 {
		base = base[:i]
	}
	return normal(base)
}

func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }
