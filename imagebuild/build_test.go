package imagebuild

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files anew")

func toyPlan(t *testing.T, in Inputs, opt Options) *Plan {
	t.Helper()
	p, err := NewPlan(in, opt)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); run go test -update if that is meant:\n%s", name, diff)
	}
}

func TestPlanGolden(t *testing.T) {
	golden(t, "plan.txt", toyPlan(t, toyInputs(t, newToyStore(t)), toyOptions).Text())
}

func TestBootScriptGolden(t *testing.T) {
	golden(t, "boot-embedded.ipxe", bootIPXE("toy 1", "quiet xnode.manifest=sha256:00", true))
	golden(t, "boot-payload-url.ipxe", bootIPXE("toy 1", "quiet xnode.manifest=sha256:00", false))
}

// hashes maps every file below dir to its SHA-256.
func hashes(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	sums := map[string][32]byte{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		name, _ := filepath.Rel(dir, path)
		sums[name] = sha256.Sum256(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

func buildToy(t *testing.T, opt Options) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "out")
	if _, err := toyPlan(t, toyInputs(t, newToyStore(t)), opt).Write(t.Context(), dir, t.TempDir(), nil, NoProgress{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestSameBytes(t *testing.T) {
	first := hashes(t, buildToy(t, toyOptions))
	if len(first) != 9 {
		t.Errorf("build wrote %d files; want the ISO, six of the netboot tree, sums and bill", len(first))
	}
	cores := runtime.GOMAXPROCS(1)
	second := hashes(t, buildToy(t, toyOptions))
	runtime.GOMAXPROCS(cores)
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("two builds differ, the second on one core in other folders (-first +second):\n%s", diff)
	}
}

// TestRebuild changes only the node config: the payload must come from the
// cache, and the result must be that of a build from nothing.
func TestRebuild(t *testing.T) {
	in, cache, out := toyInputs(t, newToyStore(t)), t.TempDir(), t.TempDir()
	if _, err := toyPlan(t, in, toyOptions).Write(t.Context(), out, cache, nil, NoProgress{}); err != nil {
		t.Fatal(err)
	}
	in.NodeConfig.Files["hostname"] = []byte("other\n")
	if _, err := toyPlan(t, in, toyOptions).Write(t.Context(), out, cache, nil, NoProgress{}); err != nil {
		t.Fatal(err)
	}
	fresh := t.TempDir()
	if _, err := toyPlan(t, in, toyOptions).Write(t.Context(), fresh, t.TempDir(), nil, NoProgress{}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(hashes(t, fresh), hashes(t, out)); diff != "" {
		t.Errorf("rebuild over an earlier result differs from a fresh build:\n%s", diff)
	}
}

// TestDamagedCache spoils each cached piece: the build must notice.
func TestDamagedCache(t *testing.T) {
	in, cache := toyInputs(t, newToyStore(t)), t.TempDir()
	plan := toyPlan(t, in, toyOptions)
	out := t.TempDir()
	if _, err := plan.Write(t.Context(), out, cache, nil, NoProgress{}); err != nil {
		t.Fatal(err)
	}
	want := hashes(t, out)
	for name := range hashes(t, cache) {
		file := filepath.Join(cache, name)
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 1
		if err := os.WriteFile(file, data, 0o666); err != nil {
			t.Fatal(err)
		}
		out := t.TempDir()
		if _, err := plan.Write(t.Context(), out, cache, nil, NoProgress{}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, hashes(t, out)); diff != "" {
			t.Errorf("build with a changed byte in %s differs:\n%s", name, diff)
		}
	}
}

func TestStalePayloadCPIO(t *testing.T) {
	in, cache, out := toyInputs(t, newToyStore(t)), t.TempDir(), t.TempDir()
	if _, err := toyPlan(t, in, toyOptions).Write(t.Context(), out, cache, nil, NoProgress{}); err != nil {
		t.Fatal(err)
	}
	mine := filepath.Join(out, netbootFolder, "mine.txt")
	if err := os.WriteFile(mine, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := toyPlan(t, in, Options{Formats: []Format{Netboot}, Time: 1}).Write(t.Context(), out, cache, nil, NoProgress{}); err != nil {
		t.Fatal(err)
	}
	got := hashes(t, out)
	if _, ok := got["netboot/payload.cpio"]; ok {
		t.Error("payload.cpio of the earlier build is still there")
	}
	if _, ok := got["netboot/mine.txt"]; !ok {
		t.Error("a file of the user's in the netboot folder is gone")
	}
}

// TestNothingHalf ends builds early at every stage and looks for leftovers.
func TestNothingHalf(t *testing.T) {
	in := toyInputs(t, newToyStore(t))
	for _, stage := range []string{"squashfs", "hash payload", "initrd", "iso", "netboot tree"} {
		t.Run(stage, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			out, cache := filepath.Join(t.TempDir(), "out"), t.TempDir()
			_, err := toyPlan(t, in, toyOptions).Write(ctx, out, cache, nil, cancelAt{stage, cancel})
			if !errors.Is(err, context.Canceled) {
				t.Fatalf("Write cancelled in stage %q = %v; want context.Canceled", stage, err)
			}
			if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("output folder is there after a cancelled build: %v", hashes(t, out))
			}
			for name := range hashes(t, cache) {
				if strings.HasSuffix(name, ".tmp") {
					t.Errorf("cache holds the leftover %s", name)
				}
			}
		})
	}
}

// cancelAt cancels when the stage begins.
type cancelAt struct {
	stage  string
	cancel func()
}

func (c cancelAt) Start(stage string, _ int64) Stage {
	if stage == c.stage {
		c.cancel()
	}
	return noStage{}
}
