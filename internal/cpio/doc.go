// Package cpio writes and reads the "newc" archives that Linux unpacks into
// its initramfs, and splits an initrd file into the archives that it is made
// of.
//
// The format is the kernel's, as described in
// Documentation/driver-api/early-userspace/buffer-format.rst. The writer is
// deterministic: owner and time are always 0, inode numbers are counted, and
// the caller decides the order. The reader is for bytes of unknown origin: it
// bounds every length and refuses names that could leave the folder that an
// archive is unpacked into.
//
// The package does not walk folders, does not unpack to disk, and does not
// know hard links: the writer never makes them, the reader shows the entries
// as they stand in the archive.
package cpio

import (
	"errors"
	"fmt"
	"strings"
)

// File type bits of [Header.Mode], as in inode(7).
const (
	TypeMask    = 0o170000
	TypeSocket  = 0o140000
	TypeSymlink = 0o120000
	TypeFile    = 0o100000
	TypeBlock   = 0o060000
	TypeDir     = 0o040000
	TypeChar    = 0o020000
	TypeFIFO    = 0o010000
)

const (
	magic      = "070701" // newc
	magicCRC   = "070702" // newc with a checksum of the body
	trailer    = "TRAILER!!!"
	headerSize = 6 + 13*8
	maxName    = 4096      // PATH_MAX with the closing NUL: the kernel skips longer names
	maxSize    = 1<<32 - 1 // eight hex digits
)

// Header is one entry of an archive. Name is relative to the root of the
// archive, without a leading "./" or "/" and without a trailing slash; the
// root itself is ".". Mode holds type and permission bits. Size is the length
// of the body in bytes. Major and Minor name the device of a device node.
type Header struct {
	Name                 string
	Mode                 uint32
	Size                 int64
	Major, Minor         uint32
	Ino, UID, GID, MTime uint32
}

// IsDir says whether the entry is a folder.
func (h *Header) IsDir() bool { return h.Mode&TypeMask == TypeDir }

// IsRegular says whether the entry is an ordinary file.
func (h *Header) IsRegular() bool { return h.Mode&TypeMask == TypeFile }

// IsSymlink says whether the entry is a symbolic link; its target is the body.
func (h *Header) IsSymlink() bool { return h.Mode&TypeMask == TypeSymlink }

var errName = errors.New("must be a relative path without \".\", \"..\" or empty parts")

// checkName accepts what both sides of this package may name: a clean
// relative path. The root folder "." is the reader's business alone.
func checkName(name string) error {
	if name == "" || len(name)+1 > maxName {
		return fmt.Errorf("name of %d bytes; allowed are 1 to %d", len(name), maxName-1)
	}
	if name == trailer {
		return fmt.Errorf("name %q marks the end of an archive", name)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return errors.New("name contains a NUL byte")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part == "." || part == ".." {
			return errName
		}
	}
	return nil
}

func pad4(n int64) int64 { return -n & 3 }
