package agent

// EventKind is what happened.
type EventKind string

// What the applier is asked to do, what its effects came to, and what happens
// to it.
const (
	EventTry      EventKind = "try"      // a verified target, live arm
	EventStage    EventKind = "stage"    // a verified target, reboot arm
	EventRollback EventKind = "rollback" // operator: back to Previous
	EventPause    EventKind = "pause"    // operator
	EventResume   EventKind = "resume"   // operator: ends a pause, a hold and SAFE
	EventAdopt    EventKind = "adopt"    // operator: judge the system that runs

	EventDone   EventKind = "done"   // all effects of the phase are carried out
	EventFailed EventKind = "failed" // one of them could not be
	EventSwitch EventKind = "switch" // switch-to-configuration ended
	EventGreen  EventKind = "green"  // every probe was green for long enough
	EventRed    EventKind = "red"    // one was not

	EventDeadMan EventKind = "dead-man" // the time of the trial is over
)

// EventKinds returns all kinds.
func EventKinds() []EventKind {
	return []EventKind{
		EventTry, EventStage, EventRollback, EventPause, EventResume, EventAdopt,
		EventDone, EventFailed, EventSwitch, EventGreen, EventRed, EventDeadMan,
	}
}

// SwitchResult is how switch-to-configuration ended.
type SwitchResult string

// The results. Only 0 and 100 of its exit codes can be trusted.
const (
	SwitchOK     SwitchResult = "ok"     // 0
	SwitchReboot SwitchResult = "reboot" // 100: only a reboot can bring it
	SwitchBusy   SwitchResult = "busy"   // another one holds the lock; nothing was changed
	SwitchFailed SwitchResult = "failed" // everything else, also a signal, a time-out, a lost unit
)

// Facts are what the applier observes for a request before it asks for the
// decision.
type Facts struct {
	World
	NeedsReboot bool  // the target's kernel, initrd or parameters are not the booted ones
	Quarantined bool  // the target is
	Halted      bool  // the record says p=0
	WindowOpen  bool  // a reboot is allowed now
	Durable     bool  // the journal outlives a reboot
	Uptime      int64 // seconds
	Baseline    Baseline
}

// Event is one thing that happened. Fields beside Kind are for the kinds that
// name them.
type Event struct {
	Kind   EventKind
	Target Target       // try, stage, adopt
	Facts  Facts        // try, stage, rollback, adopt; switch, failed: the World
	Switch SwitchResult // switch
	Text   string       // what was observed: failed, switch, red
}

// World is what can be seen of the machine, whatever the journal says.
type World struct {
	BootID         string // of the kernel
	Medium         Medium
	Booted         string // /run/booted-system
	BootedSequence uint32 // of the payload's manifest; 0 if unknown
	Current        string // /run/current-system
	Profile        string // what the system profile points to
	// Mark and OneShot name systems: the one that a boot should have tried,
	// and the one that the next boot will try. "" where there is none.
	Mark, OneShot string
	Default       string // system of the default boot entry; "" if unknown
	Loader        bool   // entries can be tried once
	// BootedQuarantined says that the booted system is in quarantine.
	BootedQuarantined bool
}
