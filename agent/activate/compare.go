package activate

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"xnodeos.org/internal/bootspec"
)

// Difference is what two systems do not share of the things that a switch
// cannot change.
type Difference struct {
	Kernel, Initrd, Params, Modules bool
	// Init: switch-to-configuration will ask for a reboot, because its
	// init-interface-version is another.
	Init bool
	// Inhibitors: the new system names something (its switch-inhibitors) that
	// must not be switched while it runs.
	Inhibitors bool
}

// Need is what a system needs beyond a switch.
type Need string

// Needs.
const (
	// NeedNothing: a switch is enough.
	NeedNothing Need = ""
	// NeedReboot: it has to be booted.
	NeedReboot Need = "reboot"
	// NeedArtifact: it has to be booted from a new image, because a live
	// machine boots what its medium has.
	NeedArtifact Need = "artifact"
)

// Needs says what follows from a difference on this medium
// (bootspec.MediumLive or MediumInstalled; no medium counts as installed).
func (d Difference) Needs(medium string) Need {
	if medium == bootspec.MediumLive {
		// Its initrd is the image's: a live system's own is never used.
		if d.Kernel || d.Params || d.Modules || d.Init || d.Inhibitors {
			return NeedArtifact
		}
		return NeedNothing
	}
	if d.Kernel || d.Initrd || d.Params || d.Init || d.Inhibitors {
		return NeedReboot
	}
	return NeedNothing
}

// String lists what differs: "kernel, parameters"; empty for nothing.
func (d Difference) String() string {
	var words []string
	for _, part := range []struct {
		differs bool
		word    string
	}{
		{d.Kernel, "kernel"}, {d.Initrd, "initrd"}, {d.Params, "kernel parameters"}, {d.Modules, "kernel modules"},
		{d.Init, "init interface"}, {d.Inhibitors, "switch inhibitors"},
	} {
		if part.differs {
			words = append(words, part.word)
		}
	}
	return strings.Join(words, ", ")
}

// Compare holds a candidate against the booted system, both toplevels, in the
// file system that begins at root.
func Compare(root, booted, candidate string) (Difference, error) {
	var d Difference
	for _, part := range []struct {
		file    string
		differs *bool
	}{
		{"kernel", &d.Kernel}, {"initrd", &d.Initrd}, {"kernel-params", &d.Params}, {"kernel-modules", &d.Modules},
		{"init-interface-version", &d.Init}, {"switch-inhibitors", &d.Inhibitors},
	} {
		same, err := sameFile(filepath.Join(root, booted, part.file), filepath.Join(root, candidate, part.file))
		if err != nil {
			return d, fmt.Errorf("compare %q of %q with %q: %w", part.file, candidate, booted, err)
		}
		*part.differs = !same
	}
	if !d.Inhibitors {
		return d, nil
	}
	// Only what the candidate names inhibits; a system without is free to come.
	_, err := os.Lstat(filepath.Join(root, candidate, "switch-inhibitors"))
	if errors.Is(err, fs.ErrNotExist) {
		d.Inhibitors, err = false, nil
	}
	return d, err
}

// sameFile compares two entries of systems: links by where they lead, which in
// a store says everything, and files by their bytes.
func sameFile(a, b string) (bool, error) {
	infoA, errA := os.Lstat(a)
	infoB, errB := os.Lstat(b)
	if errors.Is(errA, fs.ErrNotExist) || errors.Is(errB, fs.ErrNotExist) {
		return errors.Is(errA, fs.ErrNotExist) && errors.Is(errB, fs.ErrNotExist), nil
	}
	if err := errors.Join(errA, errB); err != nil {
		return false, err
	}
	linkA, linkB := infoA.Mode().Type() == fs.ModeSymlink, infoB.Mode().Type() == fs.ModeSymlink
	switch {
	case linkA && linkB:
		targetA, errA := os.Readlink(a)
		targetB, errB := os.Readlink(b)
		return targetA == targetB, errors.Join(errA, errB)
	case infoA.Mode().IsRegular() && infoB.Mode().IsRegular():
		if infoA.Size() != infoB.Size() {
			return false, nil
		}
		return sameBytes(a, b)
	default:
		return false, nil
	}
}

func sameBytes(a, b string) (bool, error) {
	fileA, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer fileA.Close()
	fileB, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer fileB.Close()
	partA, partB := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(fileA, partA)
		k, errB := io.ReadFull(fileB, partB)
		if !bytes.Equal(partA[:n], partB[:k]) {
			return false, nil
		}
		endA, endB := ended(errA), ended(errB)
		if errA != nil && !endA || errB != nil && !endB {
			return false, errors.Join(errA, errB)
		}
		if endA || endB {
			return endA == endB, nil
		}
	}
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
