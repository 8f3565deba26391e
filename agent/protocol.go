package agent

// The applier's socket: one JSON Request on a connection, ended by a line feed,
// one JSON Response, then it is closed. The caller is known by the kernel's
// word (SO_PEERCRED), never by the request's.

// Bounds of a message in bytes. A request carries release.json and nodes.json
// in base64.
const (
	MaxRequest  = 14 << 20
	MaxResponse = 1 << 20
)

// Op is what the applier is asked for.
type Op string

// The operations. Committing, blessing, reverting and quarantining are none of
// them: the applier decides these by itself, so that nobody who holds the
// socket can commit what was not proven.
const (
	OpStatus Op = "status" // everybody who may connect
	OpAccept Op = "accept" // follower: Record, Release, Nodes
	OpTry    Op = "try"    // follower: Record, Release, Nodes, System
	OpStage  Op = "stage"  // follower: the same, and Window
	OpTrust  Op = "trust"  // follower: Trust

	OpRollback Op = "rollback" // root
	OpPause    Op = "pause"    // root
	OpResume   Op = "resume"   // root
	OpAdopt    Op = "adopt"    // root
	OpClear    Op = "clear"    // root: System leaves the quarantine
)

// Ops returns all operations.
func Ops() []Op {
	return []Op{OpStatus, OpAccept, OpTry, OpStage, OpTrust, OpRollback, OpPause, OpResume, OpAdopt, OpClear}
}

// ForFollower says whether the unprivileged half may ask for it.
func (o Op) ForFollower() bool {
	switch o {
	case OpStatus, OpAccept, OpTry, OpStage, OpTrust:
		return true
	}
	return false
}

// Request asks for one operation. The class of the node is not in it: the
// applier takes it from nodes.json by the node's key, else from its own
// configuration.
type Request struct {
	Op      Op     `json:"op"`
	Record  string `json:"record,omitempty"`  // text of the TXT record, verbatim
	Release []byte `json:"release,omitempty"` // bytes of release.json
	Nodes   []byte `json:"nodes,omitempty"`   // bytes of nodes.json, if the release binds one
	// System is what the caller expects the release to name for this node.
	System string     `json:"system,omitempty"`
	Window bool       `json:"window,omitempty"` // a reboot is allowed now
	Trust  *TrustFile `json:"trust,omitempty"`
}

// TrustFile is a trust.json with its signatures by key id.
type TrustFile struct {
	Document   []byte            `json:"document"`
	Signatures map[string][]byte `json:"signatures"`
}

// Response answers a Request. Exactly one of Refused and Error is set when the
// operation was not done.
type Response struct {
	Refused *Reason `json:"refused,omitempty"` // the state of the node says no
	Error   string  `json:"error,omitempty"`   // it could not be done
	Status  *Status `json:"status,omitempty"`  // after the operation
}

// Accepted is the newest record whose release verified.
type Accepted struct {
	Sequence  uint32 `json:"sequence"`
	Published int64  `json:"published"` // Unix seconds
	Record    string `json:"record,omitempty"`
	Halted    bool   `json:"halted,omitempty"`
}

// Status is all that the applier knows.
type Status struct {
	State        State     `json:"state"`
	Accepted     Accepted  `json:"accepted"`
	Quarantine   []Verdict `json:"quarantine,omitempty"`
	TimeFloor    int64     `json:"time_floor"` // Unix seconds
	TrustVersion uint64    `json:"trust_version,omitempty"`
	Durable      bool      `json:"durable"`           // the state outlives a reboot
	Deadline     int64     `json:"deadline,omitzero"` // when the dead man acts, Unix seconds
	Problem      string    `json:"problem,omitempty"` // what is wrong with the state itself
	Report       *Report   `json:"report,omitempty"`  // of the last probes, also while they run
}

// Report is what the probes saw.
type Report struct {
	System string  `json:"system"`
	Probes []Probe `json:"probes"`
}

// Green says whether every probe is.
func (r *Report) Green() bool {
	for _, p := range r.Probes {
		if !p.Green && !p.Excused {
			return false
		}
	}
	return true
}

// Probe is one check with what it observed.
type Probe struct {
	Name     string `json:"name"`
	Green    bool   `json:"green"`
	Excused  bool   `json:"excused,omitempty"` // it was as red before the trial
	Observed string `json:"observed,omitempty"`
}
