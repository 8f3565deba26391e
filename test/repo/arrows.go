// Package repo checks the repository as a whole: which package may import
// which, what may lie at the top level, that every package says what it is for,
// and that README and the scripts name only what exists.
//
// It knows nothing about what the programs do. The rules are data, each with
// the reason that is printed when it is broken.
package repo

import (
	"fmt"
	"slices"
	"strings"
)

// Module is the path that all packages of the project begin with.
const Module = "xnodeos.org"

// A Package is one package of the project, as `go list -json` describes it.
type Package struct {
	ImportPath   string
	Name         string
	Doc          string
	Dir          string
	GoFiles      []string
	TestGoFiles  []string
	XTestGoFiles []string
	Imports      []string
	TestImports  []string // of the tests inside the package
	XTestImports []string // of the tests beside it
}

// A Violation is one broken rule, worded for the person who broke it.
type Violation struct {
	Package string
	Rule    string
	Reason  string
}

func (v Violation) String() string {
	return fmt.Sprintf("%s: %s\n\twhy: %s", v.Package, v.Rule, v.Reason)
}

// components are the three programs' domains. Each is a folder whose root
// package is the domain and whose subfolders are its adapters or writers.
var components = []string{"agent", "imagebuild", "netboot"}

// An arrow says which imports of a package are wrong. Paths are relative to
// the module for packages of the project, whole for all others.
type arrow struct {
	rule   string
	reason string
	tests  bool // whether the tests of a package keep the rule as well
	wrong  func(from, to string) bool
}

var arrows = []arrow{
	{
		rule:   "a component imports no other component",
		reason: "agent, imagebuild and netboot share data (manifest, node config, release), never code; what two of them need goes to internal/",
		tests:  true,
		wrong: func(from, to string) bool {
			a, b := component(from), component(to)
			return a != "" && b != "" && a != b
		},
	},
	{
		rule:   "the domain packages agent and netboot import no adapter below them",
		reason: "arrows point inward: an adapter implements what the domain declares, so that decisions are tested without exec, network or clock",
		wrong: func(from, to string) bool {
			return (from == "agent" || from == "netboot") && within(to, from) && to != from
		},
	},
	{
		rule:   "a format writer does not import imagebuild",
		reason: "squashfs, iso and the like are leaves that imagebuild calls; the arrow goes one way",
		tests:  true,
		wrong:  func(from, to string) bool { return within(from, "imagebuild") && from != to && to == "imagebuild" },
	},
	{
		rule:   "an adapter imports no other adapter",
		reason: "adapters meet in cmd/ only; two that know each other cannot be changed one at a time",
		tests:  true,
		wrong: func(from, to string) bool {
			a, b := adapter(from), adapter(to)
			return a != "" && b != "" && a != b
		},
	},
	{
		rule:   "the domain packages agent and netboot do not run programs, open connections or touch services",
		reason: "a decision that needs the outside world cannot be tested as a table; the outside comes in through an adapter",
		wrong: func(from, to string) bool {
			return (from == "agent" || from == "netboot") && slices.Contains([]string{
				"os/exec", "net", "net/http", "internal/command", "github.com/miekg/dns",
			}, to)
		},
	},
	{
		rule:   "the agent links no templates and no Prometheus client",
		reason: "a template keeps every method of every type in the program, and that client brings protobuf's reflection: together a third of an agent that is to be idle in 20 MiB",
		wrong: func(from, to string) bool {
			return within(from, "agent") && (to == "html/template" || to == "text/template" || within(to, "github.com/prometheus"))
		},
	},
	{
		rule:   "internal/ imports only internal/ and libraries",
		reason: "internal/ holds leaves that two components share; a leaf that knows a component cannot be shared",
		tests:  true,
		wrong:  func(from, to string) bool { return within(from, "internal") && ours(to) && !within(to, "internal") },
	},
	{
		rule:   "nixos/ and modules/ import only internal/ and libraries",
		reason: "they describe systems; the programs come to them by path or by option, not by import",
		tests:  true,
		wrong: func(from, to string) bool {
			for _, top := range []string{"nixos", "modules"} {
				if within(from, top) {
					return ours(to) && !within(to, "internal") && !within(to, top)
				}
			}
			return false
		},
	},
	{
		rule:   "only cmd/ and test/ import nixos/, modules/ and configs/",
		reason: "imagebuild, netboot and agent work on any system of the contract; that there is a pocket one is wiring",
		wrong: func(from, to string) bool {
			if within(from, "cmd") || within(from, "test") {
				return false
			}
			for _, top := range []string{"nixos", "modules", "configs"} {
				if within(to, top) && !within(from, top) {
					return true
				}
			}
			return false
		},
	},
	{
		rule:   "nobody imports cmd/",
		reason: "mains wire and are wired by nobody; what a test needs of them belongs in a package",
		tests:  true,
		wrong:  func(from, to string) bool { return within(to, "cmd") && !sameCommand(from, to) },
	},
	{
		rule:   "only tests and test/ import internal/testkit and test/",
		reason: "what helps tests must not end up in a program",
		wrong: func(from, to string) bool {
			return (within(to, "internal/testkit") || within(to, "test")) &&
				!within(from, "test") && !within(from, "internal/testkit")
		},
	},
	{
		rule:   "tests use the standard library, go-cmp and testscript only",
		reason: "an assertion library is a second language to learn and hides what was compared",
		tests:  true,
		wrong: func(_, to string) bool {
			return slices.ContainsFunc([]string{
				"github.com/stretchr/testify", "gotest.tools", "github.com/onsi", "go.uber.org/mock", "github.com/golang/mock",
			}, func(p string) bool { return within(to, p) })
		},
	},
}

// Arrows returns every broken rule of the import graph, in the order of the
// packages and of the rules.
func Arrows(packages []Package) []Violation {
	var out []Violation
	for _, p := range packages {
		from := relative(p.ImportPath)
		for _, a := range arrows {
			imports := p.Imports
			if a.tests {
				imports = slices.Concat(p.Imports, p.TestImports, p.XTestImports)
			}
			for _, path := range imports {
				to := relative(path)
				if a.wrong(from, to) {
					out = append(out, Violation{p.ImportPath, a.rule + ", but it imports " + path, a.reason})
				}
			}
		}
	}
	return out
}

// Places returns packages that lie where they must not, or that do not say
// what they are for.
func Places(packages []Package) []Violation {
	var out []Violation
	for _, p := range packages {
		path := relative(p.ImportPath)
		if p.Name == "main" && !within(path, "cmd") && !within(path, "test") {
			out = append(out, Violation{p.ImportPath, "a main lies in cmd/ or test/ only", "programs are found in one place, and components stay importable"})
		}
		if p.Name != "main" && within(path, "cmd") && strings.Count(path, "/") == 1 {
			out = append(out, Violation{p.ImportPath, "cmd/ holds mains", "what is not wiring belongs to a component or to internal/"})
		}
		if !ours(path) {
			out = append(out, Violation{p.ImportPath, "no package outside the folders of the layout", "the map in README stays the whole truth"})
		}
		if len(p.GoFiles) > 0 && strings.TrimSpace(p.Doc) == "" {
			out = append(out, Violation{p.ImportPath, "every package has a package comment", "it says what the package is for, what it is not for, and what always holds"})
		}
	}
	return out
}

// relative cuts the module off a package of the project.
func relative(path string) string {
	if path == Module {
		return "."
	}
	return strings.TrimPrefix(path, Module+"/")
}

// ours reports whether a relative path is a package of the project. No package
// of the standard library that can be imported begins like one of our folders.
func ours(path string) bool {
	top, _, _ := strings.Cut(path, "/")
	return slices.Contains(packageFolders, top)
}

// within reports whether path is root or lies below it.
func within(path, root string) bool {
	return path == root || strings.HasPrefix(path, root+"/")
}

func component(path string) string {
	for _, c := range components {
		if within(path, c) {
			return c
		}
	}
	return ""
}

// adapter names the folder directly below agent or netboot that a package is
// in. The folders below imagebuild are formats, and a format may hold another:
// the payload partition of a raw disk is an ISO volume.
func adapter(path string) string {
	parts := strings.Split(path, "/")
	if len(parts) < 2 || component(path) == "" || parts[0] == "imagebuild" || parts[1] == "internal" {
		return ""
	}
	return parts[0] + "/" + parts[1]
}

// sameCommand reports whether two packages belong to one command.
func sameCommand(a, b string) bool {
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	return len(x) > 1 && len(y) > 1 && x[0] == "cmd" && y[0] == "cmd" && x[1] == y[1]
}
