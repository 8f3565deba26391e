// Package pocket builds the pocket system: a small system that keeps the NixOS
// contract, made by plain nix-build from named Debian packages, for trying and
// testing XnodeOS without nixpkgs and without a binary cache.
//
// The package embeds the Nix files that lie beside it, fetches the packages
// that packages.txt names (nothing is installed on the host), and runs
// nix-build with a configuration of its own. Every tool of the build comes out
// of these packages, so the store paths and their bytes depend on the packages
// and the options alone: not on the host, its user, its folders or its clock.
//
// It writes no image and boots nothing; README.md says what the system is.
package pocket

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"xnodeos.org/internal/atomicfile"
	"xnodeos.org/internal/command"
	"xnodeos.org/internal/nix"
	"xnodeos.org/nixos/pocket/debs"
)

// Defaults of Options.
const (
	DefaultLabel    = "pocket-1"
	DefaultHandover = "script"
)

// Variants are the systems that are broken on purpose, as variants.nix has
// them.
func Variants() []string {
	return []string{"activation", "agent", "freeze", "hang", "late", "network", "panic", "unit"}
}

// Options say which pocket system is built, and where.
type Options struct {
	// Cache is the folder for packages, build files and, where /nix cannot be
	// written, the store. Needed; made if absent.
	Cache string

	// Label is what the system calls itself; empty means DefaultLabel.
	// Letters, digits, ".", "_" and "-", at most 64.
	Label string
	// Handover is the shape of the first stage's last step: "script" (init is
	// a script) or "prepare-root"; empty means DefaultHandover.
	Handover string
	// Broken names what fails on purpose, one of Variants; empty for nothing.
	Broken string
	// Xnode is the file of the agent's program (static, of this architecture);
	// empty leaves the agent out.
	Xnode string
	// SwitchEnds makes switch-to-configuration end in its own way after its
	// work: "exit 7", "signal 9"; empty means as it should.
	SwitchEnds string

	// Greeting makes a generation that differs visibly: it is the message of
	// the day, and pocket-greeting.service writes it to /run/pocket-greeting.
	// Letters, digits, spaces and ".,!?_-", at most 80; empty for none.
	Greeting string

	// Units are more systemd units by name, WantedBy the target that pulls
	// each in, Files more files below /etc by relative path.
	Units, WantedBy, Files map[string]string

	// Store is the folder below which the private store lies, if one is
	// needed; empty means Cache/store.
	Store string
	// Log gets a line for each step that takes time; may be nil.
	Log func(line string)
}

// Build builds a pocket system. It returns its path and the store that it is
// in: /nix where this user can write that, else the private one. A result link
// in the cache keeps it from garbage collection.
func Build(ctx context.Context, opt Options) (nix.StorePath, nix.Store, error) {
	opt, err := opt.complete()
	if err != nil {
		return "", nix.Store{}, fmt.Errorf("build pocket system: %w", err)
	}
	site, err := chooseStore(opt.Store)
	if err != nil {
		return "", nix.Store{}, fmt.Errorf("build pocket system: %w", err)
	}
	path, store, err := buildIn(ctx, opt, site)
	if err != nil {
		return "", nix.Store{}, fmt.Errorf("build pocket system %q: %w", opt.Label, err)
	}
	return path, store, nil
}

func (opt Options) complete() (Options, error) {
	if opt.Cache == "" {
		return opt, fmt.Errorf("no cache folder is named")
	}
	cache, err := filepath.Abs(opt.Cache)
	if err != nil {
		return opt, fmt.Errorf("cache folder %q: %w", opt.Cache, err)
	}
	opt.Cache = cache
	if opt.Store == "" {
		opt.Store = filepath.Join(opt.Cache, "store")
	}
	if opt.Label == "" {
		opt.Label = DefaultLabel
	}
	if opt.Handover == "" {
		opt.Handover = DefaultHandover
	}
	if !slices.Contains([]string{"script", "prepare-root"}, opt.Handover) {
		return opt, fmt.Errorf("hand-over %q: it is \"script\" or \"prepare-root\"", opt.Handover)
	}
	if opt.Broken != "" && !slices.Contains(Variants(), opt.Broken) {
		return opt, fmt.Errorf("broken %q: it is one of %q", opt.Broken, Variants())
	}
	if opt.Broken == "agent" && opt.Xnode == "" {
		return opt, fmt.Errorf("broken %q needs a system with the agent", opt.Broken)
	}
	if opt.Xnode != "" {
		if opt.Xnode, err = filepath.Abs(opt.Xnode); err != nil {
			return opt, fmt.Errorf("agent's program %q: %w", opt.Xnode, err)
		}
	}
	if err := opt.greet(); err != nil {
		return opt, err
	}
	if opt.Log == nil {
		opt.Log = func(string) {}
	}
	return opt, nil
}

var goodGreeting = regexp.MustCompile(`^[A-Za-z0-9 .,!?_-]{0,80}$`)

// greet turns Greeting into files and units.
func (opt *Options) greet() error {
	if !goodGreeting.MatchString(opt.Greeting) {
		return fmt.Errorf("greeting %q: letters, digits, spaces and \".,!?_-\", at most 80", opt.Greeting)
	}
	if opt.Greeting == "" {
		return nil
	}
	const name = "pocket-greeting.service"
	opt.Files, opt.Units, opt.WantedBy = copyOf(opt.Files), copyOf(opt.Units), copyOf(opt.WantedBy)
	opt.Files["motd"] = opt.Greeting + "\n"
	opt.Units[name] = `[Unit]
Description=Greeting: ` + opt.Greeting + `

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/run/current-system/sw/bin/cp /etc/motd /run/pocket-greeting
ExecStop=/run/current-system/sw/bin/rm -f /run/pocket-greeting
`
	opt.WantedBy[name] = "multi-user.target"
	return nil
}

func copyOf(table map[string]string) map[string]string {
	all := map[string]string{}
	maps.Copy(all, table)
	return all
}

func buildIn(ctx context.Context, opt Options, site site) (nix.StorePath, nix.Store, error) {
	work := filepath.Join(opt.Cache, "pocket")
	source, err := writeSource(work)
	if err != nil {
		return "", nix.Store{}, err
	}
	set, err := fetchPackages(ctx, work, opt.Log)
	if err != nil {
		return "", nix.Store{}, err
	}
	conf, err := site.writeConf(work)
	if err != nil {
		return "", nix.Store{}, err
	}
	roots := filepath.Join(work, "roots")
	if err := os.MkdirAll(roots, 0o755); err != nil {
		return "", nix.Store{}, fmt.Errorf("make folder for result links: %w", err)
	}
	link := filepath.Join(roots, opt.name())
	args, err := opt.arguments(source, set, link)
	if err != nil {
		return "", nix.Store{}, err
	}
	args = append(args, site.args...)
	call, err := opt.call(args)
	if err != nil {
		return "", nix.Store{}, err
	}
	if path, ok := built(site.store, link, call); ok {
		return path, site.store, nil
	}
	out, err := command.Output(ctx, command.Cmd{
		Name: "nix-build", Args: args, Package: "nix-bin",
		AddEnv: []string{
			"NIX_CONF_DIR=" + conf, // never the host's configuration, wherever it is
			"NIX_USER_CONF_FILES=/dev/null", "NIX_CONFIG=", "NIX_PATH=", "NIX_REMOTE=", "LC_ALL=C",
		},
		StderrLine: func(line string) {
			if name, ok := building(line); ok {
				opt.Log("building " + name)
			}
		},
	})
	if err != nil {
		return "", nix.Store{}, site.explain(err)
	}
	path, err := nix.ParseStorePath(strings.TrimSpace(string(out)))
	if err != nil {
		return "", nix.Store{}, fmt.Errorf("read what nix-build prints: %w", err)
	}
	return path, site.store, atomicfile.WriteBytes(callFile(link), 0o644, call)
}

// call is what the outcome depends on: nix-build's arguments, which name Nix
// files and packages by their hashes, and the agent's program, whose name says
// nothing about it.
func (opt Options) call(args []string) ([]byte, error) {
	if opt.Xnode == "" {
		return callOf(args), nil
	}
	data, err := os.ReadFile(opt.Xnode)
	if err != nil {
		return nil, fmt.Errorf("read the agent's program: %w; build it, or leave the agent out", err)
	}
	sum := sha256.Sum256(data)
	return callOf(append(slices.Clone(args), "xnode "+hex.EncodeToString(sum[:]))), nil
}

// built says whether nix-build made link by the same call. Then the outcome
// would be the same; asking Nix again takes a second.
func built(store nix.Store, link string, call []byte) (nix.StorePath, bool) {
	last, err := os.ReadFile(callFile(link))
	if err != nil || !bytes.Equal(last, call) {
		return "", false
	}
	target, err := os.Readlink(link)
	if err != nil {
		return "", false
	}
	path, err := nix.ParseStorePath(target)
	if err != nil {
		return "", false
	}
	_, err = os.Lstat(store.Physical(string(path)))
	return path, err == nil
}

func callFile(link string) string { return link + ".call" }

func callOf(args []string) []byte { return []byte(strings.Join(args, "\n") + "\n") }

// name is unique to a combination of options that somebody may want kept.
func (opt Options) name() string {
	parts := []string{opt.Label, opt.Handover}
	if opt.Broken != "" {
		parts = append(parts, opt.Broken)
	}
	if opt.Xnode != "" {
		parts = append(parts, "agent")
	}
	return strings.Join(parts, "-")
}

// arguments are those of nix-build.
func (opt Options) arguments(source, set, link string) ([]string, error) {
	args := []string{
		filepath.Join(source, "default.nix"), "--out-link", link,
		"--argstr", "debs", set,
		"--argstr", "label", opt.Label,
		"--argstr", "handover", opt.Handover,
		"--argstr", "switchEnds", opt.SwitchEnds,
	}
	if opt.Broken != "" {
		args = append(args, "--argstr", "broken", opt.Broken)
	}
	if opt.Xnode != "" {
		args = append(args, "--argstr", "xnode", opt.Xnode)
	}
	for _, table := range []struct {
		name  string
		value map[string]string
	}{{"units", opt.Units}, {"wantedBy", opt.WantedBy}, {"files", opt.Files}} {
		if len(table.value) == 0 {
			continue
		}
		data, err := json.Marshal(table.value)
		if err != nil {
			return nil, fmt.Errorf("hand %s to nix-build: %w", table.name, err)
		}
		args = append(args, "--arg", table.name, "builtins.fromJSON "+nixString(string(data)))
	}
	return args, nil
}

// nixString writes a string as a Nix expression.
func nixString(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`).Replace(text) + `"`
}

// building picks the name out of nix-build's line "building '/nix/store/HASH-NAME.drv'...".
func building(line string) (string, bool) {
	rest, ok := strings.CutPrefix(line, "building '"+nix.StoreDir+"/")
	if !ok {
		return "", false
	}
	rest, ok = strings.CutSuffix(rest, ".drv'...")
	_, name, found := strings.Cut(rest, "-")
	return name, ok && found
}

// fetchPackages returns the JSON file that default.nix takes as debs.
func fetchPackages(ctx context.Context, work string, log func(string)) (string, error) {
	cache := debs.Cache{Dir: work, Log: log}
	list, err := cache.Fetch(ctx, PackageNames()...)
	if err != nil {
		return "", err
	}
	table := make(map[string]string, len(list))
	for _, d := range list {
		table[d.Name] = filepath.Join("unpacked", d.File)
	}
	return writeSet(work, table)
}

// PackageNames are the Debian packages of the pocket system as packages.txt
// spells them: "@" marks a meta package that stands for its dependency.
func PackageNames() []string {
	data, err := fs.ReadFile(files, "packages.txt")
	if err != nil {
		panic("BUG: packages.txt is not embedded: " + err.Error())
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		if words := strings.Fields(line); len(words) > 1 && !strings.HasPrefix(words[0], "#") {
			names = append(names, words[0])
		}
	}
	return names
}
