package release

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"xnodeos.org/internal/nix"
)

const (
	maxClasses = 256
	maxArchs   = 16
	maxCaches  = 32
	maxURL     = 2048
	maxLabels  = 64
	maxText    = 256
	maxWaves   = 10_000
	maxRamp    = 30 * 24 * 3600 // a record lives no longer
)

var (
	releaseKeys = []string{"v", "critical", "seq", "published", "caches", "nodes", "policy", "classes",
		"policy.waves", "policy.ramp_seconds", "barrier"}
	nodesKeys = []string{"v", "critical", "nodes", "hostname", "labels"}
)

func knows(keys []string, key string) bool { return slices.Contains(keys, key) }

func checkCritical(critical, known []string) error {
	for _, key := range critical {
		if !knows(known, key) {
			return fmt.Errorf("critical names %q, which is no key of this version", cut(key))
		}
	}
	return nil
}

func (r *Release) check() error {
	switch {
	case r.V != Version:
		return fmt.Errorf("v is %d; allowed is %d", r.V, Version)
	case r.Seq == 0:
		return fmt.Errorf("seq is 0 or missing; sequences begin with 1")
	case r.Published < 0:
		return fmt.Errorf("published %d is negative", r.Published)
	case len(r.Caches) > maxCaches:
		return fmt.Errorf("%d caches; allowed are %d", len(r.Caches), maxCaches)
	case len(r.Classes) == 0 || len(r.Classes) > maxClasses:
		return fmt.Errorf("%d classes; want 1 to %d", len(r.Classes), maxClasses)
	}
	if err := checkCritical(r.Critical, releaseKeys); err != nil {
		return err
	}
	if err := r.Policy.Check(); err != nil {
		return fmt.Errorf("policy: %w", err)
	}
	if r.Nodes != "" && !isDigest(r.Nodes) {
		return fmt.Errorf("nodes %q is not \"sha256-\" and 44 characters of base64", cut(r.Nodes))
	}
	for i, cache := range r.Caches {
		if err := CheckCache(cache); err != nil {
			return fmt.Errorf("caches[%d]: %w", i, err)
		}
	}
	for _, class := range slices.Sorted(maps.Keys(r.Classes)) {
		if err := checkClass(class, r.Classes[class]); err != nil {
			return fmt.Errorf("class %q: %w", cut(class), err)
		}
	}
	return nil
}

func checkClass(class string, archs map[string]Target) error {
	if err := CheckClass(class); err != nil {
		return err
	}
	if len(archs) == 0 || len(archs) > maxArchs {
		return fmt.Errorf("%d architectures; want 1 to %d", len(archs), maxArchs)
	}
	medium := Medium("")
	for _, arch := range slices.Sorted(maps.Keys(archs)) {
		t := archs[arch]
		if err := CheckArch(arch); err != nil {
			return err
		}
		if err := t.check(); err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
		if medium == "" {
			medium = t.Medium
		}
		if medium != t.Medium {
			return fmt.Errorf("%s is %s and another architecture is %s; a class has one medium", arch, t.Medium, medium)
		}
	}
	return nil
}

func (t Target) check() error {
	if _, err := nix.ParseStorePath(t.System); err != nil {
		return fmt.Errorf("system: %w", err)
	}
	if !isDigest(t.Closure) {
		return fmt.Errorf("closure %q is not \"sha256-\" and 44 characters of base64", cut(t.Closure))
	}
	if err := t.Medium.Check(); err != nil {
		return err
	}
	return t.Barrier.Check()
}

// Check takes the two media.
func (m Medium) Check() error {
	if m != Live && m != Installed {
		return fmt.Errorf("medium %q; allowed are %q and %q", cut(string(m)), Live, Installed)
	}
	return nil
}

// Check takes "" and names of up to 64 characters.
func (b Barrier) Check() error {
	if b != "" && !isWord(string(b), 64) {
		return fmt.Errorf("barrier %q; want a name of up to 64 letters, digits and \"._+-\", as in kubo-repo-17", cut(string(b)))
	}
	return nil
}

// Check takes what a record's life has room for.
func (p Policy) Check() error {
	if p.Waves > maxWaves {
		return fmt.Errorf("waves %d; allowed are up to %d", p.Waves, maxWaves)
	}
	if p.RampSeconds < 0 || p.RampSeconds > maxRamp {
		return fmt.Errorf("ramp_seconds %d; allowed are 0 to %d (30 days)", p.RampSeconds, maxRamp)
	}
	return nil
}

// CheckClass takes the name of a class, by the rules of a node config.
func CheckClass(name string) error {
	ok := name != "" && len(name) <= 63
	for i := range len(name) {
		c := name[i]
		alnum := 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
		ok = ok && (alnum || (c == '-' || c == '_') && i > 0 && i < len(name)-1)
	}
	if !ok {
		return fmt.Errorf("class name %q; want one word like edge: lower-case letters, digits, \"-\" and \"_\", up to 63, a letter or digit at both ends", cut(name))
	}
	return nil
}

// CheckCache takes the URL of a Nix binary cache: http, https or file.
func CheckCache(text string) error {
	u, err := url.Parse(text)
	if err != nil || len(text) > maxURL || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("%q is no URL of up to %d printable characters", cut(text), maxURL)
	}
	switch {
	case u.User != nil:
		return fmt.Errorf("the URL of a cache on %q holds a user or password, which everybody can read here; leave it out", u.Host)
	case (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.RawQuery == "" && u.Fragment == "":
		return nil
	case u.Scheme == "file" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		return nil
	}
	return fmt.Errorf("%q is no binary cache; want https://, http:// or file:/// and no \"?\" or \"#\"", cut(text))
}

// Check takes what nodes.json may say about a node.
func (n Node) Check() error {
	if err := CheckClass(n.Class); err != nil {
		return err
	}
	if n.Hostname != "" && !isHostname(n.Hostname) {
		return fmt.Errorf("hostname %q; want dot-separated labels of letters, digits and \"-\", up to 64 characters in all", cut(n.Hostname))
	}
	if len(n.Labels) > maxLabels {
		return fmt.Errorf("%d labels; allowed are %d", len(n.Labels), maxLabels)
	}
	for _, key := range slices.Sorted(maps.Keys(n.Labels)) {
		if !isWord(key, 63) {
			return fmt.Errorf("label %q; want a name of up to 63 letters, digits and \"._+-\"", cut(key))
		}
		if value := n.Labels[key]; len(value) > maxText || !printable(value) {
			return fmt.Errorf("label %q has the value %q; want up to %d printable characters", key, cut(value), maxText)
		}
	}
	return nil
}

// CheckArch takes Nix's name of an architecture.
func CheckArch(name string) error {
	cpu, ok := strings.CutSuffix(name, "-linux")
	if !ok || cpu == "" || len(cpu) > 32 || strings.Trim(cpu, "0123456789abcdefghijklmnopqrstuvwxyz_") != "" {
		return fmt.Errorf("architecture %q; want Nix's name, as in x86_64-linux", cut(name))
	}
	return nil
}

// isDigest takes the SRI form only: one spelling.
func isDigest(text string) bool {
	h, err := nix.ParseHash(text)
	return err == nil && h.String() == text
}

func isFingerprint(text string) bool {
	digits, ok := strings.CutPrefix(text, "SHA256:")
	raw, err := base64.RawStdEncoding.Strict().DecodeString(digits)
	return ok && err == nil && len(raw) == 32 && len(digits) == 43
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func isWord(text string, limit int) bool {
	for i := range len(text) {
		if !isAlnum(text[i]) && !strings.ContainsRune("._+-", rune(text[i])) {
			return false
		}
	}
	return text != "" && len(text) <= limit && isAlnum(text[0])
}

func isHostname(text string) bool {
	for label := range strings.SplitSeq(text, ".") {
		if label == "" || len(label) > 63 || !isAlnum(label[0]) || !isAlnum(label[len(label)-1]) ||
			strings.ContainsAny(label, "_+") || !isWord(label, 63) {
			return false
		}
	}
	return len(text) <= 64
}

func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// cut keeps outside text in errors readable.
func cut(text string) string {
	const most = 100
	if len(text) <= most {
		return text
	}
	return text[:most] + "..."
}
