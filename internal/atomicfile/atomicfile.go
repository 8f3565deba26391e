// Package atomicfile writes files that appear under their final name only when
// they are whole: temporary file in the same folder, fsync, rename, fsync of
// the folder. On any failure nothing is left behind, and what had the name
// before is untouched.
//
// It does not lock: of two writers to one name the later wins, whole. After a
// kill -9 or a power cut a hidden ".NAME.RANDOM.tmp" may be left; it is never
// read.
package atomicfile

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Write writes a file through one function. perm is subject to the umask, as
// with os.OpenFile.
func Write(path string, perm fs.FileMode, write func(w io.Writer) error) error {
	f, err := Create(path, perm)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		return errors.Join(err, f.Abort())
	}
	return f.Commit()
}

// WriteBytes writes a file whose content is at hand.
func WriteBytes(path string, perm fs.FileMode, data []byte) error {
	return Write(path, perm, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// File is a file that is being written. Exactly one of Commit and Abort makes
// its fate; Abort after Commit does nothing, so it can be deferred.
type File struct {
	path, temp string
	file       *os.File
	want       int64
	fresh      bool // the name must be free
	done       bool
}

// Create begins a file. Its folder must exist.
func Create(path string, perm fs.FileMode) (*File, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("create %q: %w", path, err)
	}
	if st, err := os.Lstat(path); err == nil {
		if st.IsDir() {
			return nil, fmt.Errorf("create %q: it is a folder; choose another name or remove it", path)
		}
		if !st.Mode().IsRegular() && st.Mode()&fs.ModeSymlink == 0 {
			return nil, fmt.Errorf("create %q: refusing to replace a device, pipe or socket", path)
		}
	}
	temp := tempName(path)
	file, err := os.OpenFile(temp, os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return nil, explain("create", path, 0, err)
	}
	return &File{path: path, temp: temp, file: file}, nil
}

// tempName is beside path, hidden, and never longer than a name may be.
func tempName(path string) string {
	dir, base := filepath.Split(path)
	if len(base) > 200 {
		base = base[:200]
	}
	var random [6]byte
	rand.Read(random[:]) // documented never to fail
	return dir + "." + base + "." + hex.EncodeToString(random[:]) + ".tmp"
}

// Path is the final name, absolute.
func (f *File) Path() string { return f.path }

// TempPath is the name under which the content can be read before Commit.
func (f *File) TempPath() string { return f.temp }

// Expect says how many bytes the file will have. It fails at once if the file
// system has not that much room, before anything is written.
func (f *File) Expect(size int64) error {
	f.want = size
	return checkRoom(f.path, size)
}

// Write implements io.Writer.
func (f *File) Write(p []byte) (int, error) {
	n, err := f.file.Write(p)
	return n, f.explain("write", err)
}

// WriteAt implements io.WriterAt.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.file.WriteAt(p, off)
	return n, f.explain("write", err)
}

// ReadFrom implements io.ReaderFrom, so that io.Copy can copy inside the kernel.
func (f *File) ReadFrom(r io.Reader) (int64, error) {
	n, err := f.file.ReadFrom(r)
	return n, f.explain("write", err)
}

// ReadAt implements io.ReaderAt over what was written so far.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.file.ReadAt(p, off) }

// Read implements io.Reader at the position that Seek set.
func (f *File) Read(p []byte) (int, error) { return f.file.Read(p) }

// Seek implements io.Seeker.
func (f *File) Seek(offset int64, whence int) (int64, error) { return f.file.Seek(offset, whence) }

// Truncate sets the length; a longer one reads as zeros.
func (f *File) Truncate(size int64) error { return f.explain("write", f.file.Truncate(size)) }

func (f *File) explain(verb string, err error) error {
	if err == nil || err == io.EOF { //nolint:errorlint // io.EOF is passed on as it is
		return err
	}
	return explain(verb, f.path, f.want, err)
}

// Commit makes the content durable and gives the file its name. On failure
// everything is as after Abort.
func (f *File) Commit() error {
	if err := f.finish(); err != nil {
		return err
	}
	if err := f.publish(); err != nil {
		return err
	}
	return syncDir(filepath.Dir(f.path))
}

// finish makes the content durable under the temporary name.
func (f *File) finish() error {
	if f.done {
		panic("BUG: atomicfile: commit of a finished file")
	}
	err := f.file.Sync()
	if err == nil {
		err = f.file.Close()
	}
	if err != nil {
		return errors.Join(f.explain("write", err), f.Abort())
	}
	return nil
}

func (f *File) publish() error {
	if err := f.rename(); err != nil {
		cause := f.explain("write", renameCause(err))
		if f.fresh && errors.Is(err, fs.ErrExist) {
			cause = taken(f.path)
		}
		return errors.Join(cause, f.Abort())
	}
	f.done = true
	return nil
}

// Abort removes what was written. Its error matters only if it says that
// something was left behind.
func (f *File) Abort() error {
	if f.done {
		return nil
	}
	f.done = true
	f.file.Close() // the content is thrown away; may be closed already
	if err := os.Remove(f.temp); err != nil {
		return fmt.Errorf("remove temporary file: %w", err)
	}
	return nil
}
