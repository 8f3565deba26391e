// Package fleet reads what people write in a config repository: xnode.toml and
// nodes/*.toml. It is strict, because these files are read where somebody can
// still correct them; nodes never see them, but release.json and nodes.json,
// which are made of them.
//
// The package reads files and checks values. It runs no git, builds nothing and
// writes nothing.
package fleet

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/release"
	"xnodeos.org/internal/sshsign"
)

const (
	// FileName is the fleet's file.
	FileName = "xnode.toml"
	// NodesFolder is the folder with one file a node.
	NodesFolder = "nodes"

	maxFile  = 1 << 20
	maxNodes = 100_000
)

// Config is a config repository as its owner wrote it.
type Config struct {
	Fleet   Settings         `toml:"fleet"`
	Classes map[string]Class `toml:"classes"`
	Policy  Policy           `toml:"policy"`
	// Nodes has the nodes by the fingerprint of their key.
	Nodes map[string]Node `toml:"-"`
}

// Settings is the table [fleet].
type Settings struct {
	Name    string   `toml:"name"`    // for people
	Record  string   `toml:"record"`  // owner name of the announcement
	Remotes []string `toml:"remotes"` // git URLs that nodes read, in this order
	Caches  []string `toml:"caches"`  // URLs of binary caches, in this order
}

// Class is a table [classes.NAME].
type Class struct {
	// Flake has the flake attribute of the system by Nix's name of the
	// architecture. It may be empty where systems are named to the release.
	Flake   map[string]string `toml:"flake"`
	Medium  release.Medium    `toml:"medium"`
	Barrier release.Barrier   `toml:"barrier"`
}

// Policy is the table [policy]: how fast a fleet takes a release.
type Policy struct {
	Waves uint32 `toml:"waves"`
	Ramp  string `toml:"ramp"` // a duration, as in "6h"
}

// Node is one file of nodes/.
type Node struct {
	Key      string            `toml:"key"` // a line of an ssh-ed25519 .pub file
	Class    string            `toml:"class"`
	Hostname string            `toml:"hostname"`
	Labels   map[string]string `toml:"labels"`

	File string `toml:"-"` // its path in the repository
}

// Load reads a repository from its root folder. All that is wrong is reported
// at once, each with file, line and key.
func Load(repository fs.FS) (*Config, error) {
	c := &Config{Nodes: map[string]Node{}}
	data, err := readFile(repository, FileName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read %s: it is not there; make a config repository with: xnodeos init", FileName)
	}
	if err != nil {
		return nil, err
	}
	f := &file{name: FileName, data: data}
	f.decode(c)
	if f.wrong == nil {
		c.check(f)
	}
	wrong := f.wrong
	files, err := fs.Glob(repository, NodesFolder+"/*.toml")
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", NodesFolder, err)
	}
	if len(files) > maxNodes {
		return nil, fmt.Errorf("read %s: %d files; allowed are %d", NodesFolder, len(files), maxNodes)
	}
	for _, name := range files {
		data, err := readFile(repository, name)
		if err != nil {
			wrong = append(wrong, err)
			continue
		}
		f := &file{name: name, data: data}
		c.addNode(f)
		wrong = append(wrong, f.wrong...)
	}
	if err := errors.Join(wrong...); err != nil {
		return nil, err
	}
	return c, nil
}

func readFile(repository fs.FS, name string) ([]byte, error) {
	f, err := repository.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("more than %d bytes", maxFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

func (c *Config) check(f *file) {
	f.bad(consists(c.Fleet.Name, 128), "fleet.name", "want a name of 1 to 128 printable characters")
	_, err := announce.Owner(c.Fleet.Record)
	f.wrongIf(err, "fleet.record")
	f.bad(len(c.Fleet.Remotes) > 0, "fleet.remotes", "name at least one git URL that nodes can read")
	for _, remote := range c.Fleet.Remotes {
		f.bad(consists(remote, 2048) && !strings.ContainsAny(remote, " "), "fleet.remotes", fmt.Sprintf("%.100q is no URL", remote))
	}
	for _, cache := range c.Fleet.Caches {
		f.wrongIf(release.CheckCache(cache), "fleet.caches")
	}
	f.bad(len(c.Classes) > 0, "classes", "want at least one class, as in [classes.edge]")
	for _, name := range slices.Sorted(maps.Keys(c.Classes)) {
		class, key := c.Classes[name], "classes."+name
		f.wrongIf(release.CheckClass(name), key)
		f.wrongIf(class.Medium.Check(), key+".medium")
		f.wrongIf(class.Barrier.Check(), key+".barrier")
		for arch, attribute := range class.Flake {
			f.wrongIf(release.CheckArch(arch), key+".flake")
			f.bad(consists(attribute, 256), key+".flake", "want a flake attribute of 1 to 256 printable characters")
		}
	}
	_, err = c.Policy.release()
	f.wrongIf(err, "policy")
}

func (c *Config) addNode(f *file) {
	n := Node{File: f.name}
	f.decode(&n)
	if f.wrong != nil {
		return
	}
	key, _, err := sshsign.ParsePublicKey(n.Key)
	f.wrongIf(err, "key")
	f.wrongIf(n.release().Check(), "")
	if _, ok := c.Classes[n.Class]; !ok {
		f.bad(false, "class", fmt.Sprintf("%s has no class %.100q", FileName, n.Class))
	}
	if other, ok := c.Nodes[key.Fingerprint()]; err == nil && ok {
		f.bad(false, "key", "it is also that of "+path.Base(other.File))
	}
	if f.wrong == nil {
		c.Nodes[key.Fingerprint()] = n
	}
}

func (n Node) release() release.Node {
	return release.Node{Class: n.Class, Hostname: n.Hostname, Labels: n.Labels}
}

// NodesFile returns nodes.json's content.
func (c *Config) NodesFile() *release.Nodes {
	out := &release.Nodes{V: release.Version, Nodes: map[string]release.Node{}}
	for key, n := range c.Nodes {
		out.Nodes[key] = n.release()
	}
	return out
}

// ReleasePolicy returns the policy as release.json has it.
func (c *Config) ReleasePolicy() release.Policy {
	p, err := c.Policy.release()
	if err != nil {
		panic("BUG: fleet: a policy that Load would have refused: " + err.Error())
	}
	return p
}

func (p Policy) release() (release.Policy, error) {
	var ramp time.Duration
	if p.Ramp != "" {
		var err error
		if ramp, err = time.ParseDuration(p.Ramp); err != nil || ramp%time.Second != 0 {
			return release.Policy{}, fmt.Errorf("ramp %.100q; want whole seconds, minutes or hours, as in \"6h\"", p.Ramp)
		}
	}
	out := release.Policy{Waves: p.Waves, RampSeconds: int64(ramp / time.Second)}
	return out, out.Check()
}

func consists(text string, limit int) bool {
	return text != "" && len(text) <= limit && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd })
}
