package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// SpaceError is a full file system, quota or file size limit.
type SpaceError struct {
	Path    string // the file that could not be written
	Folder  string // the folder that lies on the full file system
	Free    int64  // bytes that we may still use there, -1 if unknown
	Missing int64  // bytes beyond Free that were needed, 0 if unknown
	Err     error
}

func (e *SpaceError) Error() string {
	text := fmt.Sprintf("write %q: %v: folder %q", e.Path, e.Err, e.Folder)
	if e.Free >= 0 {
		text += fmt.Sprintf(" has %s free", size(e.Free))
	} else {
		text += " is full"
	}
	if e.Missing > 0 {
		text += fmt.Sprintf(", %s more are needed", size(e.Missing))
	}
	return text + "; free some space or choose a folder on another disk"
}

func (e *SpaceError) Unwrap() error { return e.Err }

func size(n int64) string {
	switch {
	case n >= 10<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 10<<10:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

// explain turns an error of the operating system into one that names the
// final file instead of the temporary one, and the way out.
func explain(verb, path string, want int64, err error) error {
	dir := filepath.Dir(path)
	cause := err
	var pe *fs.PathError
	if errors.As(err, &pe) {
		cause = pe.Err // its path is the temporary name
	}
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return spaceError(path, want, cause)
	case errors.Is(err, unix.EFBIG):
		return fmt.Errorf("%s %q: %w: the file system of folder %q or a limit (ulimit -f) forbids files of that size; "+
			"choose a folder on another file system", verb, path, cause, dir)
	case errors.Is(err, unix.EROFS):
		return fmt.Errorf("%s %q: %w: folder %q is on a read-only file system; choose another folder", verb, path, cause, dir)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s %q: %w: folder %q is not writable by this user; choose another folder or change its owner", verb, path, cause, dir)
	case errors.Is(err, unix.ENOTDIR):
		return fmt.Errorf("%s %q: %w: a part of %q is a file; choose another folder", verb, path, cause, dir)
	case verb == "create" && errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s %q: %w: folder %q does not exist; create it first", verb, path, cause, dir)
	}
	return fmt.Errorf("%s %q: %w", verb, path, cause)
}

func spaceError(path string, want int64, cause error) error {
	e := &SpaceError{Path: path, Folder: filepath.Dir(path), Free: free(filepath.Dir(path)), Err: cause}
	if e.Free >= 0 && want > e.Free {
		e.Missing = want - e.Free
	}
	return e
}

// free returns the bytes that an ordinary user may still use below dir, or -1.
func free(dir string) int64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return -1
	}
	return int64(st.Bavail) * st.Bsize
}

// checkRoom refuses a size that the file system of path cannot take.
func checkRoom(path string, want int64) error {
	room := free(filepath.Dir(path))
	if room < 0 || want <= room {
		return nil
	}
	return spaceError(path, want, unix.ENOSPC)
}

// renameCause strips the two names from a rename's error: one is temporary.
func renameCause(err error) error {
	var le *os.LinkError
	if errors.As(err, &le) {
		return le.Err
	}
	return err
}

// syncDir makes renames in a folder durable. Some file systems cannot (EINVAL):
// there is nothing more that we could do for them.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("sync folder %q: %w", dir, err)
	}
	return nil
}
