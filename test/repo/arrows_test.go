package repo

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// root is the top of the repository, seen from this package.
var root = filepath.Join("..", "..")

// project lists the packages of the project with `go list`.
func project(t *testing.T) []Package {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json", "./...")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []Package
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p Package
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("go list: decode: %v", err)
		}
		packages = append(packages, p)
	}
	if len(packages) < 5 {
		t.Fatalf("go list found %d packages; the check would prove nothing", len(packages))
	}
	return packages
}

func TestProjectKeepsTheArrows(t *testing.T) {
	packages := project(t)
	for _, v := range append(Arrows(packages), Places(packages)...) {
		t.Error(v)
	}
}

// Every rule must be able to fail: one wrong import for each, and beside it
// the nearest right one.
func TestArrowsFindWrongImports(t *testing.T) {
	const m = Module + "/"
	tests := []struct {
		name   string
		pkg    Package
		broken string // part of the rule, "" for none
	}{
		{"component to component", Package{ImportPath: m + "agent/apply", Imports: []string{m + "imagebuild/iso"}}, "no other component"},
		{"component to component in a test", Package{ImportPath: m + "netboot/stage1", XTestImports: []string{m + "imagebuild"}}, "no other component"},
		{"component to leaf", Package{ImportPath: m + "netboot/stage1", Imports: []string{m + "internal/manifest"}}, ""},
		{"domain to adapter", Package{ImportPath: m + "agent", Imports: []string{m + "agent/follow"}}, "no adapter below"},
		{"domain to adapter, netboot", Package{ImportPath: m + "netboot", Imports: []string{m + "netboot/dhcp"}}, "no adapter below"},
		{"adapter to domain", Package{ImportPath: m + "agent/follow", Imports: []string{m + "agent"}}, ""},
		{"imagebuild to writer", Package{ImportPath: m + "imagebuild", Imports: []string{m + "imagebuild/squashfs"}}, ""},
		{"writer to imagebuild", Package{ImportPath: m + "imagebuild/squashfs", Imports: []string{m + "imagebuild"}}, "format writer"},
		{"adapter to adapter", Package{ImportPath: m + "netboot/dhcp", Imports: []string{m + "netboot/tftp"}}, "no other adapter"},
		{"format to format", Package{ImportPath: m + "imagebuild/raw", Imports: []string{m + "imagebuild/iso"}}, ""},
		{"adapter to its own part", Package{ImportPath: m + "netboot/dhcp", Imports: []string{m + "netboot/dhcp/lease"}}, ""},
		{"domain to net", Package{ImportPath: m + "netboot", Imports: []string{"net/http"}}, "do not run programs"},
		{"domain to exec", Package{ImportPath: m + "agent", Imports: []string{"os/exec"}}, "do not run programs"},
		{"domain to net/netip", Package{ImportPath: m + "netboot", Imports: []string{"net/netip"}}, ""},
		{"agent to templates", Package{ImportPath: m + "agent/statusapi", Imports: []string{"html/template"}}, "no templates"},
		{"agent to Prometheus", Package{ImportPath: m + "agent/follower", Imports: []string{"github.com/prometheus/client_golang/prometheus"}}, "no templates"},
		{"agent's test to Prometheus", Package{ImportPath: m + "agent/statusapi", TestImports: []string{"github.com/prometheus/common/expfmt"}}, ""},
		{"leaf to component", Package{ImportPath: m + "internal/cpio", Imports: []string{m + "imagebuild"}}, "internal/ imports only"},
		{"leaf to component in a test", Package{ImportPath: m + "internal/cpio", TestImports: []string{m + "imagebuild"}}, "internal/ imports only"},
		{"leaf to leaf", Package{ImportPath: m + "internal/manifest", Imports: []string{m + "internal/nix", "fmt"}}, ""},
		{"pocket to component", Package{ImportPath: m + "nixos/pocket", Imports: []string{m + "imagebuild"}}, "nixos/ and modules/"},
		{"component to pocket", Package{ImportPath: m + "imagebuild", Imports: []string{m + "nixos/pocket"}}, "only cmd/ and test/"},
		{"command to pocket", Package{ImportPath: m + "cmd/xnodeos", Imports: []string{m + "nixos/pocket"}}, ""},
		{"test to pocket", Package{ImportPath: m + "test/qemu", TestImports: []string{m + "nixos/pocket"}}, ""},
		{"component to command", Package{ImportPath: m + "imagebuild", Imports: []string{m + "cmd/xnodeos/ui"}}, "nobody imports cmd/"},
		{"command to its own part", Package{ImportPath: m + "cmd/xnodeos", Imports: []string{m + "cmd/xnodeos/ui"}}, ""},
		{"program to testkit", Package{ImportPath: m + "imagebuild", Imports: []string{m + "internal/testkit"}}, "only tests and test/"},
		{"test to testkit", Package{ImportPath: m + "imagebuild", TestImports: []string{m + "internal/testkit"}}, ""},
		{"test with testify", Package{ImportPath: m + "imagebuild", TestImports: []string{"github.com/stretchr/testify/assert"}}, "go-cmp and testscript only"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Arrows([]Package{tt.pkg})
			if tt.broken == "" {
				if len(got) != 0 {
					t.Fatalf("Arrows(%v) = %v; want none", tt.pkg, got)
				}
				return
			}
			if len(got) == 0 {
				t.Fatalf("Arrows(%v) found nothing; want %q", tt.pkg, tt.broken)
			}
			if !strings.Contains(got[0].Rule, tt.broken) || got[0].Reason == "" {
				t.Errorf("Arrows(%v) = %v; want a rule with %q and a reason", tt.pkg, got[0], tt.broken)
			}
		})
	}
}

func TestEveryRuleIsTried(t *testing.T) {
	const m = Module + "/"
	wrong := Arrows([]Package{
		{ImportPath: m + "agent", Imports: []string{m + "netboot", m + "agent/x", "net", m + "cmd/x", m + "internal/testkit", m + "nixos/x", "gotest.tools/v3"}},
		{ImportPath: m + "agent/x", Imports: []string{m + "agent/y", "html/template"}},
		{ImportPath: m + "imagebuild/x", Imports: []string{m + "imagebuild"}},
		{ImportPath: m + "internal/x", Imports: []string{m + "agent"}},
		{ImportPath: m + "modules/x", Imports: []string{m + "agent"}},
	})
	found := map[string]bool{}
	for _, v := range wrong {
		rule, _, _ := strings.Cut(v.Rule, ", but it imports ")
		found[rule] = true
	}
	for _, a := range arrows {
		if !found[a.rule] {
			t.Errorf("no wrong import breaks the rule %q; can it fail at all?", a.rule)
		}
	}
}

func TestPlacesFindMisplacedPackages(t *testing.T) {
	const m = Module + "/"
	files := []string{"x.go"}
	tests := []struct {
		name string
		pkg  Package
		want string
	}{
		{"main in a component", Package{ImportPath: m + "agent/tool", Name: "main", Doc: "x", GoFiles: files}, "a main lies in"},
		{"main in cmd", Package{ImportPath: m + "cmd/xnode", Name: "main", Doc: "x", GoFiles: files}, ""},
		{"main in a bench", Package{ImportPath: m + "test/bench/image", Name: "main", Doc: "x", GoFiles: files}, ""},
		{"library in cmd", Package{ImportPath: m + "cmd/shared", Name: "shared", Doc: "x", GoFiles: files}, "cmd/ holds mains"},
		{"new top folder", Package{ImportPath: m + "pkg/util", Name: "util", Doc: "x", GoFiles: files}, "no package outside"},
		{"at the root", Package{ImportPath: Module, Name: "xnodeos", Doc: "x", GoFiles: files}, "no package outside"},
		{"no comment", Package{ImportPath: m + "internal/x", Name: "x", GoFiles: files}, "package comment"},
		{"tests only", Package{ImportPath: m + "test/qemu", Name: "qemu"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := Places([]Package{tt.pkg})
			switch {
			case tt.want == "" && len(got) != 0:
				t.Errorf("Places = %v; want none", got)
			case tt.want != "" && (len(got) != 1 || !strings.Contains(got[0].Rule, tt.want)):
				t.Errorf("Places = %v; want one with %q", got, tt.want)
			}
		})
	}
}
