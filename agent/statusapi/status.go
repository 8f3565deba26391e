// Package statusapi shows what the agent is doing: a JSON status, a stream of
// its changes, one HTML page and Prometheus metrics, over HTTP.
//
// Two listeners serve it. The unix socket is for the commands of the node's own
// program and may have the record asked for; the loopback port only reads, and
// only under a loopback name, so that no web page can reach it through a
// visitor's browser. The package decides nothing: what it shows is set by the
// follower, what is asked for goes there.
package statusapi

import "time"

// Version is the version of the JSON status.
const Version = 1

// Health sums the status up in a word.
type Health string

const (
	// Healthy is a node that runs what it should, or is on its way there.
	Healthy Health = "ok"
	// Degraded is a node that works, but somebody should look.
	Degraded Health = "degraded"
)

// Status is one picture of the agent. Times are UTC, zero times are left out.
type Status struct {
	V      int       `json:"v"`
	Time   time.Time `json:"time"`
	Health Health    `json:"health"`
	// Problems says why the health is not ok, most pressing first.
	Problems []string `json:"problems"`

	Node Node `json:"node"`
	// Phase is a word of the state machine, as in "IDLE" or "PROBING"; Reason
	// says why it stays there.
	Phase  string `json:"phase"`
	Reason string `json:"reason,omitempty"`
	// Paused says that somebody has asked the node to apply nothing new.
	Paused bool `json:"paused"`

	Record     *Record       `json:"record"`
	Systems    Systems       `json:"systems"`
	Transfer   *Transfer     `json:"transfer,omitempty"`
	Probes     []Probe       `json:"probes"`
	Quarantine []Quarantined `json:"quarantine"`
	Poll       Poll          `json:"poll"`
	// History has the newest events first, at most HistoryShown.
	History []Event `json:"history"`
	Counts  Counts  `json:"counts"`
}

// HistoryShown is how many events a status carries.
const HistoryShown = 20

// Node is who this is.
type Node struct {
	Hostname string `json:"hostname"`
	// Key is the fingerprint of the node key, "SHA256:...".
	Key    string `json:"key"`
	Class  string `json:"class"`
	Medium string `json:"medium"`
	// Storage is "disk" if the agent's state survives a reboot, else "ram".
	Storage string `json:"storage"`
	Label   string `json:"label"`
}

// Record is the newest accepted record.
type Record struct {
	Name      string    `json:"name"`
	Sequence  uint32    `json:"sequence"`
	Commit    string    `json:"commit"`
	Published time.Time `json:"published"`
	Expires   time.Time `json:"expires"`
	Expired   bool      `json:"expired"`
	Halted    bool      `json:"halted"`
	Signer    string    `json:"signer"`
	// Source is what brought it: a resolver's address or a git remote.
	Source string `json:"source"`
}

// Systems are store paths of toplevels, empty where there is none.
type Systems struct {
	Booted       string `json:"booted"`
	Current      string `json:"current"`
	Candidate    string `json:"candidate,omitempty"`
	LastGoodLive string `json:"last_good_live"`
	LastGoodBoot string `json:"last_good_boot"`
}

// Transfer is a download under way.
type Transfer struct {
	Paths     int   `json:"paths"`
	PathsDone int   `json:"paths_done"`
	Bytes     int64 `json:"bytes"`
	BytesDone int64 `json:"bytes_done"`
}

// Probe is one probe's last result.
type Probe struct {
	Name     string `json:"name"`
	Green    bool   `json:"green"`
	Observed string `json:"observed"`
}

// Quarantined is a system that is not tried again.
type Quarantined struct {
	Sequence uint32    `json:"sequence"`
	System   string    `json:"system"`
	Reason   string    `json:"reason"`
	Time     time.Time `json:"time"`
}

// Poll is how the asking goes.
type Poll struct {
	Last  time.Time `json:"last,omitzero"`
	Next  time.Time `json:"next,omitzero"`
	Error string    `json:"error,omitempty"`
}

// Event is one line of history.
type Event struct {
	Time     time.Time `json:"time"`
	Sequence uint32    `json:"sequence,omitempty"`
	System   string    `json:"system,omitempty"`
	Event    string    `json:"event"`
	Detail   string    `json:"detail,omitempty"`
}

// Counts are totals since the agent started.
type Counts struct {
	Polls        uint64 `json:"polls"`
	PollFaults   uint64 `json:"poll_faults"`
	Fetches      uint64 `json:"fetches"`
	FetchFaults  uint64 `json:"fetch_faults"`
	Tries        uint64 `json:"tries"`
	Rollbacks    uint64 `json:"rollbacks"`
	BytesFetched uint64 `json:"bytes_fetched"`
}
