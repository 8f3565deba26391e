package sbom

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/manifest"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/testkit"
)

const (
	system = "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-nixos-system-edge-26.05"
	bash   = "/nix/store/bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb-bash-5.2p37"
	glibc  = "/nix/store/cccccccccccccccccccccccccccccccc-glibc-2.40-66"
	etc    = "/nix/store/dddddddddddddddddddddddddddddddd-etc"
)

func info(path string, refs ...string) nix.PathInfo {
	return nix.PathInfo{Path: path, NarHash: sha256.Sum256([]byte(path)), NarSize: 100, References: refs}
}

func sum(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])
}

// example is the image of docs/formats.md.
func example(t testing.TB) Spec {
	t.Helper()
	closure := []nix.PathInfo{info(system, bash, etc), info(bash, bash, glibc), info(glibc, glibc), info(etc)}
	list, err := nix.NewClosureList(closure)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := manifest.HashPayload("system.squashfs", strings.NewReader("squashfs"))
	if err != nil {
		t.Fatal(err)
	}
	return Spec{
		Manifest: &manifest.Manifest{
			V: 1, Label: "edge-26.05", Arch: "x86_64-linux", System: system, Closure: list.Digest(), Handover: manifest.HandoverScript,
			Sequence: 7, Time: 1_795_180_800, Cmdline: "panic=10", Payload: payload,
			Kernel: manifest.File{Name: "vmlinuz", Size: 6, SHA256: sum("kernel")},
			Initrd: manifest.File{Name: "initrd", Size: 6, SHA256: sum("initrd")},
		},
		Closure:    closure,
		FirstStage: []byte("a program"),
		Loaders:    map[string][]byte{"isolinux.bin": []byte("bios"), "systemd-bootx64.efi": []byte("uefi")},
	}
}

func build(t testing.TB, spec Spec) []byte {
	t.Helper()
	data, err := Build(spec)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func decode(t *testing.T, data []byte) *cdx.BOM {
	t.Helper()
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bytes.NewReader(data), cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatal(err)
	}
	return &bom
}

// graph returns what each component needs.
func graph(bom *cdx.BOM) map[string][]string {
	edges := map[string][]string{}
	for _, d := range *bom.Dependencies {
		edges[d.Ref] = []string{}
		if d.Dependencies != nil {
			edges[d.Ref] = *d.Dependencies
		}
	}
	return edges
}

func TestBuild(t *testing.T) {
	t.Parallel()
	bom := decode(t, build(t, example(t)))
	want := map[string][]string{
		system: {bash, etc, "file:initrd", "file:isolinux.bin", "file:systemd-bootx64.efi", "file:vmlinuz"},
		bash:   {glibc}, glibc: {}, etc: {},
		"file:vmlinuz": {}, "file:initrd": {"file:xnode-init"}, "file:xnode-init": {}, "file:isolinux.bin": {}, "file:systemd-bootx64.efi": {},
	}
	if diff := cmp.Diff(want, graph(bom)); diff != "" {
		t.Errorf("dependencies (-want +got):\n%s", diff)
	}
	hash := map[string]string{bom.Metadata.Component.BOMRef: (*bom.Metadata.Component.Hashes)[0].Value}
	for _, c := range *bom.Components {
		hash[c.BOMRef] = (*c.Hashes)[0].Value
	}
	if diff := cmp.Diff(map[string]string{
		system: sum(system), bash: sum(bash), glibc: sum(glibc), etc: sum(etc), "file:vmlinuz": sum("kernel"), "file:initrd": sum("initrd"),
		"file:xnode-init": sum("a program"), "file:isolinux.bin": sum("bios"), "file:systemd-bootx64.efi": sum("uefi"),
	}, hash); diff != "" {
		t.Errorf("hashes (-want +got):\n%s", diff)
	}
	if got := bom.Metadata.Timestamp; got != "2026-11-20T13:20:00Z" {
		t.Errorf("timestamp %s; want the manifest's time", got)
	}
	if c := bom.Metadata.Component; c.Name != "nixos-system-edge" || c.Version != "26.05" || c.Type != cdx.ComponentTypeOS {
		t.Errorf("the system is %s %s, a %s", c.Name, c.Version, c.Type)
	}
}

func TestBuildKeepsTheRules(t *testing.T) {
	t.Parallel()
	specs := map[string]Spec{"example": example(t), "with Go modules": example(t)}
	spec := specs["with Go modules"]
	spec.FirstStage = goProgram(t)
	specs["with Go modules"] = spec
	for name, spec := range specs {
		data := build(t, spec)
		checkSchema(t, data)
		bom := decode(t, data)
		ids := map[string]bool{bom.Metadata.Component.BOMRef: true}
		for _, c := range *bom.Components {
			if ids[c.BOMRef] {
				t.Errorf("%s: two components have the id %s", name, c.BOMRef)
			}
			ids[c.BOMRef] = true
		}
		edges := graph(bom)
		if len(edges) != len(ids) || len(*bom.Dependencies) != len(ids) {
			t.Errorf("%s: %d components, %d in the graph, %d entries", name, len(ids), len(edges), len(*bom.Dependencies))
		}
		reached := map[string]bool{}
		var visit func(id string)
		visit = func(id string) {
			if !ids[id] {
				t.Errorf("%s: the graph names %s, which is no component", name, id)
			}
			if !reached[id] {
				reached[id] = true
				for _, next := range edges[id] {
					visit(next)
				}
			}
		}
		visit(system)
		if len(reached) != len(ids) {
			t.Errorf("%s: %d of %d components can be reached from the system", name, len(reached), len(ids))
		}
	}
}

// TestBuildIsDeterministic: the order of the input is nothing, every content
// is something.
func TestBuildIsDeterministic(t *testing.T) {
	t.Parallel()
	first := build(t, example(t))
	other := example(t)
	slices.Reverse(other.Closure)
	for range 20 {
		if again := build(t, other); !bytes.Equal(first, again) {
			t.Fatalf("the closure in another order (-first +again):\n%s", cmp.Diff(string(first), string(again)))
		}
	}
	serial := decode(t, first).SerialNumber
	for name, change := range map[string]func(*Spec){
		"a loader":        func(s *Spec) { s.Loaders["isolinux.bin"] = []byte("other") },
		"no loader":       func(s *Spec) { s.Loaders = nil },
		"the first stage": func(s *Spec) { s.FirstStage = []byte("other") },
		"the kernel":      func(s *Spec) { s.Manifest.Kernel.SHA256 = sum("other") },
		"the payload":     func(s *Spec) { s.Manifest.Payload.SHA256 = sum("other") },
		"the time":        func(s *Spec) { s.Manifest.Time++ },
		"the sequence":    func(s *Spec) { s.Manifest.Sequence++ },
	} {
		spec := example(t)
		change(&spec)
		if got := decode(t, build(t, spec)).SerialNumber; got == serial {
			t.Errorf("%s is another, the serial number is not", name)
		}
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Spec){
		"no manifest":               func(s *Spec) { s.Manifest = nil },
		"no first stage":            func(s *Spec) { s.FirstStage = nil },
		"the manifest names":        func(s *Spec) { s.Closure[0].NarSize++ },
		"lacks the system":          func(s *Spec) { s.Manifest.System = bash[:len(bash)-1] },
		"after the year 9999":       func(s *Spec) { s.Manifest.Time = maxTime + 1 },
		"encode manifest":           func(s *Spec) { s.Manifest.Arch = "" },
		`have the id "file:initrd"`: func(s *Spec) { s.Loaders["initrd"] = nil },
	} {
		spec := example(t)
		change(&spec)
		if _, err := Build(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Build = %v; want an error with %q", err, want)
		}
	}
}

// goProgram builds the real first stage's like: a program with modules in it.
func goProgram(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", path, "xnodeos.org/cmd/xnode-init")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build xnode-init: %v\n%s", err, out)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestGoModules(t *testing.T) {
	t.Parallel()
	spec := example(t)
	spec.FirstStage = goProgram(t)
	bom := decode(t, build(t, spec))
	needs := graph(bom)["file:xnode-init"]
	listed := strings.Fields(testkit.RunTool(t, "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}pkg:golang/{{.Path}}@{{.Version}}{{end}}{{end}}", "xnodeos.org/cmd/xnode-init"))
	var want []string
	for _, purl := range listed {
		want = append(want, strings.ReplaceAll(strings.ToLower(purl), "+", "%2B"))
	}
	slices.Sort(want)
	want = slices.Compact(want)
	got := slices.DeleteFunc(slices.Clone(needs), func(id string) bool { return strings.HasPrefix(id, "pkg:golang/std@1.") })
	if diff := cmp.Diff(want, got); diff != "" || len(needs) != len(got)+1 {
		t.Errorf("modules of xnode-init (-go list +bill):\n%s\nall: %v", diff, needs)
	}
}

// TestSplitNameAgreesWithNix compares with builtins.parseDrvName.
func TestSplitNameAgreesWithNix(t *testing.T) {
	t.Parallel()
	names := []string{"a", "bash-5.2p37", "a-b-1.2-x", "etc", "nixos-system-edge-26.05.20260101.abc", "x-", "x--1", "-1", "1-2", "a-_b", "a-b", "a-?", "linux-6.12.1-modules", "unit-a.service", "a-+1", "foo-1-2", "perl5.40.0-XML-1"}
	var expr strings.Builder
	expr.WriteString("map (n: let d = builtins.parseDrvName n; in \"${d.name}|${d.version}\") [")
	for _, n := range names {
		fmt.Fprintf(&expr, " %q", n)
	}
	expr.WriteString(" ]")
	path, err := exec.LookPath("nix-instantiate")
	if err != nil {
		t.Fatal("nix-instantiate is not installed; run scripts/setup")
	}
	cmd := exec.CommandContext(t.Context(), path, "--eval", "--strict", "--store", "dummy://", "-E", expr.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("nix-instantiate: %v", err)
	}
	want := strings.Fields(strings.Trim(strings.TrimSpace(string(out)), "[]"))
	var got []string
	for _, n := range names {
		name, version := SplitName(n)
		got = append(got, fmt.Sprintf("%q", name+"|"+version))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("names and versions (-nix +ours):\n%s", diff)
	}
}

func TestRead(t *testing.T) {
	t.Parallel()
	spec := example(t)
	data := build(t, spec)
	digest, err := spec.Manifest.Digest()
	if err != nil {
		t.Fatal(err)
	}
	got, err := Read(data)
	want := &Summary{Serial: decode(t, data).SerialNumber, System: system, Manifest: digest, Components: 8}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Read, %v (-want +got):\n%s", err, diff)
	}
	for i := 0; i < len(data); i += 7 {
		changed := bytes.Clone(data)
		changed[i] ^= 1
		if _, err := Read(changed); err == nil {
			t.Errorf("byte %d changed from %q to %q: Read takes it", i, data[i], changed[i])
		}
	}
	for name, text := range map[string]string{"empty": "", "no object": "[]", "no bill": "{}", "cut": string(data[:len(data)/2]), "longer": string(data) + "\n",
		"another version": strings.Replace(string(data), `"1.6"`, `"1.5"`, 1), "too long": strings.Repeat(" ", MaxSize+1)} {
		if _, err := Read([]byte(text)); err == nil || !strings.Contains(err.Error(), "read SBOM") {
			t.Errorf("%s: Read = %v; want an error", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	data := build(f, example(f))
	f.Add(data)
	f.Add([]byte("{}"))
	f.Add([]byte(`{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"metadata":{"component":{},"properties":[]},"components":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := Read(data)
		if err == nil && !strings.HasPrefix(s.Serial, "urn:uuid:") {
			t.Fatalf("%q has no serial number", data)
		}
	})
}
