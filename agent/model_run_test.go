package agent

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// modelRun is one scenario of the model.
type modelRun struct {
	name     string
	medium   Medium
	releases []Target
	operator int
	limits   func(*Limits)
	count    bool
}

func small(l *Limits) { l.Tries, l.Resumes = 2, 1 }
func once(l *Limits)  { l.Tries, l.Resumes = 1, 1 }
func real(*Limits)    {}

// Counts multiply the states, so that most runs have smaller limits than the
// real ones; the last two have the real ones and count journal writes.
var modelRuns = []modelRun{
	{"live, two releases", MediumLive, modelReleases[:2], 0, small, false},
	{"live, one release, operator", MediumLive, modelReleases[:1], 1, small, false},
	{"installed, one release", MediumInstalled, modelReleases[:1], 0, small, false},
	{"installed, one release, operator", MediumInstalled, modelReleases[:1], 1, once, false},
	{"installed, release that needs a reboot", MediumInstalled, modelReleases[1:2], 0, small, false},
	{"installed, release behind a data barrier", MediumInstalled, modelReleases[3:], 0, small, false},
	{"live, real limits, writes counted", MediumLive, modelReleases[:1], 0, real, true},
	{"installed, real limits, writes counted", MediumInstalled, modelReleases[1:2], 0, real, true},
}

// maxModel is far above what a run has; reaching it means that something in
// the state is not bounded.
const maxModel = 1_500_000

type modelResult struct {
	states, steps, faults, writes int
}

// graph is the model as far as it was walked.
type graph struct {
	index  map[string]int32
	nodes  []node
	parent []int32
	own    [][]int32 // the applier's own steps
	rest   []bool    // nothing is to be done there
}

func (g *graph) add(n node, from int32) int32 {
	k := n.key()
	if j, ok := g.index[k]; ok {
		return j
	}
	j := int32(len(g.nodes))
	g.index[k] = j
	g.nodes = append(g.nodes, n)
	g.parent = append(g.parent, from)
	return j
}

func (m *model) run(t *testing.T) modelResult {
	t.Helper()
	g := &graph{index: map[string]int32{}}
	g.add(m.start(), -1)
	var res modelResult
	for i := int32(0); int(i) < len(g.nodes); i++ {
		n := g.nodes[i]
		m.check(n, &res)
		var own []int32
		for _, e := range m.edges(n) {
			res.steps++
			j := g.add(e.to, i)
			if e.own {
				own = append(own, j)
			}
		}
		g.own = append(g.own, own)
		g.rest = append(g.rest, n.alive && len(n.pending) == 0 && n.state.Phase.AtRest())
		if len(m.problems) > 0 || len(g.nodes) > maxModel {
			for j := i; j >= 0; j = g.parent[j] {
				t.Log(g.nodes[j].key())
			}
			t.Fatalf("%d states, %q", len(g.nodes), m.problems)
		}
	}
	m.ends(t, g)
	res.states = len(g.nodes)
	for _, n := range m.faults {
		res.faults += n
	}
	return res
}

// ends checks that from every moment, whatever its effects come to, the
// applier's own steps end at rest: they have no cycle, and only rest has none.
func (m *model) ends(t *testing.T, g *graph) {
	t.Helper()
	waiting := make([]int32, len(g.nodes))
	for _, next := range g.own {
		for _, j := range next {
			waiting[j]++
		}
	}
	var free []int32
	for i, n := range waiting {
		if n == 0 {
			free = append(free, int32(i))
		}
	}
	done := 0
	for len(free) > 0 {
		i := free[len(free)-1]
		free = free[:len(free)-1]
		done++
		if len(g.own[i]) == 0 && !g.rest[i] {
			t.Errorf("stuck: %s", g.nodes[i].key())
		}
		for _, j := range g.own[i] {
			if waiting[j]--; waiting[j] == 0 {
				free = append(free, j)
			}
		}
	}
	if done != len(g.nodes) {
		t.Errorf("%d moments lie on or behind a cycle of the applier's own steps", len(g.nodes)-done)
	}
}

// check are the invariants of every moment.
func (m *model) check(n node, res *modelResult) {
	s, w := n.state, n.world
	if m.medium == MediumInstalled && w.def != s.LastGoodBoot.System && !(s.Phase == Blessed && w.def == s.Candidate.System) {
		m.problem(n, "the default boot entry is %s, last-good-boot is %s", w.def, s.LastGoodBoot.System)
	}
	for _, t := range s.Trials {
		res.writes = max(res.writes, t.Writes)
		if t.Writes > m.rules.Limits.Writes || t.Tries > m.rules.Limits.Tries || t.Deaths > m.rules.Limits.Deaths {
			m.problem(n, "bounds are exceeded: %+v", t)
		}
	}
	if len(s.Trials) > maxTrials || len(s.Condemned) > maxCondemned {
		m.problem(n, "a list is too long")
	}
	resting := n.alive && len(n.pending) == 0
	if resting && strings.Contains(w.quarantine, s.LastGoodLive.System) && s.LastGoodLive != s.LastGoodBoot {
		m.problem(n, "last-good-live is in quarantine")
	}
	if resting && m.operator == 0 && (s.Phase == Idle || s.Phase == Settled || s.Phase == Held) && w.current != s.LastGoodLive.System {
		m.problem(n, "%s runs, last-good-live is %s", w.current, s.LastGoodLive.System)
	}
}

// TestModel enumerates every reachable state with every event and every fault,
// without a bound on the number of faults, and compares what it found with the
// table in README.md.
func TestModel(t *testing.T) {
	t.Parallel()
	rows := map[string]bool{}
	table := "| run | states | steps | of them faults | most writes of a sequence |\n|---|---:|---:|---:|---:|\n"
	for _, run := range modelRuns {
		m := newModel(run.medium, run.releases)
		m.operator, m.count = run.operator, run.count
		run.limits(&m.rules.Limits)
		r := m.run(t)
		writes := "not counted"
		if run.count {
			writes = fmt.Sprint(r.writes)
		}
		table += fmt.Sprintf("| %s | %d | %d | %d | %s |\n", run.name, r.states, r.steps, r.faults, writes)
		maps.Copy(rows, m.rows)
	}
	t.Logf("model:\n%s", table)
	for _, row := range rows2names() {
		if !rows[row] {
			t.Errorf("row %q of the recovery table was never reached", row)
		}
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), table) {
		t.Errorf("agent/README.md does not have this table:\n%s", table)
	}
}

func rows2names() []string {
	var names []string
	for _, row := range rows() {
		names = append(names, row.name)
	}
	return slices.Compact(names)
}
