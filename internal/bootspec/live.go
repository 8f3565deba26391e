package bootspec

import (
	"errors"
	"fmt"
	"strings"
)

// Reason is why a system cannot boot live.
type Reason string

// The reasons of a Refusal.
const (
	OverlayEtc    Reason = "overlay /etc"
	NixosInit     Reason = "nixos-init"
	ForeignFstab  Reason = "foreign fstab"
	NotLive       Reason = "not a live system"
	MissingParts  Reason = "missing parts"
	WrongPlatform Reason = "wrong platform"
)

// liveModule is what a configuration imports to be a live system.
const liveModule = "nixos/profiles/live"

// Refusal is one reason with what the operator can do about it.
type Refusal struct {
	Reason Reason
	Detail string // what was found
	Remedy string // what to change
}

func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.Detail + "; " + r.Remedy }

// CheckLive says whether the system can boot from a payload with our first
// stage. The error holds every *Refusal, one a line.
func (s *System) CheckLive() error {
	var errs []error
	refuse := func(reason Reason, detail, remedy string) {
		errs = append(errs, &Refusal{Reason: reason, Detail: detail, Remedy: remedy})
	}
	if s.Platform != "x86_64-linux" {
		refuse(WrongPlatform, fmt.Sprintf("it is built for %q", s.Platform), `build it for "x86_64-linux"`)
	}
	switch s.Medium {
	case MediumLive:
	case "":
		refuse(NotLive, `its boot.json names no medium ("org.xnodeos.v1": {"medium": ...})`, "import "+liveModule)
	default:
		refuse(NotLive, fmt.Sprintf("its boot.json says that it is made for the medium %q", s.Medium),
			"import "+liveModule+" instead of the profile of that medium")
	}
	if s.OverlayEtc {
		refuse(OverlayEtc, "its /etc is an overlay that only its own initrd mounts (etc-metadata-image)",
			"set system.etc.overlay.enable = false")
	} else {
		errs = append(errs, s.checkFstab())
	}
	if s.Handover == HandoverNone {
		refuse(NixosInit, "it has no prepare-root and its init is not the stage-2 script, so it needs its own initrd",
			"set system.nixos-init.enable = false")
	}
	errs = append(errs, s.checkParts())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("system %s cannot boot live: %w", s.Path, err)
	}
	return nil
}

func (s *System) checkFstab() error {
	remedy := "import " + liveModule + ", which brings an etc/fstab for a root in memory"
	if s.FstabError != nil {
		return &Refusal{Reason: ForeignFstab, Detail: fmt.Sprintf("its etc/fstab cannot be read: %v", s.FstabError), Remedy: remedy}
	}
	var lines []string
	for _, m := range s.Fstab {
		if m.Foreign() {
			lines = append(lines, fmt.Sprintf("line %d: %q", m.Line, cut(m.Text)))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	return &Refusal{Reason: ForeignFstab, Detail: "its etc/fstab mounts what a live machine has not: " + strings.Join(lines, ", "),
		Remedy: remedy + ", or give the mount the option nofail or noauto"}
}

func (s *System) checkParts() error {
	var missing []string
	for _, name := range []string{"activate", "etc", "sw"} {
		if found, err := s.exists(s.part(name)); err != nil || !found {
			missing = append(missing, name)
		}
	}
	if s.ModulesDir == "" {
		missing = append(missing, "kernel-modules/lib/modules/RELEASE")
	}
	if len(missing) == 0 {
		return nil
	}
	return &Refusal{Reason: MissingParts, Detail: "it lacks " + strings.Join(missing, ", "),
		Remedy: "build the whole toplevel (config.system.build.toplevel) with a kernel that has modules"}
}
