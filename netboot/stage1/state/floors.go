package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"xnodeos.org/internal/atomicfile"
)

// Where the applier leaves what it has accepted, and the first stage which
// images it has started, below the folder of the state.
const (
	acceptedFile = "applier/accepted.json"
	timeFile     = "applier/time-floor"
	bootedFile   = "first-stage/sequence"
)

// maxTime is 2100: a floor beyond it is a mistake that would make every
// certificate look expired.
const maxTime = 4102444800

// Floors are what a state knows of the past: no clock before Time (seconds since
// 1970), no release before Accepted. They can only be raised by who was trusted
// then, so they are believed; a wrong one makes the node ask for something newer.
type Floors struct {
	Time int64
	// Accepted is the sequence of the newest release that the node accepted,
	// Booted that of the newest image that it started; 0 where there is none.
	Accepted, Booted uint32
}

// Sequence is the lowest sequence of an image that may be started by its
// signature. A node follows releases without a new image for each, so what it
// accepted may be ahead of every image there is: an image as new as the newest
// that it has started is good enough.
func (f Floors) Sequence() uint32 {
	if f.Booted == 0 {
		return f.Accepted
	}
	return min(f.Accepted, f.Booted)
}

// ReadFloors reads them from the folder of a state. What is not there is zero,
// what cannot be understood is left out and named.
func ReadFloors(dir string) (Floors, []string) {
	var f Floors
	var notes []string
	note := func(file string, err error) {
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			notes = append(notes, fmt.Sprintf("%s on %s is ignored: %v", file, PartitionName, err))
		}
	}
	var err error
	f.Accepted, err = readAccepted(filepath.Join(dir, acceptedFile))
	note(acceptedFile, err)
	f.Time, err = readNumber(filepath.Join(dir, timeFile), maxTime)
	note(timeFile, err)
	booted, err := readNumber(filepath.Join(dir, bootedFile), math.MaxUint32)
	f.Booted = uint32(booted)
	note(bootedFile, err)
	return f, notes
}

// readAccepted reads the sequence of the applier's accepted record, under the
// applier's name for it or the record's.
func readAccepted(name string) (uint32, error) {
	data, err := readSmall(name)
	if err != nil {
		return 0, err
	}
	var accepted struct {
		Sequence *uint32 `json:"sequence"`
		S        *uint32 `json:"s"`
	}
	if err := json.Unmarshal(data, &accepted); err != nil {
		return 0, err
	}
	switch {
	case accepted.Sequence != nil:
		return *accepted.Sequence, nil
	case accepted.S != nil:
		return *accepted.S, nil
	}
	return 0, errors.New(`it has no "sequence"`)
}

// readNumber reads a decimal number and its line feed.
func readNumber(name string, most int64) (int64, error) {
	data, err := readSmall(name)
	if err != nil {
		return 0, err
	}
	text := strings.TrimSuffix(string(data), "\n")
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > most || strconv.FormatInt(n, 10) != text {
		return 0, fmt.Errorf("%.40q is not a number from 0 to %d", text, most)
	}
	return n, nil
}

// WriteBooted notes that an image of that sequence is started, durably, unless
// a newer one was.
func WriteBooted(dir string, before Floors, sequence uint32) error {
	if sequence <= before.Booted {
		return nil
	}
	name := filepath.Join(dir, bootedFile)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("note the image's sequence: %w", err)
	}
	if err := atomicfile.WriteBytes(name, 0o644, []byte(strconv.FormatUint(uint64(sequence), 10)+"\n")); err != nil {
		return fmt.Errorf("note the image's sequence: %w", err)
	}
	return nil
}
