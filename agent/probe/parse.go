package probe

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// Bounds of probes.toml.
const (
	maxFile     = 256 << 10
	maxProbes   = 64
	maxDeadline = 10 * time.Minute
	maxSocket   = 107 // unix(7): sun_path with its end
)

// file is probes.toml.
type file struct {
	Agent   builtin   `toml:"agent"`
	Units   builtin   `toml:"units"`
	Route   builtin   `toml:"route"`
	DNS     builtin   `toml:"dns"`
	Record  builtin   `toml:"record"`
	Ready   []ready   `toml:"ready"`
	Command []program `toml:"command"`
}

type builtin struct {
	Deadline string   `toml:"deadline"`
	Ignore   []string `toml:"ignore"` // [units] only
}

type ready struct {
	Name     string `toml:"name"`
	Socket   string `toml:"socket"`
	Path     string `toml:"path"`
	Deadline string `toml:"deadline"`
}

type program struct {
	Name     string   `toml:"name"`
	Argv     []string `toml:"argv"`
	Deadline string   `toml:"deadline"`
	Memory   string   `toml:"memory"`
}

// ParseStrict reads probes.toml as a build does: an unknown key is an error.
// name is the file's, for errors.
func ParseStrict(name string, data []byte) (Set, error) {
	set, unknown, err := parse(name, data)
	if err == nil && len(unknown) > 0 {
		err = fmt.Errorf("%s: there is no key %q; see docs/formats.md, probes.toml", name, unknown[0])
	}
	if err != nil {
		return nil, err
	}
	return set, nil
}

// ParseLenient reads probes.toml as a node does: keys that it does not know are
// of a newer agent, and ignored. A known key with a wrong value is an error.
func ParseLenient(name string, data []byte) (Set, error) {
	set, _, err := parse(name, data)
	return set, err
}

func parse(name string, data []byte) (Set, []string, error) {
	if len(data) > maxFile {
		return nil, nil, fmt.Errorf("%s: longer than %d bytes", name, maxFile)
	}
	var f file
	meta, err := toml.Decode(string(data), &f)
	if err != nil {
		return nil, nil, decodeError(name, err)
	}
	var unknown []string
	for _, key := range meta.Undecoded() {
		unknown = append(unknown, key.String())
	}
	for table, b := range map[string]builtin{"agent": f.Agent, "route": f.Route, "dns": f.DNS, "record": f.Record} {
		if b.Ignore != nil {
			unknown = append(unknown, table+".ignore")
		}
	}
	slices.Sort(unknown)
	set, err := f.set()
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	return set, unknown, nil
}

func decodeError(name string, err error) error {
	var where toml.ParseError
	if errors.As(err, &where) {
		return fmt.Errorf("%s:%d: %s", name, where.Position.Line, where.Message)
	}
	return fmt.Errorf("%s: %w", name, err)
}

func (f file) set() (Set, error) {
	set := Default()
	for i, b := range []builtin{f.Agent, f.Units, f.Route, f.DNS, f.Record} {
		var err error
		if set[i].Deadline, err = duration(b.Deadline, set[i].Deadline); err != nil {
			return nil, fmt.Errorf("[%s] %w", set[i].Kind, err)
		}
	}
	set[1].Ignore = f.Units.Ignore
	for i, r := range f.Ready {
		p, err := r.probe()
		if err != nil {
			return nil, fmt.Errorf("[[ready]] %d: %w", i+1, err)
		}
		set = append(set, p)
	}
	for i, c := range f.Command {
		p, err := c.probe()
		if err != nil {
			return nil, fmt.Errorf("[[command]] %d: %w", i+1, err)
		}
		set = append(set, p)
	}
	if len(set) > maxProbes {
		return nil, fmt.Errorf("%d probes; at most %d are allowed", len(set), maxProbes)
	}
	seen := map[string]bool{}
	for _, p := range set {
		if seen[p.ID()] {
			return nil, fmt.Errorf("the name %q stands twice in [[%s]]", p.Name, p.Kind)
		}
		seen[p.ID()] = true
	}
	return set, nil
}

func (r ready) probe() (Probe, error) {
	p := Probe{Kind: KindReady, Name: r.Name, Socket: r.Socket, Path: r.Path}
	if err := checkName(r.Name); err != nil {
		return p, err
	}
	if !filepath.IsAbs(r.Socket) || len(r.Socket) > maxSocket {
		return p, fmt.Errorf("%q: socket = %q: it must be an absolute path of at most %d bytes", r.Name, r.Socket, maxSocket)
	}
	if p.Path == "" {
		p.Path = "/readyz"
	}
	if !strings.HasPrefix(p.Path, "/") || strings.ContainsFunc(p.Path, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return p, fmt.Errorf("%q: path = %q: it must begin with \"/\" and have no spaces", r.Name, r.Path)
	}
	var err error
	p.Deadline, err = duration(r.Deadline, 10*time.Second)
	return p, named(r.Name, err)
}

func (c program) probe() (Probe, error) {
	p := Probe{Kind: KindCommand, Name: c.Name, Argv: c.Argv, MemoryMax: 256 << 20}
	if err := checkName(c.Name); err != nil {
		return p, err
	}
	if len(c.Argv) == 0 || !filepath.IsAbs(c.Argv[0]) {
		return p, fmt.Errorf("%q: argv = %q: it must begin with a program's absolute path", c.Name, c.Argv)
	}
	if slices.ContainsFunc(c.Argv, func(word string) bool { return strings.ContainsRune(word, 0) }) {
		return p, fmt.Errorf("%q: argv = %q: no word can hold a zero byte", c.Name, c.Argv)
	}
	var err error
	if p.Deadline, err = duration(c.Deadline, 30*time.Second); err != nil {
		return p, named(c.Name, err)
	}
	if c.Memory != "" {
		p.MemoryMax, err = size(c.Memory)
	}
	return p, named(c.Name, err)
}

func named(name string, err error) error {
	if err != nil {
		return fmt.Errorf("%q: %w", name, err)
	}
	return nil
}

var goodName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

func checkName(name string) error {
	if !goodName.MatchString(name) || strings.HasSuffix(name, newMark) {
		return fmt.Errorf("name = %q: 1 to 63 small letters, digits, dots, dashes and underscores, not ending in %q", name, newMark)
	}
	return nil
}

func duration(text string, otherwise time.Duration) (time.Duration, error) {
	if text == "" {
		return otherwise, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second || d > maxDeadline {
		return 0, fmt.Errorf("deadline = %q: it must be a time from \"1s\" to %q", text, "10m")
	}
	return d, nil
}

// size reads "64M", "1G" as systemd does: powers of 1024.
func size(text string) (uint64, error) {
	digits := strings.TrimRight(text, "KMG")
	shift, ok := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30}[text[len(digits):]]
	n, err := strconv.ParseUint(digits, 10, 32)
	if !ok || err != nil || n == 0 || n<<shift < 4<<20 || n<<shift > 64<<30 {
		return 0, fmt.Errorf("memory = %q: it must be a number with K, M or G, from \"4M\" to \"64G\"", text)
	}
	return n << shift, nil
}
