package sbom

import (
	"bytes"
	"debug/buildinfo"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// SplitName takes the name of a store path apart as Nix does
// (builtins.parseDrvName): the version begins behind the first dash that no
// letter follows. There may be none.
func SplitName(path string) (name, version string) {
	for i := range len(path) - 1 {
		if path[i] == '-' && !isLetter(path[i+1]) {
			return path[:i], path[i+1:]
		}
	}
	return path, ""
}

func isLetter(c byte) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

// goModules lists the Go modules inside a program, as the linker noted them,
// and the standard library, sorted by id. A program without such a note has
// none: then the program alone is in the bill.
func goModules(program []byte) []cdx.Component {
	info, err := buildinfo.Read(bytes.NewReader(program))
	if err != nil {
		return nil
	}
	var out []cdx.Component
	if v, ok := strings.CutPrefix(info.GoVersion, "go"); ok {
		version, _, _ := strings.Cut(v, " ")
		out = append(out, goModule("std", version))
	}
	for _, m := range info.Deps {
		for m.Replace != nil {
			m = m.Replace
		}
		out = append(out, goModule(m.Path, m.Version))
	}
	slices.SortFunc(out, func(a, b cdx.Component) int { return strings.Compare(a.BOMRef, b.BOMRef) })
	return slices.CompactFunc(out, func(a, b cdx.Component) bool { return a.BOMRef == b.BOMRef })
}

// goModule writes the package URL as the type "golang" wants it: lower case,
// and no "+" in the version.
func goModule(path, version string) cdx.Component {
	purl := "pkg:golang/" + strings.ToLower(path)
	if version != "" {
		purl += "@" + strings.ReplaceAll(version, "+", "%2B")
	}
	return cdx.Component{BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: path, Version: version, PackageURL: purl}
}
