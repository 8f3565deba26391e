package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// CreateNew begins a file whose name must be free, now and at Commit: for what
// must never be overwritten, as a key. Otherwise the error is fs.ErrExist.
func CreateNew(path string, perm fs.FileMode) (*File, error) {
	if _, err := os.Lstat(path); err == nil {
		return nil, taken(path)
	}
	f, err := Create(path, perm)
	if err != nil {
		return nil, err
	}
	f.fresh = true
	return f, nil
}

// CreateNew begins a file of the set whose name must be free, see the
// function. A set that finds one taken at Commit keeps the files before it.
func (s *Set) CreateNew(path string, perm fs.FileMode) (*File, error) {
	f, err := CreateNew(path, perm)
	if err != nil {
		return nil, err
	}
	s.files = append(s.files, f)
	return f, nil
}

func taken(path string) error {
	return fmt.Errorf("create %q: %w; refusing to replace it: choose another name or move it away", path, fs.ErrExist)
}

// rename gives the file its name. What has the name already is replaced,
// unless the file is fresh: then the kernel itself refuses, so that of two
// programs only one wins.
func (f *File) rename() error {
	if !f.fresh {
		return os.Rename(f.temp, f.path)
	}
	err := unix.Renameat2(unix.AT_FDCWD, f.temp, unix.AT_FDCWD, f.path, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // a file system without it, as NFS
		if err = os.Link(f.temp, f.path); err == nil {
			err = os.Remove(f.temp)
		}
	}
	if errors.Is(err, fs.ErrExist) {
		return fs.ErrExist
	}
	return err
}
