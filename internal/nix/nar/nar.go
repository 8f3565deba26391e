// Package nar reads and writes Nix archives: the one serialisation of a file
// tree that Nix hashes, signs and sends (Nix manual, "Nix Archive (NAR)
// format"). Writing is deterministic, reading is strict: what Read accepts is
// exactly what Write would have written for that tree.
//
// It compresses nothing and keeps no file in memory.
package nar

import (
	"errors"
	"fmt"
)

const (
	magic = "nix-archive-1"

	// Limits of what is read; Linux could not hold more on disk anyway.
	maxName   = 255
	maxPath   = 4096
	maxTarget = 4095
	maxDepth  = 256 // folders within one another; bounds memory and open folders
)

// Kind is the type of a node.
type Kind int

// The three kinds that a store has.
const (
	Regular Kind = iota + 1
	Directory
	Symlink
)

func (k Kind) String() string {
	switch k {
	case Regular:
		return "regular"
	case Directory:
		return "directory"
	case Symlink:
		return "symlink"
	}
	return fmt.Sprintf("Kind(%d)", int(k))
}

// Header describes one node.
type Header struct {
	Path       string // "" for the root, else "a/b" relative to it
	Kind       Kind
	Executable bool   // of a regular file
	Size       int64  // of a regular file, bytes
	Target     string // of a symlink
}

// ErrFormat is in every error about the archive's bytes, to tell them from
// errors of the source or the disk.
var ErrFormat = errors.New("not a valid NAR")

func formatError(text string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(text, args...))
}
