package squashfs

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"math"

	"golang.org/x/sys/unix"
)

// content says where a file's bytes lie in the image. Identical files share
// one content.
type content struct {
	start    int64    // of the first block that takes space
	sizes    []uint32 // one word a full block; 0 is a block of zeros
	sparse   uint64   // bytes of the blocks of zeros
	fragment uint32   // block that holds the tail, or noFragment
	offset   uint32   // of the tail in that block
}

// long reports whether a file of this content needs the long inode.
func (c *content) long(size int64) bool {
	return c.start > math.MaxUint32 || size > math.MaxUint32 || c.sparse > 0
}

// hostFile reads a regular file without the bookkeeping of os.File, which
// costs more than reading a small file does. It is not safe for use after
// close.
type hostFile struct {
	fd   int
	path string
}

// openHost opens a path that was a regular file when the tree was walked.
// Should something else be there by now, opening it neither follows a link nor
// waits for a fifo's writer.
func openHost(path string) (*hostFile, error) {
	f := &hostFile{path: path}
	err := retry(func() (err error) {
		f.fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		return err
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return f, nil
}

// Read implements io.Reader.
func (f *hostFile) Read(p []byte) (n int, err error) {
	err = retry(func() (err error) {
		n, err = unix.Read(f.fd, p)
		return err
	})
	if err != nil {
		return 0, &fs.PathError{Op: "read", Path: f.path, Err: err}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// skipHole moves on from the offset at, but not beyond end, by as many whole
// units as lie in a hole, and returns how many bytes that are. Where the file
// system knows of no holes, it is 0.
func (f *hostFile) skipHole(at, end, unit int64) (int64, error) {
	data, err := unix.Seek(f.fd, at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // a hole up to the end of the file
		data = end
	case err != nil:
		data = at
	}
	skip := max(0, min(data, end)-at) / unit * unit
	if _, err := unix.Seek(f.fd, at+skip, io.SeekStart); err != nil {
		return 0, &fs.PathError{Op: "seek", Path: f.path, Err: err}
	}
	return skip, nil
}

// Close implements io.Closer. The file was only read, so nothing can be lost.
func (f *hostFile) Close() error { return unix.Close(f.fd) }

// open returns a reader of the file's content.
func (n *node) open() (io.ReadCloser, error) {
	if n.inMemory {
		return io.NopCloser(bytes.NewReader(n.data)), nil
	}
	return openHost(n.path())
}

// readBlock fills buf[:want] from r. If last, r must end there, which reading
// one byte more shows; buf has room for it.
func (n *node) readBlock(r io.Reader, buf []byte, want int, last bool) ([]byte, error) {
	ask := want
	if last {
		ask++
	}
	got, err := io.ReadFull(r, buf[:ask])
	switch {
	case err == nil && last:
		return nil, fmt.Errorf("%q grew beyond its %d bytes while the image was written; leave the tree alone and try again", n.path(), n.size)
	case err == nil, last && got == want && ended(err):
		return buf[:want], nil
	case ended(err):
		return nil, fmt.Errorf("%q became shorter than its %d bytes while the image was written; leave the tree alone and try again", n.path(), n.size)
	}
	return nil, err
}

// blocks returns in how many blocks of blockSize the file is read, the tail
// included; an empty file is read as one, so that its growing is noticed.
func (n *node) blocks(blockSize int) int {
	return max(1, int((n.size+int64(blockSize)-1)/int64(blockSize)))
}

// fingerprint tells files apart that differ. Two files with the same one are
// candidates: only comparing them shows that they are identical.
type fingerprint struct {
	size int64
	hash uint64
}

// duplicates knows the files whose content is already in the image.
type duplicates struct {
	seed   maphash.Seed
	known  map[fingerprint][]*node
	large  map[int64]bool // sizes of the files that were too large to be read ahead
	buffer [2][]byte
}

func newDuplicates() *duplicates {
	d := &duplicates{seed: maphash.MakeSeed(), known: map[fingerprint][]*node{}, large: map[int64]bool{}}
	d.buffer[0], d.buffer[1] = make([]byte, 64<<10), make([]byte, 64<<10)
	return d
}

// find returns the content of an earlier file that is identical to n, or nil.
// The seed of the hash is random, so that nobody can build a tree of false
// candidates; the answer does not depend on it, because the bytes decide.
func (d *duplicates) find(n *node, hash uint64) (*content, error) {
	for _, other := range d.known[fingerprint{n.size, hash}] {
		same, err := d.identical(n, other)
		if err != nil {
			return nil, fmt.Errorf("compare %q with %q: %w", n.path(), other.path(), err)
		}
		if same {
			return other.content, nil
		}
	}
	return nil, nil
}

func (d *duplicates) add(n *node, hash uint64) {
	key := fingerprint{n.size, hash}
	d.known[key] = append(d.known[key], n)
}

// identical compares two files of the same size byte by byte.
func (d *duplicates) identical(a, b *node) (same bool, err error) {
	ra, err := a.open()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, ra.Close()) }()
	rb, err := b.open()
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, rb.Close()) }()
	for size := int64(0); ; {
		na, erra := io.ReadFull(ra, d.buffer[0])
		nb, errb := io.ReadFull(rb, d.buffer[1])
		if !bytes.Equal(d.buffer[0][:na], d.buffer[1][:nb]) {
			return false, nil
		}
		size += int64(na)
		if erra != nil || errb != nil {
			return ended(erra) && ended(errb) && size == a.size, errors.Join(hard(erra), hard(errb))
		}
	}
}

// ended reports whether io.ReadFull met the end of its input.
func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// hard returns err unless it only says that the input ended.
func hard(err error) error {
	if ended(err) {
		return nil
	}
	return err
}

// hashOf reads n whole and returns its hash.
func (d *duplicates) hashOf(n *node) (sum uint64, err error) {
	r, err := n.open()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var h maphash.Hash
	h.SetSeed(d.seed)
	if _, err := io.CopyBuffer(&h, io.LimitReader(r, n.size), d.buffer[0]); err != nil {
		return 0, err
	}
	return h.Sum64(), nil
}

// allZero reports whether b holds nothing but zeros. Comparing b with itself,
// one byte on, is the quickest way that needs no unsafe code.
func allZero(b []byte) bool {
	return len(b) > 0 && b[0] == 0 && bytes.Equal(b[:len(b)-1], b[1:])
}
