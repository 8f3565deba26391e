// Package bootspec reads what a NixOS system says about itself: boot.json
// (NixOS RFC 125), how it is handed over to, its etc/fstab, its kernel modules.
//
// It decides whether a system can boot from a read-only payload (CheckLive)
// and names the option or module to change if not. It never parses init, and
// looks only at files of the store.
package bootspec

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"xnodeos.org/internal/nix"
)

const (
	keyV1             = "org.nixos.bootspec.v1"
	keySpecialisation = "org.nixos.specialisation.v1"
	keyXnode          = "org.xnodeos.v1"

	maxBootJSON = 4 << 20 // with all specialisations inside
	maxWord     = 4096
)

// Spec is a parsed boot.json.
type Spec struct {
	Platform     string // "x86_64-linux"; boot.json calls it system
	Label        string // free text for a boot menu
	Toplevel     string // store path of the system
	Init         string // absolute path below Toplevel or elsewhere in the store
	Kernel       string // absolute path in the store
	Initrd       string // the system's own initrd; "" if it has none
	KernelParams []string
	// Specialisations are variants of the system by their names, each with a toplevel of its own.
	Specialisations map[string]*Spec
	// Medium is what the system is made for: "live", "installed", or "" if it does not say.
	Medium string
}

// The media that a system can be made for.
const (
	MediumLive      = "live"
	MediumInstalled = "installed"
)

// v1 is the JSON of org.nixos.bootspec.v1.
type v1 struct {
	System       string   `json:"system"`
	Init         string   `json:"init"`
	Initrd       string   `json:"initrd"`
	Kernel       string   `json:"kernel"`
	KernelParams []string `json:"kernelParams"`
	Label        string   `json:"label"`
	Toplevel     string   `json:"toplevel"`
}

// VersionError is a boot.json of a version that we do not know, or of none.
type VersionError struct {
	Found []string // its org.nixos.bootspec.* keys
}

func (e *VersionError) Error() string {
	if len(e.Found) == 0 {
		return fmt.Sprintf("boot.json has no %q; build the system with boot.bootspec.enable (NixOS 23.05 or newer)", keyV1)
	}
	return fmt.Sprintf("boot.json has %q, only %q is known; build the system with a NixOS that writes v1, or update xnodeos", e.Found, keyV1)
}

// Parse reads a boot.json. Unknown keys beside the known ones are ignored, as
// the RFC demands.
func Parse(data []byte) (*Spec, error) { return parse(data, 0) }

func parse(data []byte, depth int) (*Spec, error) {
	if len(data) > maxBootJSON {
		return nil, fmt.Errorf("boot.json: longer than %d bytes", maxBootJSON)
	}
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("boot.json: %w", err)
	}
	raw, ok := doc[keyV1]
	if !ok {
		return nil, versionError(doc)
	}
	var boot v1
	if err := json.Unmarshal(raw, &boot); err != nil {
		return nil, fmt.Errorf("boot.json: %s: %w", keyV1, err)
	}
	spec := &Spec{Platform: boot.System, Label: boot.Label, Toplevel: boot.Toplevel, Init: boot.Init,
		Kernel: boot.Kernel, Initrd: boot.Initrd, KernelParams: boot.KernelParams}
	if err := spec.validate(); err != nil {
		return nil, fmt.Errorf("boot.json: %s: %w", keyV1, err)
	}
	if raw, ok := doc[keyXnode]; ok {
		if err := spec.readXnode(raw); err != nil {
			return nil, fmt.Errorf("boot.json: %s: %w", keyXnode, err)
		}
	}
	if raw, ok := doc[keySpecialisation]; ok {
		if err := spec.readSpecialisations(raw, depth); err != nil {
			return nil, err
		}
	}
	return spec, nil
}

func versionError(doc map[string]json.RawMessage) error {
	e := &VersionError{}
	for key := range doc {
		if strings.HasPrefix(key, "org.nixos.bootspec.") || key == "v1" {
			e.Found = append(e.Found, key)
		}
	}
	slices.Sort(e.Found)
	return e
}

func (s *Spec) readXnode(raw json.RawMessage) error {
	var x struct {
		Medium string `json:"medium"`
	}
	if err := json.Unmarshal(raw, &x); err != nil {
		return err
	}
	if x.Medium != MediumLive && x.Medium != MediumInstalled {
		return fmt.Errorf("medium is %q; want %q or %q", cut(x.Medium), MediumLive, MediumInstalled)
	}
	s.Medium = x.Medium
	return nil
}

func (s *Spec) readSpecialisations(raw json.RawMessage, depth int) error {
	var docs map[string]json.RawMessage
	if err := json.Unmarshal(raw, &docs); err != nil {
		return fmt.Errorf("boot.json: %s: %w", keySpecialisation, err)
	}
	if depth > 0 && len(docs) > 0 {
		return errors.New("boot.json: a specialisation has specialisations of its own")
	}
	for name, doc := range docs {
		spec, err := parse(doc, depth+1)
		if err != nil {
			return fmt.Errorf("specialisation %q: %w", cut(name), err)
		}
		if s.Specialisations == nil {
			s.Specialisations = map[string]*Spec{}
		}
		s.Specialisations[name] = spec
	}
	return nil
}

// validate checks the form of every field; whether files exist is for Read.
func (s *Spec) validate() error {
	if _, err := nix.ParseStorePath(s.Toplevel); err != nil {
		return fmt.Errorf("toplevel: %w", err)
	}
	paths := map[string]string{"init": s.Init, "kernel": s.Kernel}
	if s.Initrd != "" {
		paths["initrd"] = s.Initrd
	}
	for key, path := range paths {
		if _, _, err := nix.SplitPath(path); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	words := map[string]string{"system": s.Platform, "label": s.Label, "init": s.Init, "kernel": s.Kernel, "initrd": s.Initrd}
	for key, word := range words {
		if err := checkWord(word); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if s.Platform == "" {
		return errors.New(`system: empty; want a platform such as "x86_64-linux"`)
	}
	for _, param := range s.KernelParams {
		if err := checkWord(param); err != nil {
			return fmt.Errorf("kernelParams: %w", err)
		}
	}
	return nil
}

// checkWord refuses what would break a line of a boot loader's configuration.
func checkWord(word string) error {
	if len(word) > maxWord {
		return fmt.Errorf("%q is longer than %d bytes", cut(word), maxWord)
	}
	if i := strings.IndexFunc(word, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }); i >= 0 {
		return fmt.Errorf("%q has a control character or broken UTF-8", cut(word))
	}
	return nil
}

// FileLabel turns the label into a part of a file name: lower case, only
// a-z, 0-9, dot and dash, neither of them at an end or twice in a row.
func (s *Spec) FileLabel() string {
	var out []byte
	for _, c := range []byte(strings.ToLower(s.Label)) {
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
		case c == '.':
		default:
			c = '-'
		}
		if c == '.' || c == '-' {
			if n := len(out); n == 0 || out[n-1] == '.' || out[n-1] == '-' {
				continue
			}
		}
		out = append(out, c)
	}
	const most = 64
	text := strings.TrimRight(string(out[:min(len(out), most)]), ".-")
	if text == "" {
		return "system"
	}
	return text
}

func cut(text string) string {
	const most = 200
	if len(text) <= most {
		return text
	}
	return text[:most] + "..."
}
