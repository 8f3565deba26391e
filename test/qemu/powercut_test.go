package qemu

import (
	"bytes"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/agent/journal"
	"xnodeos.org/agent/statusapi"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/trust"
	"xnodeos.org/test/site"
)

// partitionStart is where the first stage puts XNODE-STATE, in bytes.
const partitionStart = 1 << 20

// powerCut is a recorded life of a node, to be ended at any of its writes.
type powerCut struct {
	*replay
	f    *fleet
	keys *trust.State
	// base are the paths of the image, which need no cache.
	base map[string]bool

	// Of the cuts so far: what may only grow.
	accepted agent.Accepted
	verdicts int
}

// journalled is the first write of a state of the journal.
type journalled struct {
	entry  int
	number uint64
	phase  string
}

func newPowerCut(t *testing.T, f *fleet, log string) *powerCut {
	t.Helper()
	p := &powerCut{replay: &replay{}, f: f, base: map[string]bool{}}
	var err error
	if p.log, err = os.Open(log); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.log.Close() })
	if p.entries, err = readLog(p.log); err != nil {
		t.Fatal(err)
	}
	if p.disk, err = os.Create(filepath.Join(t.TempDir(), "replay.img")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.disk.Close() })
	if err := p.disk.Truncate(stateSize); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(f.Node, "trust/allowed_signers"))
	if err != nil {
		t.Fatal(err)
	}
	signers, err := trust.Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	p.keys = trust.Embedded(signers, nil)
	return p
}

// states finds the states of the journal in the log.
func (p *powerCut) states(t *testing.T) []journalled {
	t.Helper()
	var found []journalled
	seen := map[uint64]bool{}
	if err := p.find("xnode-journal 1 ", func(entry int, data []byte) {
		var number uint64
		if _, err := fmt.Sscanf(string(data[:min(len(data), 64)]), "xnode-journal 1 %d ", &number); err != nil || seen[number] {
			return
		}
		seen[number] = true
		_, rest, _ := bytes.Cut(data, []byte(`"phase": "`))
		phase, _, _ := bytes.Cut(rest[:min(len(rest), 40)], []byte(`"`))
		found = append(found, journalled{entry, number, string(phase)})
	}); err != nil {
		t.Fatal(err)
	}
	return found
}

// recovered is what the recovery code makes of a cut.
type recovered struct {
	was, is agent.State
	row     string
	good    bool // last-good was another system than that of the image
}

// judge has other programs judge the file system of a cut, then has the agent's
// own code recover on it, in this process.
func (p *powerCut) judge(t *testing.T, disk string) recovered {
	t.Helper()
	part := disk + ".part"
	data, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(part, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	writeSparse(t, part, data[partitionStart:len(data)-partitionStart])
	testkit.RunTool(t, "e2fsck", "-E", "journal_only", "-y", part)
	testkit.RunTool(t, "e2fsck", "-f", "-n", part)
	dir := t.TempDir()
	for _, folder := range []string{"applier", "cache"} {
		testkit.RunTool(t, "debugfs", "-R", fmt.Sprintf("rdump /%s %s", folder, dir), part)
	}
	if err := os.Remove(part); err != nil {
		t.Fatal(err)
	}
	return p.recover(t, dir)
}

func writeSparse(t *testing.T, name string, data []byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	zero := make([]byte, 64<<10)
	for at := 0; at < len(data); at += len(zero) {
		if piece := data[at:min(at+len(zero), len(data))]; !bytes.Equal(piece, zero[:len(piece)]) {
			if _, err := f.WriteAt(piece, int64(at)); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := f.Truncate(int64(len(data))); err != nil {
		t.Fatal(err)
	}
}

func (p *powerCut) recover(t *testing.T, dir string) recovered {
	t.Helper()
	was, err := journal.Open(filepath.Join(dir, "applier")).Load()
	if err != nil {
		t.Fatalf("the journal after a power cut: %v", err)
	}
	memory := journal.OpenMemory(filepath.Join(dir, "applier"))
	accepted, err := memory.Accepted()
	if err != nil {
		t.Error(err)
	}
	verdicts, err := memory.Quarantine()
	if err != nil {
		t.Error(err)
	}
	if _, err := memory.TimeFloor(); err != nil {
		t.Error(err)
	}
	if accepted.Sequence < p.accepted.Sequence || accepted.Sequence == p.accepted.Sequence && accepted.Published < p.accepted.Published {
		t.Errorf("a later cut has accepted (%d, %d), an earlier one (%d, %d)", accepted.Sequence, accepted.Published, p.accepted.Sequence, p.accepted.Published)
	}
	if len(verdicts) < p.verdicts {
		t.Errorf("a later cut has %d systems in quarantine, an earlier one %d", len(verdicts), p.verdicts)
	}
	p.accepted, p.verdicts = accepted, len(verdicts)

	booted := p.f.img.manifest.System
	rules := agent.Rules{Limits: agent.DefaultLimits(), Now: time.Now}
	r := recovered{was: was, good: was.LastGoodLive.System != "" && was.LastGoodLive.System != booted}
	r.is, _, r.row = rules.RecoverRow(was, agent.World{BootID: "after the cut", Booted: booted, Current: booted, Medium: agent.MediumLive})
	if r.is.Phase == agent.Safe {
		t.Errorf("%s: the node is in SAFE: %s", r.row, r.is.Reason)
	}
	if r.is.LastGoodLive.System != booted || r.is.LastGoodLive.Sequence > accepted.Sequence {
		t.Errorf("%s: last good is %+v; want what was booted", r.row, r.is.LastGoodLive)
	}
	if r.good && r.is.Reapply.System != was.LastGoodLive.System && r.is.Reapply.System != was.Candidate.System {
		t.Errorf("%s: %s is to be applied again; want %s", r.row, r.is.Reapply.System, was.LastGoodLive.System)
	}
	for _, v := range slices.Concat(verdicts, r.is.Condemned) {
		if v.System == r.is.Reapply.System {
			t.Errorf("%s: %s is bad and to be applied again", r.row, v.System)
		}
	}
	if !r.is.Reapply.IsZero() {
		p.checkKept(t, dir, r.is.Reapply)
	}
	return r
}

// checkKept makes sure that what is to be applied again is there without any
// network: what proves it, and every path.
func (p *powerCut) checkKept(t *testing.T, dir string, again agent.Target) {
	t.Helper()
	in, err := journal.OpenReleases(filepath.Join(dir, "applier")).Kept(again.System)
	if err != nil {
		t.Errorf("%s is to be applied again: %v", again.System, err)
		return
	}
	d, err := agent.AcceptAgain(in, agent.Node{Owner: site.Owner, Class: "edge", Arch: "x86_64-linux"}, p.keys)
	if err != nil || d.Target.System != again.System {
		t.Errorf("what was kept of %s: %+v, %v", again.System, d, err)
	}
	digest, err := nix.ParseHash(again.Closure)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range p.list(t, filepath.Join(dir, "cache"), digest).Paths {
		if p.base[path.Path] {
			continue
		}
		hash, _, _ := strings.Cut(filepath.Base(path.Path), "-")
		info, err := os.ReadFile(filepath.Join(dir, "cache", hash+".narinfo"))
		if err != nil {
			t.Errorf("the node's cache: %v", err)
			continue
		}
		_, url, _ := strings.Cut(string(info), "\nURL: ")
		url, _, _ = strings.Cut(url, "\n")
		if file, err := os.Stat(filepath.Join(dir, "cache", url)); err != nil || file.Size() == 0 {
			t.Errorf("the node's cache: NAR of %s: %v", path.Path, err)
		}
	}
}

func (p *powerCut) list(t *testing.T, cache string, digest nix.Hash) *nix.ClosureList {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(cache, "closures", "*.closure"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range found {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if list, err := nix.ParseClosureList(data); err == nil && list.Digest() == digest.String() {
			return list
		}
	}
	t.Fatalf("no closure list %s in %s: %q", digest, cache, found)
	return nil
}

// baseOf remembers what the image brings: the closure of the release that names
// its system.
func (p *powerCut) baseOf(t *testing.T) {
	t.Helper()
	err := filepath.WalkDir(filepath.Join(p.f.CacheDir, "closures"), func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		list, err := nix.ParseClosureList(data)
		if err != nil {
			return err
		}
		paths := map[string]bool{}
		for _, path := range list.Paths {
			paths[path.Path] = true
		}
		if paths[p.f.img.manifest.System] {
			p.base = paths
		}
		return nil
	})
	if err != nil || len(p.base) == 0 {
		t.Fatalf("closure of the image's system: %v", err)
	}
}

// checkPowerCuts cuts the power at each state of the journal of a recorded life:
// at the flush before it was written, at those after it, and with some of the
// writes that no flush covers. Some of what is left is booted.
func checkPowerCuts(t *testing.T, f *fleet, log, label string) {
	t.Helper()
	p := newPowerCut(t, f, log)
	p.baseOf(t)
	states := p.states(t)
	if len(states) < 12 {
		t.Fatalf("the log has %d states of the journal: %v", len(states), states)
	}
	if !full() {
		states = states[:min(len(states), 24)]
	}
	random := rand.New(rand.NewPCG(1, 2))
	boots := map[string]string{} // disks to boot, by what they are
	phases := map[agent.Phase]bool{}
	cuts := 0
	for i, s := range states {
		before := s.entry
		for before > 0 && p.entries[before-1].flags&logFlush == 0 {
			before--
		}
		after := p.flushAt(s.entry)
		for _, at := range slices.Compact([]int{before, after, p.flushAt(after)}) {
			if at < p.done || i == 0 && at == before {
				continue // judged already; before the first state there is none
			}
			if err := p.to(at); err != nil {
				t.Fatal(err)
			}
			clean, torn := p.cut(t, nil), p.cut(t, random)
			got := p.judge(t, clean)
			p.judge(t, torn)
			cuts += 2
			phases[got.was.Phase] = true
			t.Logf("cut at write %d, around state %d (%s): journal says %s, %q, then %s, to apply again: %s",
				at, s.number, s.phase, got.was.Phase, got.row, got.is.Phase, filepath.Base(got.is.Reapply.System))
			drop := []string{clean, torn}
			if !got.is.Reapply.IsZero() {
				drop[1], boots[string(got.was.Phase)] = boots[string(got.was.Phase)], torn
			}
			for _, name := range drop {
				if err := os.Remove(name); err != nil && name != "" {
					t.Error(err)
				}
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d power cuts at %d states of the journal, phases %v", cuts, len(states), phases)
	if len(phases) < 6 {
		t.Errorf("only the phases %v were cut", phases)
	}
	p.bootCuts(t, boots, label)
}

// bootCuts boots what a power cut left, without any server to ask.
func (p *powerCut) bootCuts(t *testing.T, disks map[string]string, label string) {
	t.Helper()
	// PASSED: nothing but the journal and what was kept of the candidate knows.
	phases := []agent.Phase{agent.Passed, agent.Trying, agent.Quarantined}
	if !full() {
		phases = phases[:1]
	}
	if err := p.f.Cut(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.f.Mend(); err != nil {
			t.Error(err)
		}
	}()
	for _, phase := range phases {
		disk := disks[string(phase)]
		if disk == "" {
			t.Errorf("no cut in %s with something to apply again", phase)
			continue
		}
		t.Run("boot in "+string(phase), func(t *testing.T) {
			f := *p.f
			f.disk, f.record = disk, ""
			n := f.boot(t, nil)
			n.watch(t, label+" applied again", func(s *statusapi.Status) bool {
				return s.Phase == "SETTLED" && strings.HasSuffix(s.Systems.Current, "-xnodeos-"+label)
			})
			facts := n.facts(t, map[string]string{"failed": "systemctl --failed --plain --no-legend", "history": "xnode history"})
			if facts["failed"] != "" {
				t.Errorf("failed units: %s", facts["failed"])
			}
			t.Logf("history:\n%s", facts["history"])
			n.Stop()
		})
	}
}
