package main

import (
	"fmt"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/agent/follower"
	"xnodeos.org/agent/statusapi"
)

// picture turns the follower's view into the status that is served.
func picture(v follower.View, node statusapi.Node, name string, now time.Time, history []statusapi.Event) statusapi.Status {
	s := statusapi.Status{
		Time: now.UTC(), Node: node, Phase: string(v.Follow.Phase), Reason: v.Follow.Reason.String(),
		Paused: v.Applier.State.Paused, Problems: []string{}, Probes: []statusapi.Probe{}, Quarantine: []statusapi.Quarantined{},
		Poll: statusapi.Poll{Last: v.LastPoll.UTC(), Next: v.NextPoll.UTC(), Error: v.PollErr}, History: history,
		Counts: statusapi.Counts(v.Counts),
	}
	state := v.Applier.State
	// A trial is more interesting than what the follower does meanwhile, and
	// what the applier came to more than that the follower is idle.
	if state.Phase != "" && (!state.Phase.AtRest() || v.Follow.Phase == agent.FollowIdle && v.Follow.Reason.IsZero()) {
		s.Phase, s.Reason = string(state.Phase), state.Reason.String()
	}
	s.Systems = statusapi.Systems{
		Booted: state.Booted, LastGoodLive: state.LastGoodLive.System, LastGoodBoot: state.LastGoodBoot.System,
	}
	if state.Phase != "" && !state.Phase.AtRest() {
		s.Systems.Candidate = state.Candidate.System
	}
	if r := v.Record; r != nil {
		s.Record = &statusapi.Record{
			Name: name, Sequence: r.Sequence, Commit: r.Commit, Published: time.Unix(r.Published, 0).UTC(),
			Expires: time.Unix(r.Expires, 0).UTC(), Expired: now.Unix() > r.Expires, Halted: r.Halted, Signer: v.Signer, Source: v.Source,
		}
	}
	if t := v.Transfer; t != nil {
		s.Transfer = (*statusapi.Transfer)(t)
	}
	if report := v.Applier.Report; report != nil {
		for _, p := range report.Probes {
			observed := p.Observed
			if p.Excused {
				observed += " (as it was before)"
			}
			s.Probes = append(s.Probes, statusapi.Probe{Name: p.Name, Green: p.Green || p.Excused, Observed: observed})
		}
	}
	for _, q := range v.Applier.Quarantine {
		s.Quarantine = append(s.Quarantine, statusapi.Quarantined{Sequence: q.Sequence, System: q.System, Reason: q.Reason.String(), Time: time.Unix(q.At, 0).UTC()})
	}
	s.Problems = append(s.Problems, problems(v, &s)...)
	s.Health = statusapi.Healthy
	if len(s.Problems) > 0 {
		s.Health = statusapi.Degraded
	}
	return s
}

// problems is what somebody should look at.
func problems(v follower.View, s *statusapi.Status) []string {
	var out []string
	add := func(when bool, format string, args ...any) {
		if when {
			out = append(out, fmt.Sprintf(format, args...))
		}
	}
	state := v.Applier.State
	add(v.Alarm != "", "%s", v.Alarm)
	add(v.Problem != "", "%s", v.Problem)
	add(v.Applier.Problem != "", "%s", v.Applier.Problem)
	add(state.Phase == agent.Safe, "SAFE: nothing is activated until a newer release or `xnode resume`: %s", state.Reason)
	if r := s.Record; r != nil {
		add(r.Expired, "the record of release %d has expired; its publisher must renew it", r.Sequence)
		for _, q := range v.Applier.Quarantine {
			add(q.System == v.Follow.Target.System && v.Follow.Sequence == r.Sequence, "release %d went back on this node: %s", r.Sequence, q.Reason)
		}
	}
	add(v.Counts.PollFaults > 0 && v.PollErr != "" && v.Record == nil, "no record yet: %s", v.PollErr)
	return out
}
