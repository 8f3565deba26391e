// Package sbom writes the bill of materials of an image: CycloneDX 1.6 as
// JSON, with every store path of the system, the kernel, the initrd, the first
// stage with the Go modules in it, and the boot loaders, each with its SHA-256.
//
// Every id comes from content and the only time is the manifest's, so the same
// image has the same bill. The package is pure: it is given what the image is
// made of and returns bytes. It knows no licences and no vulnerabilities; name
// and version of a store path are what Nix makes of its name.
package sbom

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/nix"
)

const (
	// FileName is the name of the bill beside the artifacts.
	FileName = "sbom.cdx.json"
	// firstStage is the name of the program that is /init of the initrd.
	firstStage = "xnode-init"
	// maxTime is the end of the year 9999, the last that RFC 3339 can write.
	maxTime = 253402300799
)

// Spec is what an image is made of.
type Spec struct {
	Manifest *manifest.Manifest
	// Closure is the closure that the manifest names.
	Closure []nix.PathInfo
	// FirstStage is the program xnode-init, which the initrd holds.
	FirstStage []byte
	// Loaders are the boot loaders' files by name.
	Loaders map[string][]byte
}

// The names of the properties in the bill's metadata.
const (
	propManifest = "xnodeos:manifest"
	propClosure  = "xnodeos:closure"
	propSequence = "xnodeos:sequence"
	propArch     = "xnodeos:arch"
	propHashes   = "xnodeos:store-path-hash"
)

// builder collects components and the edges between them in their order.
type builder struct {
	components []cdx.Component
	edges      []cdx.Dependency
	ids        map[string]bool
}

// Build returns the bill of spec. It refuses a closure that is not the
// manifest's.
func Build(spec Spec) ([]byte, error) {
	list, err := spec.check()
	if err != nil {
		return nil, fmt.Errorf("build SBOM: %w", err)
	}
	m := spec.Manifest
	digest, err := m.Digest()
	if err != nil {
		return nil, fmt.Errorf("build SBOM: %w", err)
	}
	b := &builder{ids: map[string]bool{}}
	var system cdx.Component
	files := spec.files()
	for _, info := range list.Paths {
		c := storePath(info)
		if info.Path != m.System {
			b.add(c, info.References)
			continue
		}
		system = c
		system.Type, system.Description = cdx.ComponentTypeOS, m.Label
		b.edge(c.BOMRef, append(slices.Clone(info.References), ids(files)...))
	}
	modules := goModules(spec.FirstStage)
	for _, c := range files {
		var needs []string
		if c.Name == m.Initrd.Name {
			needs = []string{fileID(firstStage)}
		}
		b.add(c, needs)
	}
	b.add(application(firstStage, spec.FirstStage), ids(modules))
	for _, c := range modules {
		b.add(c, nil)
	}
	if err := b.checkIDs(); err != nil {
		return nil, fmt.Errorf("build SBOM: %w", err)
	}
	bom := cdx.NewBOM()
	bom.Components, bom.Dependencies = &b.components, &b.edges
	bom.Metadata = &cdx.Metadata{
		Timestamp: time.Unix(m.Time, 0).UTC().Format(time.RFC3339),
		Tools:     &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: "xnodeos"}}},
		Component: &system,
		Properties: &[]cdx.Property{
			{Name: propManifest, Value: digest},
			{Name: propClosure, Value: m.Closure},
			{Name: propSequence, Value: strconv.FormatUint(uint64(m.Sequence), 10)},
			{Name: propArch, Value: m.Arch},
			{Name: propHashes, Value: "NAR"},
		},
	}
	return encode(bom)
}

func (spec Spec) check() (*nix.ClosureList, error) {
	m := spec.Manifest
	if m == nil {
		return nil, errors.New("no manifest")
	}
	if m.Time > maxTime {
		return nil, fmt.Errorf("time %d is after the year 9999", m.Time)
	}
	if len(spec.FirstStage) == 0 {
		return nil, errors.New("no first stage")
	}
	list, err := nix.NewClosureList(spec.Closure)
	if err != nil {
		return nil, err
	}
	if got := list.Digest(); got != m.Closure {
		return nil, fmt.Errorf("the closure has the digest %s, the manifest names %s", got, m.Closure)
	}
	if !slices.ContainsFunc(list.Paths, func(p nix.PathInfo) bool { return p.Path == m.System }) {
		return nil, fmt.Errorf("the closure lacks the system %s", m.System)
	}
	return list, nil
}

// files are kernel, initrd and loaders: what boots the system and is not
// itself a store path.
func (spec Spec) files() []cdx.Component {
	out := []cdx.Component{
		file(spec.Manifest.Kernel.Name, spec.Manifest.Kernel.SHA256, "kernel"),
		file(spec.Manifest.Initrd.Name, spec.Manifest.Initrd.SHA256, "initrd without node config"),
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Loaders)) {
		sum := sha256.Sum256(spec.Loaders[name])
		out = append(out, file(name, hex.EncodeToString(sum[:]), "boot loader"))
	}
	return out
}

func fileID(name string) string { return "file:" + name }

func file(name, sum, what string) cdx.Component {
	return cdx.Component{BOMRef: fileID(name), Type: cdx.ComponentTypeFile, Name: name, Description: what, Hashes: hashes(sum)}
}

func application(name string, data []byte) cdx.Component {
	sum := sha256.Sum256(data)
	return cdx.Component{BOMRef: fileID(name), Type: cdx.ComponentTypeApplication, Name: name,
		Description: "first stage, /init of the initrd", Hashes: hashes(hex.EncodeToString(sum[:]))}
}

// storePath describes a store path. It gets no package URL: none of the
// registered types means a Nix package, and pkg:generic says no more than name
// and version do.
func storePath(info nix.PathInfo) cdx.Component {
	name, version := SplitName(nix.StorePath(info.Path).Name())
	return cdx.Component{BOMRef: info.Path, Type: cdx.ComponentTypeApplication, Name: name, Version: version, Hashes: hashes(info.NarHash.Hex())}
}

func hashes(sum string) *[]cdx.Hash {
	return &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: sum}}
}

func ids(components []cdx.Component) []string {
	var out []string
	for _, c := range components {
		out = append(out, c.BOMRef)
	}
	return out
}

func (b *builder) add(c cdx.Component, needs []string) {
	b.components = append(b.components, c)
	b.edge(c.BOMRef, needs)
}

// edge writes one for every component, also for those that need nothing: in
// CycloneDX a missing one means "unknown". A reference to itself is left out.
func (b *builder) edge(id string, needs []string) {
	needs = slices.DeleteFunc(slices.Clone(needs), func(n string) bool { return n == id })
	slices.Sort(needs)
	needs = slices.Compact(needs)
	d := cdx.Dependency{Ref: id}
	if len(needs) > 0 {
		d.Dependencies = &needs
	}
	b.edges = append(b.edges, d)
}

func (b *builder) checkIDs() error {
	for _, d := range b.edges {
		if b.ids[d.Ref] {
			return fmt.Errorf("two components have the id %q; give the loader another name", d.Ref)
		}
		b.ids[d.Ref] = true
	}
	return nil
}

// encode fills the serial number in and writes the bill.
func encode(bom *cdx.BOM) ([]byte, error) {
	bom.SerialNumber = ""
	data, err := marshal(bom)
	if err != nil {
		return nil, err
	}
	bom.SerialNumber = serial(data)
	return marshal(bom)
}

// serial is a UUID of version 8 (RFC 9562: its content is ours to choose) of
// the bill's own SHA-256 without serial number, so that two bills have the
// same one only if they are the same.
func serial(data []byte) string {
	u := sha256.Sum256(data)
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:16])
}

func marshal(bom *cdx.BOM) ([]byte, error) {
	var out bytes.Buffer
	if err := cdx.NewBOMEncoder(&out, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).Encode(bom); err != nil {
		return nil, fmt.Errorf("encode SBOM: %w", err)
	}
	return out.Bytes(), nil
}
