package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Set is several files that appear together: all content is durable before the
// first gets its name. The names then change one after the other, which is not
// one step for a reader, but every file is whole at any time. Abort removes
// also the folders that the set made. It is not safe for concurrent use,
// though its files are independent of one another.
type Set struct {
	files []*File
	dirs  []string // made by the set, parents first
	done  bool
}

// MkdirAll makes a folder and its parents for files of the set.
func (s *Set) MkdirAll(dir string, perm fs.FileMode) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return fmt.Errorf("make folder %q: %w", dir, err)
	}
	var missing []string
	for d := dir; ; d = filepath.Dir(d) {
		st, err := os.Stat(d)
		if err == nil {
			if !st.IsDir() {
				return fmt.Errorf("make folder %q: %q is a file; choose another folder", dir, d)
			}
			break
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return explain("make folder", d, 0, err)
		}
		missing = append(missing, d)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		err := os.Mkdir(missing[i], perm)
		if errors.Is(err, fs.ErrExist) {
			continue // somebody else made it meanwhile: it is theirs
		}
		if err != nil {
			return explain("make folder", missing[i], 0, err)
		}
		s.dirs = append(s.dirs, missing[i])
	}
	return nil
}

// Create begins a file of the set. The file must not be committed or aborted
// by itself.
func (s *Set) Create(path string, perm fs.FileMode) (*File, error) {
	f, err := Create(path, perm)
	if err != nil {
		return nil, err
	}
	s.files = append(s.files, f)
	return f, nil
}

// Commit makes all files durable, then gives them their names in the order of
// Create. If that fails half way, files that have their name keep it.
func (s *Set) Commit() error {
	for _, f := range s.files {
		if err := f.finish(); err != nil {
			return errors.Join(err, s.Abort())
		}
	}
	dirs := map[string]bool{}
	for _, d := range s.dirs {
		dirs[filepath.Dir(d)] = true
	}
	for _, f := range s.files {
		if err := f.publish(); err != nil {
			return errors.Join(err, s.Abort())
		}
		dirs[filepath.Dir(f.path)] = true
	}
	s.done = true
	var errs []error
	for d := range dirs {
		errs = append(errs, syncDir(d))
	}
	return errors.Join(errs...)
}

// Abort removes everything that the set made. After Commit it does nothing.
func (s *Set) Abort() error {
	if s.done {
		return nil
	}
	s.done = true
	var errs []error
	for _, f := range s.files {
		errs = append(errs, f.Abort())
	}
	for i := len(s.dirs) - 1; i >= 0; i-- {
		err := os.Remove(s.dirs[i])
		if err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EEXIST) {
			errs = append(errs, fmt.Errorf("remove folder: %w", err))
		}
	}
	return errors.Join(errs...)
}

// Dir is a whole folder that is being filled under a temporary name.
type Dir struct {
	path, temp string
	done       bool
}

// CreateDir begins a folder. Nothing may have its name; its parent must exist.
func CreateDir(path string, perm fs.FileMode) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("make folder %q: %w", path, err)
	}
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("make folder %q: %w", path, fs.ErrExist)
	}
	d := &Dir{path: path, temp: tempName(path)}
	if err := os.Mkdir(d.temp, perm); err != nil {
		return nil, explain("create", path, 0, err)
	}
	return d, nil
}

// TempPath is the folder to fill.
func (d *Dir) TempPath() string { return d.temp }

// Commit makes the whole content durable and gives the folder its name. If a
// folder with content has the name by now, the error is fs.ErrExist, and ours
// is gone.
func (d *Dir) Commit() error {
	if d.done {
		panic("BUG: atomicfile: commit of a finished folder")
	}
	if err := syncTree(d.temp); err != nil {
		return errors.Join(err, d.Abort())
	}
	if err := os.Rename(d.temp, d.path); err != nil {
		cause := renameCause(err)
		if errors.Is(cause, unix.ENOTEMPTY) || errors.Is(cause, unix.ENOTDIR) {
			cause = fs.ErrExist
		}
		return errors.Join(explain("make folder", d.path, 0, cause), d.Abort())
	}
	d.done = true
	return syncDir(filepath.Dir(d.path))
}

// Abort removes the folder with its content. After Commit it does nothing.
func (d *Dir) Abort() error {
	if d.done {
		return nil
	}
	d.done = true
	if err := os.RemoveAll(d.temp); err != nil {
		return fmt.Errorf("remove temporary folder: %w", err)
	}
	return nil
}

// syncTree writes out the file system that holds dir: one call instead of one
// fsync for each of what may be 10,000 files.
func syncTree(dir string) error {
	fd, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer fd.Close()
	if err := unix.Syncfs(int(fd.Fd())); err != nil {
		return explain("sync folder", dir, 0, err)
	}
	return nil
}
