package agent

import (
	"testing"
)

type modelResult struct {
	states, edges, faults, maxWrites int
	rows                             map[string]bool
}

func (m *model) run(t *testing.T, limit int) modelResult {
	t.Helper()
	first := m.start()
	index := map[string]int{first.key(): 0}
	nodes := []node{first}
	var own [][]int32
	parent := []int32{-1}
	keys := []string{first.key()}
	res := modelResult{rows: m.rows}
	for i := 0; i < len(nodes); i++ {
		n := nodes[i]
		m.check(n, &res)
		var next []int32
		for _, e := range m.edges(n) {
			res.edges++
			k := e.to.key()
			j, ok := index[k]
			if !ok {
				j = len(nodes)
				index[k] = j
				nodes = append(nodes, e.to)
				parent = append(parent, int32(i))
				keys = append(keys, k)
			}
			if e.own {
				next = append(next, int32(j))
			}
		}
		own = append(own, next)
		if len(m.problems) > 0 {
			for _, p := range m.problems {
				t.Error(p)
			}
			for j := int32(i); j >= 0; j = parent[j] {
				t.Log(keys[j])
			}
			t.FailNow()
		}
		if false {
			t.Logf("%d of %d", i, len(nodes))
		}
		nodes[i] = node{} // only its key is needed from here on
		if len(nodes) > limit {
			for j := int32(len(nodes) - 1); j >= 0; j = parent[j] {
				t.Log(keys[j])
			}
			t.Fatalf("more than %d states: something is not bounded; the last one: %s", limit, nodes[len(nodes)-1].key())
		}
	}
	res.states = len(nodes)
	for _, n := range m.faults {
		res.faults += n
	}
	return res
}

func (m *model) check(n node, res *modelResult) {
	s, w := n.state, n.world
	if m.medium == MediumInstalled {
		if w.def != s.LastGoodBoot.System && !(s.Phase == Blessed && w.def == s.Candidate.System) {
			m.problem(n, "the default boot entry is %s, last-good-boot %s", w.def, s.LastGoodBoot.System)
		}
	}
	for _, t := range s.Trials {
		res.maxWrites = max(res.maxWrites, t.Writes)
	}
}

func TestModelSize(t *testing.T) {
	for _, medium := range []Medium{MediumLive, MediumInstalled} {
		for _, n := range []int{1, 2} {
			for op := range 2 {
				m := newModel(medium, modelReleases[:n])
				m.operator = op
				m.rules.Limits.Tries, m.rules.Limits.Resumes = 2, 1
				t.Run(string(medium), func(t *testing.T) {
					r := m.run(t, 600_000)
					t.Logf("%s %d op %d: %+v", medium, n, op, r)
				})
			}
		}
	}
}
