package agent

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The model puts the real Step and Recover into every situation that a small
// world can bring about: each effect may do its work, fail, or be cut off
// before or after by the end of the process or of the machine, the dead man
// may fire whenever he is armed, boot variables may vanish.

// machine is the world outside the applier.
type machine struct {
	boot                          string // boot id; only compared with the journal's
	booted, current, profile, def string
	oneShot, mark                 string
	deadMan                       bool
	quarantine                    string // sorted letters
	offered                       int    // newest release that the follower knows
	asked                         int    // requests that the operator made
	loader                        bool
}

// node is a moment: what the journal says, what the running applier is going
// to do next, and the world. A dead applier has pending nil and alive false.
type node struct {
	state   State
	pending []Effect
	alive   bool
	world   machine
}

// release is what the follower may offer. C needs a reboot on installed nodes,
// D lies behind a data barrier.
var modelReleases = []Target{
	{Sequence: 2, System: "B"}, {Sequence: 3, System: "C"}, {Sequence: 4, System: "B"}, {Sequence: 5, System: "D", Barrier: "data:2"},
}

type model struct {
	operator int  // requests that an operator makes in a run
	count    bool // journal writes are part of the state
	rules    Rules
	medium   Medium
	releases []Target
	faults   map[string]int
	rows     map[string]bool
	problems []string
}

func modelRules() Rules {
	return Rules{Limits: DefaultLimits(), Now: func() time.Time { return time.Unix(1, 0) }}
}

func newModel(medium Medium, releases []Target) *model {
	m := &model{rules: modelRules(), medium: medium, faults: map[string]int{}, rows: map[string]bool{}}
	for _, t := range releases {
		t.Medium = medium
		m.releases = append(m.releases, t)
	}
	return m
}

func (m *model) start() node {
	w := machine{boot: "0", booted: "A", current: "A", profile: "A", def: "A", loader: m.medium == MediumInstalled, offered: -1}
	s := m.rules.Fresh(w.seen(m.medium))
	return node{state: s, alive: true, world: w}
}

func (w machine) seen(medium Medium) World {
	return World{
		BootID: w.boot, Medium: medium, Booted: w.booted, Current: w.current, Profile: w.profile,
		Mark: w.mark, OneShot: w.oneShot, Default: w.def, Loader: w.loader, BootedQuarantined: strings.Contains(w.quarantine, w.booted),
	}
}

// plain drops the words, which decide nothing.
func (m *model) plain(s State) State {
	if !m.count && len(s.Trials) > 0 {
		s.Trials = slices.Clone(s.Trials)
		for i := range s.Trials {
			s.Trials[i].Writes = 0
		}
	}
	s.Reason.Text = ""
	if !(&Refusal{s.Reason}).Held() {
		s.Reason = Reason{}
	}
	if s.Phase == Idle && s.Reason.Code == "" || s.Phase == Settled {
		s.Candidate, s.Arm = Target{}, ""
	}
	if len(s.Condemned) > 0 {
		s.Condemned = slices.Clone(s.Condemned)
		for i := range s.Condemned {
			s.Condemned[i].Reason = Reason{}
		}
	}
	return s
}

func (n node) key() string {
	s, w := n.state, n.world
	ids := "same"
	if s.BootID != w.boot {
		ids = "other"
	}
	b := make([]byte, 0, 160)
	word := func(words ...string) {
		for _, word := range words {
			b = append(append(b, word...), ' ')
		}
	}
	flags := func(flags ...bool) {
		for _, f := range flags {
			b = append(b, map[bool]byte{true: '1', false: '0'}[f])
		}
	}
	number := func(numbers ...int) {
		for _, n := range numbers {
			b = append(strconv.AppendInt(b, int64(n), 10), ',')
		}
	}
	for _, t := range []Target{s.Candidate, s.Leaving, s.LastGoodLive, s.LastGoodBoot, s.Previous, s.Reapply} {
		b = append(b, t.System...)
		number(int(t.Sequence))
	}
	for _, v := range s.Condemned {
		word("!" + v.System)
	}
	for _, t := range s.Trials {
		b = append(b, t.System...)
		number(int(t.Sequence), t.Tries, t.Deaths, t.Writes)
	}
	word(string(s.Phase), string(s.Arm), ids, s.Booted, string(s.Reason.Code))
	number(s.Resumes, w.offered, w.asked)
	flags(s.Bad, s.FromSafe, s.Fallback, s.Paused, s.Loader, n.alive, w.deadMan)
	for _, e := range n.pending {
		word(string(e.Kind), e.System)
	}
	word(w.booted, w.current, w.def, w.oneShot, w.mark, w.quarantine)
	return string(b)
}

func with(set, letter string) string {
	if letter == "" || strings.Contains(set, letter) {
		return set
	}
	letters := strings.Split(set+letter, "")
	slices.Sort(letters)
	return strings.Join(letters, "")
}

// An edge leads to the next moment. Own edges are the applier's own work, the
// others are what happens to it.
type edge struct {
	to  node
	own bool
}

func (m *model) edges(n node) []edge {
	var out []edge
	for _, fault := range m.faultsOf(n) {
		out = append(out, edge{to: fault})
	}
	switch {
	case !n.alive:
		s, effects, row := m.rules.RecoverRow(n.state, n.world.seen(m.medium))
		m.rows[row] = true
		out = append(out, edge{node{m.plain(s), effects, true, n.world}, true})
	case len(n.pending) > 0:
		for _, to := range m.perform(n) {
			out = append(out, edge{to, true})
		}
	case n.state.Phase.AtRest():
		for _, to := range m.asked(n) {
			out = append(out, edge{to: to})
		}
	default:
		m.problem(n, "alive in %s with nothing to do", n.state.Phase)
	}
	return out
}

func (m *model) problem(n node, format string, args ...any) {
	if len(m.problems) < 5 {
		m.problems = append(m.problems, fmt.Sprintf(format, args...)+": "+n.key())
	}
}

// faultsOf are the ends of the process and of the machine, and the dead man.
func (m *model) faultsOf(n node) []node {
	var out []node
	count := func(kind string, to node) {
		m.faults[kind]++
		out = append(out, to)
	}
	if n.alive {
		dead := node{state: n.state, world: n.world}
		count("the applier dies", dead)
		if len(n.pending) > 0 && n.pending[0].Kind == DoSwitch { // the switch goes on without it
			dead.world.current = n.pending[0].System
			count("the applier dies in the switch", dead)
		}
		for _, half := range m.half(n) {
			count("the applier dies within an effect", node{state: n.state, world: half})
			for _, w := range m.boots(n.state, half) {
				count("the power fails within an effect", node{state: n.state, world: w})
			}
		}
	}
	if !n.alive && n.state.Phase == Probing && n.state.Arm == Live {
		other := n.world
		other.current = n.world.booted
		count("somebody switches by hand", node{state: n.state, world: other})
	}
	for _, w := range m.boots(n.state, n.world) {
		count("the machine restarts", node{state: n.state, world: w})
	}
	if lost := n.world; m.medium == MediumInstalled && (lost.oneShot != "" || lost.mark != "") {
		lost.oneShot, lost.mark = "", ""
		for _, w := range m.boots(n.state, lost) {
			count("boot variables are lost", node{state: n.state, world: w})
		}
	}
	if n.world.deadMan {
		s, effects, err := m.rules.Step(n.state, Event{Kind: EventDeadMan})
		if err != nil {
			m.problem(n, "dead man: %v", err)
		}
		w := n.world
		w.deadMan = false
		if s.Equal(n.state) && s.Phase != Reverting && s.Phase != ProbingOld && s.Phase != Quarantined {
			// not his any more: he ends, and killed the applier
			count("the dead man fires", node{state: n.state, world: w})
		} else {
			count("the dead man fires", node{m.plain(s), effects, true, w})
		}
	}
	return out
}

// half are the worlds in which an effect of several writes was cut.
func (m *model) half(n node) []machine {
	if len(n.pending) == 0 || (n.pending[0].Kind != DoStage && n.pending[0].Kind != DoOfferBoot && n.pending[0].Kind != DoUnstage) {
		return nil
	}
	a := n.world
	a.mark = ""
	b := a
	b.oneShot = n.pending[0].System
	if n.pending[0].Kind == DoUnstage {
		return []machine{a}
	}
	return []machine{a, b}
}

// boots are the ways in which the machine comes up again.
func (m *model) boots(s State, w machine) []machine {
	w.boot = map[string]string{"0": "1", "1": "0"}[s.BootID] // any but the journal's
	w.deadMan = false
	try := w.oneShot
	w.oneShot = ""
	if m.medium == MediumLive {
		w.booted, w.current, w.profile = "A", "A", "A"
		return []machine{w}
	}
	up := w
	up.booted, up.current = w.def, w.def
	out := []machine{up} // the one-shot system did not come up, or there was none
	if try != "" {
		up.booted, up.current = try, try
		out = append(out, up)
	}
	return out
}

// perform carries out the next effect in all ways.
func (m *model) perform(n node) []node {
	e, w := n.pending[0], n.world
	var out []node
	event := func(w machine, e Event) {
		s, effects, err := m.rules.Step(n.state, e)
		if err != nil {
			m.problem(n, "step %s: %v", e.Kind, err)
			return
		}
		out = append(out, node{m.plain(s), effects, true, w})
	}
	done := func(w machine) {
		rest := n.pending[1:]
		if len(rest) > 0 {
			out = append(out, node{n.state, rest, true, w})
			return
		}
		event(w, Event{Kind: EventDone})
	}
	fail := func() {
		if e.Passable() {
			done(w)
			return
		}
		event(w, Event{Kind: EventFailed, Facts: Facts{World: w.seen(m.medium)}})
		if e.Kind == DoBless { // it was done, and said that it was not
			w.def = e.System
			event(w, Event{Kind: EventFailed, Facts: Facts{World: w.seen(m.medium)}})
			w.def = n.world.def
		}
	}
	fail()
	switch e.Kind {
	case DoSwitch:
		m.checkSwitch(n)
		for _, current := range []string{w.current, e.System} {
			for _, result := range []SwitchResult{SwitchOK, SwitchReboot, SwitchBusy, SwitchFailed} {
				if result == SwitchOK && current != e.System || result == SwitchBusy && current != w.current {
					continue
				}
				after := w
				after.current = current
				event(after, Event{Kind: EventSwitch, Switch: result, Facts: Facts{World: after.seen(m.medium)}})
			}
		}
	case DoProbe:
		event(w, Event{Kind: EventRed})
		if w.current == e.System { // the applier looks before it asks the probes
			event(w, Event{Kind: EventGreen})
		}
	case DoHandOver:
		out = append(out, node{state: n.state, world: w})
	case DoReboot:
		for _, after := range m.boots(n.state, w) {
			out = append(out, node{state: n.state, world: after})
		}
	default:
		done(m.after(n, e))
	}
	return out
}

// after is the world when an effect has done its work.
func (m *model) after(n node, e Effect) machine {
	w := n.world
	switch e.Kind {
	case DoArmDeadMan:
		w.deadMan = true
	case DoDisarmDeadMan:
		w.deadMan = false
	case DoSetProfile:
		w.profile = e.System
	case DoQuarantine:
		w.quarantine = with(w.quarantine, e.System)
	case DoStage, DoOfferBoot:
		if strings.Contains(w.quarantine, e.System) {
			m.problem(n, "%s of a quarantined system", e.Kind)
		}
		w.oneShot, w.mark = e.System, e.System
	case DoUnstage:
		w.oneShot, w.mark = "", ""
	case DoBless:
		w.def = e.System
	}
	return w
}

func (m *model) checkSwitch(n node) {
	e := n.pending[0]
	if n.state.Phase != Trying {
		return
	}
	if strings.Contains(n.world.quarantine, e.System) {
		m.problem(n, "a quarantined system is tried")
	}
	if !n.world.deadMan {
		m.problem(n, "the switch begins without a dead man")
	}
}

// asked is what the follower and the operator may ask for.
func (m *model) asked(n node) []node {
	var out []node
	ask := func(e Event, w machine) {
		e.Facts.World = w.seen(m.medium)
		e.Facts.Durable, e.Facts.WindowOpen = true, true
		e.Facts.Quarantined = e.Facts.Quarantined || !e.Target.IsZero() && strings.Contains(w.quarantine, e.Target.System)
		if s, effects, err := m.rules.Step(n.state, e); err == nil && !(s.Equal(n.state) && len(effects) == 0) {
			out = append(out, node{m.plain(s), effects, true, w})
		}
	}
	if n.world.offered+1 < len(m.releases) {
		w := n.world
		w.offered++
		out = append(out, node{n.state, nil, true, w})
	}
	var targets []Target
	if n.world.offered >= 0 {
		targets = append(targets, m.releases[n.world.offered])
	}
	if !n.state.Reapply.IsZero() {
		targets = append(targets, n.state.Reapply)
	}
	for _, t := range targets {
		other := m.medium == MediumInstalled && (t.System == "C") != (n.world.booted == "C")
		for _, kind := range []EventKind{EventTry, EventStage} {
			ask(Event{Kind: kind, Target: t, Facts: Facts{NeedsReboot: other}}, n.world)
		}
	}
	if n.world.asked >= m.operator {
		return out
	}
	n.world.asked++
	back := n.state.Previous.System
	other := m.medium == MediumInstalled && (back == "C") != (n.world.booted == "C")
	ask(Event{Kind: EventRollback, Facts: Facts{NeedsReboot: other, Quarantined: back != "" && strings.Contains(n.world.quarantine, back)}}, n.world)
	ask(Event{Kind: EventResume}, n.world)
	return out
}
