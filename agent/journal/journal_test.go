package journal

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/agent"
	"xnodeos.org/internal/testkit"
)

// example is the journal of docs/formats.md: B is on trial.
func example() agent.State {
	old := agent.Target{Sequence: 1041, Published: 1795094400, System: "/nix/store/00000000000000000000000000000001-a", Medium: agent.MediumLive}
	return agent.State{
		Phase: agent.Probing, Arm: agent.Live, Medium: agent.MediumLive,
		Candidate: agent.Target{
			Sequence: 1042, Published: 1795180800, System: "/nix/store/00000000000000000000000000000002-b",
			Closure: "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", Medium: agent.MediumLive,
		},
		LastGoodLive: old, LastGoodBoot: old,
		Trials: []agent.Trial{{System: "/nix/store/00000000000000000000000000000002-b", Sequence: 1042, Tries: 1, Writes: 3}},
		BootID: "7d2a51a5-9f4c-4a0e-8f3e-0d3c6c1f2b11", Booted: old.System, Since: 1795180860,
		Baseline: agent.Baseline{FailedUnits: []string{"old.service"}},
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	want := testkit.FormatsExample(t, "journal")
	got, err := Encode(example(), 17)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("docs/formats.md, journal (-page +got):\n%s", diff)
	}
	s, number, err := Decode([]byte(want))
	if err != nil || number != 17 || !s.Equal(example()) {
		t.Errorf("Decode = %+v, %d, %v", s, number, err)
	}
}

// TestOldAgentReadsNewer: what a newer agent adds to the state is ignored.
func TestOldAgentReadsNewer(t *testing.T) {
	t.Parallel()
	data, err := Encode(example(), 3)
	if err != nil {
		t.Fatal(err)
	}
	_, body, _ := strings.Cut(string(data), "\n")
	body = strings.Replace(body, "{\n", "{\n  \"later\": {\"a\": [1]},\n", 1)
	s, _, err := Decode(append(header(3, []byte(body)), body...))
	if err != nil || !s.Equal(example()) {
		t.Errorf("with a new key: %+v, %v", s, err)
	}
}

func TestStoreAndLoad(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if s, err := Open(dir).Load(); err != nil || s.Phase != "" {
		t.Fatalf("before the first: %v, %v; want the zero state", s.Phase, err)
	}
	j := Open(dir)
	for _, p := range agent.Phases() {
		s := example()
		s.Phase = p
		if err := j.Store(s); err != nil {
			t.Fatal(err)
		}
		if got, err := Open(dir).Load(); err != nil || !got.Equal(s) {
			t.Errorf("%s: read back %s, %v", p, got.Phase, err)
		}
	}
}

// TestDamage cuts and flips each copy at every byte: the other one counts;
// where both are damaged, that is said.
func TestDamage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	j := Open(dir)
	for range 2 {
		if err := j.Store(example()); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(filepath.Join(dir, "journal.a"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range whole {
		flipped := append([]byte{}, whole...)
		flipped[i] ^= 1
		for _, bad := range [][]byte{whole[:i], flipped} {
			if _, _, err := Decode(bad); err == nil {
				t.Fatalf("damage at byte %d was not seen", i)
			}
		}
	}
	for _, name := range []string{"journal.a", "journal.b"} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, whole[:40], 0o644); err != nil {
			t.Fatal(err)
		}
		if s, err := Open(dir).Load(); err != nil || !s.Equal(example()) {
			t.Errorf("%s damaged: %v, %v", name, s.Phase, err)
		}
		if err := os.WriteFile(path, whole, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"journal.a", "journal.b"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var damaged *DamagedError
	if _, err := Open(dir).Load(); !errors.As(err, &damaged) || len(damaged.Copies) != 2 {
		t.Errorf("both damaged: %v", err)
	}
}

// TestCutBetweenCopies: a write that reached one copy only is the newest.
func TestCutBetweenCopies(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	old, newer := example(), example()
	newer.Phase = agent.Passed
	for i, s := range []agent.State{old, newer} {
		data, err := Encode(s, uint64(i+1))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, []string{"journal.a", "journal.b"}[i]), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	j := Open(dir)
	if s, err := j.Load(); err != nil || s.Phase != agent.Passed {
		t.Errorf("Load = %s, %v; want the newer copy", s.Phase, err)
	}
	if j.next != 0 {
		t.Errorf("the newer copy would be written first")
	}
}

func TestMemoryOnlyRises(t *testing.T) {
	t.Parallel()
	m := OpenMemory(t.TempDir())
	if err := m.RaiseAccepted(agent.Accepted{Sequence: 5, Published: 50}); err != nil {
		t.Fatal(err)
	}
	for _, lower := range []agent.Accepted{{Sequence: 4, Published: 90}, {Sequence: 5, Published: 49}} {
		if err := m.RaiseAccepted(lower); err == nil {
			t.Errorf("lowered to %+v", lower)
		}
	}
	for _, floor := range []int64{100, 50, 99} {
		if err := m.RaiseTimeFloor(floor); err != nil {
			t.Fatal(err)
		}
	}
	if floor, err := m.TimeFloor(); err != nil || floor != 100 {
		t.Errorf("floor = %d, %v; want 100", floor, err)
	}
	for range MaxVerdicts + 5 {
		if err := m.AddVerdict(agent.Verdict{System: strings.Repeat("x", 1), Reason: agent.Reason{Code: agent.RedProbe}}); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := m.Quarantine(); err != nil || len(list) != 1 {
		t.Errorf("the same system is %d times in quarantine, %v", len(list), err)
	}
	if was, err := m.ClearVerdict("x"); err != nil || !was {
		t.Errorf("clear: %v, %v", was, err)
	}
	if was, err := m.ClearVerdict("x"); err != nil || was {
		t.Errorf("clear again: %v, %v", was, err)
	}
}

func TestReleases(t *testing.T) {
	t.Parallel()
	r := OpenReleases(t.TempDir())
	const a, b = "/nix/store/00000000000000000000000000000001-a", "/nix/store/00000000000000000000000000000002-b"
	in := agent.Announcement{Record: "v=xnode1; ...", Release: []byte("{}\n"), Nodes: []byte("[]\n")}
	if err := r.Keep(a, in, "sha256-x"); err != nil {
		t.Fatal(err)
	}
	if err := r.SetLastGood(b); err != nil {
		t.Errorf("a system without release: %v", err)
	}
	if _, _, err := r.LastGood(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("last-good before the first: %v", err)
	}
	if err := r.SetLastGood(a); err != nil {
		t.Fatal(err)
	}
	got, closure, err := r.LastGood()
	if diff := cmp.Diff(in, got); err != nil || diff != "" || closure != "sha256-x" {
		t.Errorf("last-good: %v, %q (-want +got):\n%s", err, closure, diff)
	}
	in.Nodes = nil // a release that binds none leaves none of the one before
	if err := r.Keep(a, in, "sha256-x"); err != nil {
		t.Fatal(err)
	}
	if got, err := r.Kept(a); err != nil || got.Nodes != nil {
		t.Errorf("kept: %q, %v", got.Nodes, err)
	}
	if err := r.Prune(b); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Kept(a); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after Prune: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	data, err := Encode(example(), 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte("xnode-journal 1 1 00\n{}\n"))
	f.Add([]byte("xnode-journal 2 1 00\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, number, err := Decode(data)
		if err != nil {
			return
		}
		again, err := Encode(s, number)
		if err != nil {
			t.Fatal(err)
		}
		if back, n, err := Decode(again); err != nil || n != number || !back.Equal(s) {
			t.Errorf("what was read is not what is written: %v", err)
		}
	})
}
