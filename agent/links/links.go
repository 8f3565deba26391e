// Package links keeps the links that say which generation is which: the system
// profile with its numbered generations, as nix-env --set makes them, and the
// roots below gcroots/xnode that guard generations against garbage collection.
//
// Each link is replaced in one step and durable before the call returns. What a
// link names is never looked at; the caller has verified it.
package links

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"xnodeos.org/agent"
	"xnodeos.org/internal/nix"
)

// Where the links lie on a node.
const (
	ProfileDir = "/nix/var/nix/profiles"
	RootsDir   = "/nix/var/nix/gcroots/xnode"
)

// Links are the profile and the roots in two folders.
type Links struct{ profiles, roots string }

// Open returns the links in the two folders, which are made where they lack.
func Open(profiles, roots string) (*Links, error) {
	for _, dir := range []string{profiles, roots} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, fmt.Errorf("open links: %w", err)
		}
	}
	return &Links{profiles, roots}, nil
}

// Profile returns the system that the profile names; "" if there is none.
func (l *Links) Profile() (string, error) {
	name, err := read(filepath.Join(l.profiles, "system"))
	if err != nil || name == "" {
		return "", err
	}
	if strings.Contains(name, "/") { // set by other hands, straight at a system
		return name, nil
	}
	return read(filepath.Join(l.profiles, name))
}

// SetProfile makes a system the profile's: as the generation that already names
// it, else as a new one behind the highest number.
func (l *Links) SetProfile(system string) error {
	if err := check(system); err != nil {
		return err
	}
	entries, err := os.ReadDir(l.profiles)
	if err != nil {
		return fmt.Errorf("set profile: %w", err)
	}
	var highest uint64
	generation := ""
	for _, e := range entries {
		number, ok := generationNumber(e.Name())
		if !ok {
			continue
		}
		target, err := read(filepath.Join(l.profiles, e.Name()))
		if err != nil {
			return fmt.Errorf("set profile: %w", err)
		}
		if target == system {
			generation = e.Name()
		}
		highest = max(highest, number)
	}
	if generation == "" {
		generation = fmt.Sprintf("system-%d-link", highest+1)
		if err := replace(filepath.Join(l.profiles, generation), system); err != nil {
			return fmt.Errorf("set profile: %w", err)
		}
	}
	if err := replace(filepath.Join(l.profiles, "system"), generation); err != nil {
		return fmt.Errorf("set profile: %w", err)
	}
	return nil
}

// generationNumber reads "system-N-link".
func generationNumber(name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, "system-")
	digits, ok2 := strings.CutSuffix(digits, "-link")
	if !ok || !ok2 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 32)
	return n, err == nil
}

// Root returns the system that a root guards; "" if there is none.
func (l *Links) Root(name agent.Root) (string, error) {
	return read(filepath.Join(l.roots, string(name)))
}

// SetRoot guards a system by name; an empty system removes the root.
func (l *Links) SetRoot(name agent.Root, system string) error {
	path := filepath.Join(l.roots, string(name))
	if system == "" {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove root: %w", err)
		}
		return nil
	}
	if err := check(system); err != nil {
		return err
	}
	if err := replace(path, system); err != nil {
		return fmt.Errorf("set root %s: %w", name, err)
	}
	return nil
}

func check(system string) error {
	if _, err := nix.ParseStorePath(system); err != nil {
		return fmt.Errorf("refusing to link to %q: %w", system, err)
	}
	return nil
}

func read(path string) (string, error) {
	target, err := os.Readlink(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read link: %w", err)
	}
	return target, nil
}

// replace makes path a link to target: a new link under another name, renamed.
func replace(path, target string) error {
	if have, err := os.Readlink(path); err == nil && have == target {
		return nil
	}
	temp := path + ".tmp" // one writer: the applier holds its lock
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, temp); err != nil {
		return err
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(err, os.Remove(temp))
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}
