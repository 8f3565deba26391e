package nar

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sort"

	"golang.org/x/sys/unix"
)

// bufferSize is how much of a file is read at once.
const bufferSize = 256 << 10

// Write streams the tree at path as a NAR. path itself may be a symlink, which
// is archived, not followed. Only regular files, folders and symlinks exist in
// a store: anything else is an error, and so is a file that changes meanwhile.
func Write(w io.Writer, path string) error {
	return WriteFunc(w, path, nil)
}

// WriteFunc is Write that also tells of each node before it is written. seen
// may end the walk by an error.
func WriteFunc(w io.Writer, path string, seen func(h Header) error) error {
	tw := &treeWriter{w: w, seen: seen}
	tw.text(magic)
	if err := tw.node(path, ""); err != nil {
		return err
	}
	return tw.flush()
}

// treeWriter gathers the small words between file contents in one buffer.
type treeWriter struct {
	w     io.Writer
	seen  func(h Header) error
	words []byte
	buf   []byte
}

func (tw *treeWriter) text(words ...string) {
	for _, s := range words {
		tw.words = binary.LittleEndian.AppendUint64(tw.words, uint64(len(s)))
		tw.words = append(tw.words, s...)
		tw.words = append(tw.words, make([]byte, padding(int64(len(s))))...)
	}
}

func (tw *treeWriter) flush() error {
	_, err := tw.w.Write(tw.words)
	tw.words = tw.words[:0]
	return err
}

// padding is the number of zero bytes that fill n up to a multiple of 8.
func padding(n int64) int { return int(-n & 7) }

func (tw *treeWriter) node(path, rel string) error {
	st, err := os.Lstat(path)
	if err != nil {
		return err
	}
	switch mode := st.Mode(); {
	case mode.IsRegular():
		return tw.regular(path, rel, st)
	case mode.IsDir():
		return tw.directory(path, rel)
	case mode&os.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		if err := tw.tell(Header{Path: rel, Kind: Symlink, Target: target}); err != nil {
			return err
		}
		tw.text("(", "type", "symlink", "target", target, ")")
		return nil
	default:
		return fmt.Errorf("archive %q: a store holds files, folders and symlinks, this is a %s", path, describe(mode))
	}
}

func describe(mode os.FileMode) string {
	switch {
	case mode&os.ModeNamedPipe != 0:
		return "named pipe"
	case mode&os.ModeSocket != 0:
		return "socket"
	}
	return "device"
}

func (tw *treeWriter) tell(h Header) error {
	if tw.seen == nil {
		return nil
	}
	return tw.seen(h)
}

func (tw *treeWriter) directory(path, rel string) error {
	if err := tw.tell(Header{Path: rel, Kind: Directory}); err != nil {
		return err
	}
	names, err := readNames(path)
	if err != nil {
		return err
	}
	tw.text("(", "type", "directory")
	for _, name := range names {
		tw.text("entry", "(", "name", name, "node")
		below := name
		if rel != "" {
			below = rel + "/" + name
		}
		if err := tw.node(path+"/"+name, below); err != nil {
			return err
		}
		tw.text(")")
	}
	tw.text(")")
	return nil
}

func readNames(path string) ([]string, error) {
	d, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	sort.Strings(names) // by bytes, as Nix orders them
	return names, err
}

func (tw *treeWriter) regular(path, rel string, st os.FileInfo) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	h := Header{Path: rel, Kind: Regular, Executable: st.Mode()&0o100 != 0, Size: st.Size()}
	if err := tw.tell(h); err != nil {
		return err
	}
	tw.text("(", "type", "regular")
	if h.Executable {
		tw.text("executable", "")
	}
	tw.text("contents")
	tw.words = binary.LittleEndian.AppendUint64(tw.words, uint64(h.Size))
	if err := tw.contents(f, h.Size); err != nil {
		return err
	}
	tw.words = append(tw.words, make([]byte, padding(h.Size))...)
	tw.text(")")
	return nil
}

// contents copies exactly size bytes; one byte more or less means that the
// file is being changed and that the archive would be wrong.
func (tw *treeWriter) contents(f *os.File, size int64) error {
	if tw.buf == nil {
		tw.buf = make([]byte, bufferSize)
	}
	if size < int64(len(tw.buf)) { // most files: one write with the words before
		n, err := io.ReadFull(f, tw.buf[:size+1])
		if int64(n) != size || err != io.EOF && err != io.ErrUnexpectedEOF { // io.ReadFull returns them bare
			return changed(f, size, err)
		}
		tw.words = append(tw.words, tw.buf[:size]...)
		if len(tw.words) < bufferSize {
			return nil
		}
		return tw.flush()
	}
	if err := tw.flush(); err != nil {
		return err
	}
	for done := int64(0); done < size; {
		n, err := f.Read(tw.buf[:min(int64(len(tw.buf)), size-done)])
		if err != nil {
			return changed(f, size, err)
		}
		if _, err := tw.w.Write(tw.buf[:n]); err != nil {
			return err
		}
		done += int64(n)
	}
	if n, err := f.Read(tw.buf[:1]); n != 0 || err != io.EOF { // os.File returns it bare
		return changed(f, size, err)
	}
	return nil
}

func changed(f *os.File, size int64, err error) error {
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF { //nolint:errorlint // as above
		return err
	}
	return fmt.Errorf("archive %q: it changed while it was read (%d bytes at first)", f.Name(), size)
}
