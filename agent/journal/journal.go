// Package journal keeps on disk what the applier must know after a power cut:
// its State in two copies, and apart from it what may only rise or be cleared
// by an operator (the newest accepted record, the floor of time, the trust
// chain, the quarantine) and the releases that may be applied again.
//
// Every file appears whole or not at all, and is durable before the call
// returns. Nothing here decides; what is written was verified by the caller.
package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"xnodeos.org/agent"
	"xnodeos.org/internal/atomicfile"
)

// MaxSize bounds one copy in bytes.
const MaxSize = 128 << 10

// version is the first word of a format that this reader understands. What is
// added to State keeps the version: a reader ignores keys that it does not
// know, so that the old agent can read its own journal after going back.
const version = "xnode-journal 1"

// A DamagedError says that there was a journal and that no copy of it can be
// read: nothing is known about what was going on.
type DamagedError struct{ Copies []error }

func (e *DamagedError) Error() string {
	return "read journal: no copy can be read: " + errors.Join(e.Copies...).Error()
}

// Unwrap returns what is wrong with each copy.
func (e *DamagedError) Unwrap() []error { return e.Copies }

// Journal is the pair of files journal.a and journal.b in a folder.
type Journal struct {
	dir    string
	number uint64 // of the newest copy
	next   int    // the copy to write first: the older or damaged one
}

// Open returns the journal in a folder, which must exist.
func Open(dir string) *Journal { return &Journal{dir: dir} }

func (j *Journal) path(i int) string {
	return filepath.Join(j.dir, []string{"journal.a", "journal.b"}[i])
}

// Load returns the newest valid copy. A journal that was never written is the
// zero State; one that was, and of which nothing is left, a *DamagedError.
func (j *Journal) Load() (agent.State, error) {
	var newest agent.State
	var damage []error
	found := false
	j.number, j.next = 0, 0
	for i := range 2 {
		data, err := readFile(j.path(i), MaxSize)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		var state agent.State
		var number uint64
		if err == nil {
			state, number, err = Decode(data)
		}
		if err != nil {
			damage = append(damage, fmt.Errorf("%s: %w", j.path(i), err))
			continue
		}
		if !found || number > j.number {
			newest, j.number, j.next, found = state, number, 1-i, true
		}
	}
	if !found && len(damage) > 0 {
		return agent.State{}, &DamagedError{damage}
	}
	return newest, nil
}

// Store makes a state durable in both copies, the older one first: whenever
// the power fails, one of them is whole.
func (j *Journal) Store(s agent.State) error {
	data, err := Encode(s, j.number+1)
	if err != nil {
		return err
	}
	for _, i := range []int{j.next, 1 - j.next} {
		if err := atomicfile.WriteBytes(j.path(i), 0o644, data); err != nil {
			return fmt.Errorf("write journal: %w", err)
		}
	}
	j.number++
	return nil
}

// Encode writes a copy: a line of version, number and SHA-256, then the State
// as JSON.
func Encode(s agent.State, number uint64) ([]byte, error) {
	body, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode journal: %w", err)
	}
	body = append(body, '\n')
	data := append(header(number, body), body...)
	if len(data) > MaxSize {
		return nil, fmt.Errorf("encode journal: %d bytes, at most %d", len(data), MaxSize)
	}
	return data, nil
}

// header binds the number to the bytes below it.
func header(number uint64, body []byte) []byte {
	sum := sha256.Sum256(append(strconv.AppendUint(nil, number, 10), body...))
	return fmt.Appendf(nil, "%s %d %s\n", version, number, hex.EncodeToString(sum[:]))
}

// Decode reads a copy.
func Decode(data []byte) (agent.State, uint64, error) {
	if len(data) > MaxSize {
		return agent.State{}, 0, fmt.Errorf("%d bytes, at most %d", len(data), MaxSize)
	}
	line, body, ok := bytes.Cut(data, []byte("\n"))
	words := strings.Split(string(line), " ")
	if !ok || len(words) != 4 {
		return agent.State{}, 0, errors.New("no header line")
	}
	if words[0]+" "+words[1] != version {
		return agent.State{}, 0, fmt.Errorf("format %q, known is %q", words[0]+" "+words[1], version)
	}
	number, err := strconv.ParseUint(words[2], 10, 64)
	if err != nil {
		return agent.State{}, 0, fmt.Errorf("number: %w", err)
	}
	if !bytes.Equal(header(number, body), append(line, '\n')) {
		return agent.State{}, 0, errors.New("checksum does not match")
	}
	var s agent.State
	if err := json.Unmarshal(body, &s); err != nil {
		return agent.State{}, 0, fmt.Errorf("state: %w", err)
	}
	if !known(s.Phase) {
		return agent.State{}, 0, fmt.Errorf("unknown phase %q", s.Phase)
	}
	return s, number, nil
}

func known(p agent.Phase) bool {
	for _, have := range agent.Phases() {
		if p == have {
			return true
		}
	}
	return false
}

// readFile reads a plain file of bounded size.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("read %q: more than %d bytes", path, limit)
	}
	return data, nil
}
