package journal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"xnodeos.org/agent"
	"xnodeos.org/internal/announce"
	"xnodeos.org/internal/atomicfile"
	"xnodeos.org/internal/trust"
)

// Bounds of the memory.
const (
	MaxVerdicts = 256 // the oldest ones of systems give way
	maxMemory   = 1 << 20
)

// Memory are the files that outlive the journal's transactions:
// accepted.json, quarantine.json, time-floor, trust.json.
type Memory struct{ dir string }

// OpenMemory returns the memory in a folder, which must exist.
func OpenMemory(dir string) *Memory { return &Memory{dir} }

// A DamagedFileError is a file that is there and does not say what it should.
type DamagedFileError struct {
	Path string
	Err  error
}

func (e *DamagedFileError) Error() string {
	return fmt.Sprintf("read %s: it is damaged: %v", e.Path, e.Err)
}

// Unwrap returns what is wrong with it.
func (e *DamagedFileError) Unwrap() error { return e.Err }

func isDamaged(err error) bool {
	var damaged *DamagedFileError
	return errors.As(err, &damaged)
}

// Accepted returns the newest accepted record; the zero value if there is none.
func (m *Memory) Accepted() (agent.Accepted, error) {
	var a agent.Accepted
	err := m.read("accepted.json", &a)
	if err == nil && a.Record != "" {
		if _, wrong := announce.Parse(a.Record); wrong != nil {
			err = &DamagedFileError{filepath.Join(m.dir, "accepted.json"), wrong}
		}
	}
	if err != nil {
		return agent.Accepted{}, err
	}
	return a, nil
}

// RaiseAccepted stores a newer record. An order below the stored one is an
// error and changes nothing, whoever asks. What is damaged is written anew: the
// caller has judged the record by what else is known.
func (m *Memory) RaiseAccepted(a agent.Accepted) error {
	have, err := m.Accepted()
	if err != nil && !isDamaged(err) {
		return err
	}
	if a.Sequence < have.Sequence || a.Sequence == have.Sequence && a.Published < have.Published {
		return fmt.Errorf("refusing to lower the accepted record from (%d, %d) to (%d, %d)", have.Sequence, have.Published, a.Sequence, a.Published)
	}
	if a == have && err == nil {
		return nil
	}
	return m.write("accepted.json", a)
}

// Quarantine returns all verdicts, oldest first.
func (m *Memory) Quarantine() ([]agent.Verdict, error) {
	var list []agent.Verdict
	err := m.read("quarantine.json", &list)
	if isDamaged(err) {
		path := filepath.Join(m.dir, "quarantine.json")
		return nil, fmt.Errorf("%w; nothing is tried until somebody decides: to forget all verdicts, mv %s %s.damaged", err, path, path)
	}
	return list, err
}

// AddVerdict quarantines a system. One that is there already stays as it is.
func (m *Memory) AddVerdict(v agent.Verdict) error {
	list, err := m.Quarantine()
	if err != nil {
		return err
	}
	for _, have := range list {
		if have.System == v.System {
			return nil
		}
	}
	list = append(list, v)
	if len(list) > MaxVerdicts {
		list = list[len(list)-MaxVerdicts:]
	}
	return m.write("quarantine.json", list)
}

// ClearVerdict takes a system out of the quarantine and says whether it was in.
func (m *Memory) ClearVerdict(system string) (bool, error) {
	list, err := m.Quarantine()
	if err != nil {
		return false, err
	}
	for i, have := range list {
		if have.System == system {
			return true, m.write("quarantine.json", append(list[:i:i], list[i+1:]...))
		}
	}
	return false, nil
}

// TimeFloor is the latest time that was ever sure to have passed, in Unix
// seconds; 0 if none.
func (m *Memory) TimeFloor() (int64, error) {
	data, err := readFile(filepath.Join(m.dir, "time-floor"), 32)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	floor, err := strconv.ParseInt(strings.TrimSuffix(string(data), "\n"), 10, 64)
	if err != nil {
		return 0, &DamagedFileError{filepath.Join(m.dir, "time-floor"), err}
	}
	return floor, nil
}

// RaiseTimeFloor stores a later time; an earlier one changes nothing. What is
// damaged is written anew.
func (m *Memory) RaiseTimeFloor(floor int64) error {
	have, err := m.TimeFloor()
	if err != nil && !isDamaged(err) || err == nil && floor <= have {
		return err
	}
	if err := atomicfile.WriteBytes(filepath.Join(m.dir, "time-floor"), 0o644, fmt.Appendf(nil, "%d\n", floor)); err != nil {
		return fmt.Errorf("write time floor: %w", err)
	}
	return nil
}

// Trust returns the chain of trust documents that was stored. They are judged
// again by the root keys whenever they are read.
func (m *Memory) Trust() ([]trust.Bundle, error) {
	var chain []trust.Bundle
	err := m.read("trust.json", &chain)
	return chain, err
}

// SetTrust stores the chain of a newer version.
func (m *Memory) SetTrust(chain []trust.Bundle) error { return m.write("trust.json", chain) }

func (m *Memory) read(name string, into any) error {
	path := filepath.Join(m.dir, name)
	data, err := readFile(path, 8*maxMemory)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return &DamagedFileError{path, err}
	}
	return nil
}

func (m *Memory) write(name string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	if err := atomicfile.WriteBytes(filepath.Join(m.dir, name), 0o644, append(data, '\n')); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// Releases are the folders kept/NAME, one for each system whose release may
// have to be verified again, and last-good, the one to re-apply after a boot.
// Each holds record.txt, release.json, nodes.json (where the release binds one)
// and closure, the digest of the closure list.
type Releases struct{ dir string }

// OpenReleases returns the releases below a folder, which must exist.
func OpenReleases(dir string) *Releases { return &Releases{dir} }

func (r *Releases) folder(system string) string {
	return filepath.Join(r.dir, "kept", filepath.Base(system))
}

// Keep stores what proves a system before the system is tried; closure is the
// digest of its closure list.
func (r *Releases) Keep(system string, in agent.Announcement, closure string) error {
	return r.put(r.folder(system), in, closure)
}

func (r *Releases) put(dir string, rel agent.Announcement, closure string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("keep release: %w", err)
	}
	files := map[string][]byte{
		"record.txt": []byte(rel.Record + "\n"), "release.json": rel.Release,
		"nodes.json": rel.Nodes, "closure": []byte(closure + "\n"),
	}
	for _, name := range []string{"release.json", "nodes.json", "closure", "record.txt"} { // the record last: it binds the others
		path := filepath.Join(dir, name)
		if files[name] == nil {
			if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("keep release: %w", err)
			}
			continue
		}
		if err := atomicfile.WriteBytes(path, 0o644, files[name]); err != nil {
			return fmt.Errorf("keep release: %w", err)
		}
	}
	return nil
}

// Kept returns what was kept of a system; an error that is fs.ErrNotExist if
// there is nothing.
func (r *Releases) Kept(system string) (agent.Announcement, error) {
	in, _, err := r.get(r.folder(system))
	return in, err
}

// LastGood returns the release that is to be applied again after a boot, and
// the digest of its closure list.
func (r *Releases) LastGood() (agent.Announcement, string, error) {
	return r.get(filepath.Join(r.dir, "last-good"))
}

func (r *Releases) get(dir string) (rel agent.Announcement, closure string, err error) {
	var texts [4][]byte
	for i, name := range []string{"record.txt", "release.json", "nodes.json", "closure"} {
		data, err := readFile(filepath.Join(dir, name), 10*maxMemory)
		if name == "nodes.json" && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return agent.Announcement{}, "", fmt.Errorf("read kept release: %w", err)
		}
		texts[i] = data
	}
	rel.Record, rel.Release, rel.Nodes = strings.TrimSuffix(string(texts[0]), "\n"), texts[1], texts[2]
	return rel, strings.TrimSuffix(string(texts[3]), "\n"), nil
}

// SetLastGood makes the kept release of a system the one in last-good. A
// system that no release names has none, and last-good stays.
func (r *Releases) SetLastGood(system string) error {
	rel, closure, err := r.get(r.folder(system))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return r.put(filepath.Join(r.dir, "last-good"), rel, closure)
}

// Prune drops what is kept of all other systems.
func (r *Releases) Prune(systems ...string) error {
	keep := map[string]bool{}
	for _, s := range systems {
		keep[filepath.Base(s)] = true
	}
	entries, err := os.ReadDir(filepath.Join(r.dir, "kept"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("prune kept releases: %w", err)
	}
	for _, e := range entries {
		if keep[e.Name()] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(r.dir, "kept", e.Name())); err != nil {
			return fmt.Errorf("prune kept releases: %w", err)
		}
	}
	return nil
}
