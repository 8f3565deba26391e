// Package history is what a person asks a node first: what was tried here, how
// it ended, and why.
//
// It stands between the applier and its journal and writes a line for each
// change of phase that means something to people. The lines are never read to
// decide anything: the journal is the truth, a lost line costs an answer and not
// a node, so a fault of the history is reported and passed over.
package history

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"

	"xnodeos.org/agent"
	"xnodeos.org/internal/atomicfile"
)

// Bounds of the file: when it has more than maxEvents lines, the newest
// keptEvents stay.
const (
	maxEvents  = 512
	keptEvents = 256
	maxLine    = 16 << 10
)

// Event is one line.
type Event struct {
	Time     int64  `json:"time"` // Unix seconds
	Sequence uint32 `json:"sequence,omitempty"`
	System   string `json:"system,omitempty"` // store path
	Event    string `json:"event"`
	Detail   string `json:"detail,omitempty"`
}

// Journal is what the history stands before.
type Journal interface {
	Load() (agent.State, error)
	Store(state agent.State) error
}

// Keeper is a Journal that writes the history beside it.
type Keeper struct {
	Journal Journal
	Path    string
	Now     func() time.Time
	// Report gets faults of the history itself.
	Report func(error)

	last agent.State
}

// Load reads the journal.
func (k *Keeper) Load() (agent.State, error) {
	state, err := k.Journal.Load()
	k.last = state
	return state, err
}

// Store writes the journal, then what the change means.
func (k *Keeper) Store(state agent.State) error {
	if err := k.Journal.Store(state); err != nil {
		return err
	}
	if event, ok := Tell(k.last, state, k.Now()); ok {
		if err := add(k.Path, event); err != nil {
			k.Report(err)
		}
	}
	k.last = state
	return nil
}

// Tell says what a change of the journal means, if it means anything.
func Tell(before, after agent.State, now time.Time) (Event, bool) {
	e := Event{Time: now.Unix(), Sequence: after.Candidate.Sequence, System: after.Candidate.System, Detail: after.Reason.Text}
	if e.Detail == "" {
		e.Detail = string(after.Reason.Code)
	}
	if before.Phase == after.Phase {
		if before.Paused == after.Paused {
			return e, false
		}
		e.Event, e.Detail = "resumed", ""
		if after.Paused {
			e.Event = "paused"
		}
		e.Sequence, e.System = 0, ""
		return e, true
	}
	switch after.Phase {
	case agent.Armed:
		e.Event, e.Detail = "trying", "in the running machine"
		if after.Arm == agent.Reboot {
			e.Detail = "by a reboot"
		}
	case agent.Passed:
		e.Event, e.Detail = "probes passed", ""
	case agent.Settled:
		e.Event, e.Detail = "committed", ""
	case agent.Blessed:
		e.Event, e.Detail = "blessed", "it is what boots from now on"
	case agent.Staged:
		e.Event, e.Detail = "staged", "for the next boot"
	case agent.Rebooting:
		e.Event = "rebooting"
	case agent.Reverting:
		e.Event = "going back"
	case agent.Quarantined:
		e.Event = "quarantined"
		if after.Fallback { // it is quarantined once more after that
			e.Event, e.Detail = "rebooting", "the last good system is not well either"
		}
	case agent.Held:
		e.Event = "held"
	case agent.Safe:
		e.Event = "safe"
	case agent.Idle:
		if before.Phase != agent.Quarantined && before.Phase != agent.ProbingOld && before.Phase != agent.Reverting {
			return e, false
		}
		e.Event, e.Sequence, e.System = "back", after.LastGoodLive.Sequence, after.LastGoodLive.System
		e.Detail = "the last good system runs again"
	default:
		return e, false
	}
	return e, true
}

// Read returns the events of a file, the newest first. A line that a power cut
// left half written is passed over; no file is no events.
func Read(path string) ([]Event, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return []Event{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	events, err := parse(file)
	if err != nil {
		return nil, fmt.Errorf("read the history: %w", err)
	}
	slices.Reverse(events)
	return events, nil
}

func parse(r io.Reader) ([]Event, error) {
	events := []Event{}
	lines := bufio.NewReaderSize(r, maxLine)
	for {
		line, tooLong, err := lines.ReadLine()
		if err == io.EOF {
			return events, nil
		}
		if err != nil {
			return nil, err
		}
		whole := !tooLong
		for tooLong && err == nil {
			_, tooLong, err = lines.ReadLine()
		}
		var e Event
		if whole && json.Unmarshal(line, &e) == nil && e.Event != "" {
			events = append(events, e)
			if len(events) > 2*maxEvents {
				events = slices.Delete(events, 0, maxEvents)
			}
		}
	}
}

// add appends one line durably.
func add(path string, e Event) error {
	const most = 4 << 10 // of what was observed; a probe may print a lot
	if len(e.Detail) > most {
		e.Detail = e.Detail[:most] + " ..."
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write the history: %w", err)
	}
	if bytes.Count(data, []byte("\n")) >= maxEvents {
		return shorten(path, data, line)
	}
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		line = append([]byte("\n"), line...) // the end of a line that was cut off
	}
	_, err = file.Write(append(line, '\n'))
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("write the history: %w", err)
	}
	return nil
}

// shorten keeps the newest lines.
func shorten(path string, data, line []byte) error {
	events, err := parse(bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("shorten the history: %w", err)
	}
	var out bytes.Buffer
	for _, e := range events[max(0, len(events)-keptEvents):] {
		one, err := json.Marshal(e)
		if err != nil {
			return fmt.Errorf("shorten the history: %w", err)
		}
		out.Write(append(one, '\n'))
	}
	out.Write(append(line, '\n'))
	if err := atomicfile.WriteBytes(path, 0o644, out.Bytes()); err != nil {
		return fmt.Errorf("shorten the history: %w", err)
	}
	return nil
}
