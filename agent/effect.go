package agent

// EffectKind is one thing that the applier does to the machine. Each can be
// done again after a crash with the same result.
type EffectKind string

// The effects. Those marked "best effort" are reported and passed over when
// they fail; any other failure is EventFailed.
const (
	DoArmDeadMan    EffectKind = "arm-dead-man"    // System: the generation whose program reverts
	DoDisarmDeadMan EffectKind = "disarm-dead-man" // best effort
	DoSwitch        EffectKind = "switch"          // start or join the switch unit for System; ends in EventSwitch
	DoHandOver      EffectKind = "hand-over"       // have systemd start the candidate's applier; this one ends
	DoProbe         EffectKind = "probe"           // System, against Old: EventGreen or EventRed
	DoSetProfile    EffectKind = "set-profile"     // System
	DoSetRoot       EffectKind = "set-root"        // Root names System; an empty System removes it
	DoSaveRelease   EffectKind = "save-release"    // the record and release.json of System are the ones to re-apply
	DoQuarantine    EffectKind = "quarantine"      // Verdict
	DoCheckLoader   EffectKind = "check-loader"    // whether an entry can be tried once
	DoStage         EffectKind = "stage"           // mark and one-shot entry for System
	DoOfferBoot     EffectKind = "offer-boot"      // the same after a live commit; best effort
	DoUnstage       EffectKind = "unstage"         // remove mark and one-shot entry
	DoBless         EffectKind = "bless"           // System becomes the default boot entry
	DoReboot        EffectKind = "reboot"          // nothing comes after it
	DoPrune         EffectKind = "prune"           // drop roots and kept releases that play no part; best effort
)

// EffectKinds returns all kinds.
func EffectKinds() []EffectKind {
	return []EffectKind{
		DoArmDeadMan, DoDisarmDeadMan, DoSwitch, DoHandOver, DoProbe, DoSetProfile, DoSetRoot, DoSaveRelease,
		DoQuarantine, DoCheckLoader, DoStage, DoOfferBoot, DoUnstage, DoBless, DoReboot, DoPrune,
	}
}

// BestEffort says whether a failure of the effect is passed over.
func (k EffectKind) BestEffort() bool {
	return k == DoDisarmDeadMan || k == DoOfferBoot || k == DoPrune
}

// Concludes says whether the effect ends its phase with an event of its own,
// or with the end of the process, so that EventDone does not follow.
func (k EffectKind) Concludes() bool {
	return k == DoSwitch || k == DoHandOver || k == DoProbe || k == DoReboot
}

// Root is a name below /nix/var/nix/gcroots/xnode.
type Root string

// The roots.
const (
	RootCandidate    Root = "candidate"
	RootLastGoodLive Root = "last-good-live"
	RootLastGoodBoot Root = "last-good-boot"
	RootBooted       Root = "booted"
)

// Effect is a kind with what it is done to.
type Effect struct {
	Kind    EffectKind
	System  string // store path
	Old     string // probe: the other half of the exam's union; "" for the old generation's own
	Root    Root
	Verdict Verdict
	// Optional: a failure is reported and passed over, as for the kinds that
	// are best effort.
	Optional bool
}

// Passable says whether the transaction goes on when the effect fails.
func (e Effect) Passable() bool { return e.Optional || e.Kind.BestEffort() }
