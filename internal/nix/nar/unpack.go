package nar

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Unpack writes the archive's tree to dest, which must not exist, as Nix has
// it in a store: files 0444 or 0555, folders 0555, all times 1. On failure
// dest is removed again. Nothing is written through a symlink: every node is
// made inside the descriptor of its folder.
func Unpack(r io.Reader, dest string) error {
	if _, err := os.Lstat(dest); err == nil {
		return fmt.Errorf("unpack to %q: %w", dest, fs.ErrExist)
	}
	parent, err := unix.Open(filepath.Dir(dest), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("unpack to %q: open its folder: %w", dest, err)
	}
	u := &unpacker{r: NewReader(r), buf: make([]byte, bufferSize), dirs: []openDir{{fd: parent}}}
	err = u.run(filepath.Base(dest))
	for _, d := range u.dirs {
		unix.Close(d.fd) // only used to find names
	}
	if err != nil {
		return errors.Join(fmt.Errorf("unpack to %q: %w", dest, err), RemoveTree(dest))
	}
	return nil
}

type openDir struct {
	fd   int
	path string // within the archive
	name string // within its parent
}

type unpacker struct {
	r    *Reader
	buf  []byte
	dirs []openDir // from dest's parent inwards
}

func (u *unpacker) run(root string) error {
	for {
		h, err := u.r.Next()
		if errors.Is(err, io.EOF) {
			return u.leave(1)
		}
		if err != nil {
			return err
		}
		name := root
		if h.Path != "" {
			dir, base := "", h.Path
			if i := strings.LastIndexByte(h.Path, '/'); i >= 0 {
				dir, base = h.Path[:i], h.Path[i+1:]
			}
			for u.top().path != dir {
				if err := u.leave(len(u.dirs) - 1); err != nil {
					return err
				}
			}
			name = base
		}
		if err := u.make(h, name); err != nil {
			return fmt.Errorf("%q: %w", h.Path, err)
		}
	}
}

func (u *unpacker) top() openDir { return u.dirs[len(u.dirs)-1] }

func (u *unpacker) make(h *Header, name string) error {
	at := u.top().fd
	switch h.Kind {
	case Regular:
		return u.file(at, name, h)
	case Symlink:
		if err := unix.Symlinkat(h.Target, at, name); err != nil {
			return err
		}
		return setTimes(at, name)
	}
	if err := unix.Mkdirat(at, name, 0o700); err != nil {
		return err
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	u.dirs = append(u.dirs, openDir{fd: fd, path: h.Path, name: name})
	return nil
}

// setTimes gives a node the one time that everything in a store has.
func setTimes(at int, name string) error {
	return unix.UtimesNanoAt(at, name, []unix.Timespec{{Sec: 1}, {Sec: 1}}, unix.AT_SYMLINK_NOFOLLOW)
}

func (u *unpacker) file(at int, name string, h *Header) error {
	fd, err := unix.Openat(at, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close() // closed below when all went well
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{u.r}, u.buf); err != nil {
		return err
	}
	perm := fs.FileMode(0o444)
	if h.Executable {
		perm = 0o555
	}
	if err := f.Chmod(perm); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return setTimes(at, name)
}

// leave finishes and closes the innermost folders until only keep are open.
func (u *unpacker) leave(keep int) error {
	for len(u.dirs) > keep {
		d := u.top()
		if err := unix.Fchmod(d.fd, 0o555); err != nil {
			return fmt.Errorf("%q: %w", d.path, err)
		}
		u.dirs = u.dirs[:len(u.dirs)-1]
		if err := setTimes(u.top().fd, d.name); err != nil {
			return errors.Join(fmt.Errorf("%q: %w", d.path, err), unix.Close(d.fd))
		}
		if err := unix.Close(d.fd); err != nil {
			return err
		}
	}
	return nil
}

// RemoveTree removes a tree as a store has it, whose folders are read-only
// even for their owner. A path that does not exist is fine.
func RemoveTree(path string) error {
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(p, 0o700)
		}
		return nil // RemoveAll will say what is wrong
	})
	return errors.Join(err, os.RemoveAll(path))
}
