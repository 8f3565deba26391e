package repo

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// packObject is one object of a pack.
type packObject struct {
	offset   int64
	kind     plumbing.ObjectType // of the entry: a delta or a real type
	size     int64               // of the entry's data, inflated
	target   int64               // deltas: size of the object that it makes
	crc      uint32
	hash     plumbing.Hash // of the object; deltas: once it is resolved
	resolved bool
	base     plumbing.Hash // REF_DELTA: the object that it changes
	baseAt   int64         // OFS_DELTA: likewise, by offset
}

// pack is a received pack whose limits were kept.
type pack struct {
	objects  []packObject
	checksum plumbing.Hash
}

// receivePack copies a pack into a file while it comes and looks at every
// object on the way, so that a pack that is too big ends at the first byte
// that shows it. Objects that are whole are hashed; deltas wait for resolve.
func receivePack(r io.Reader, file *os.File, limits Limits) (*pack, error) {
	scanner := packfile.NewScanner(io.TeeReader(r, file))
	_, count, err := scanner.Header()
	if err != nil {
		return nil, fmt.Errorf("read the pack: %w", err)
	}
	if int64(count) > int64(limits.Objects) {
		return nil, tooMany("objects", int64(limits.Objects), "objects")
	}
	p := &pack{objects: make([]packObject, 0, count)}
	var inflated int64
	for range count {
		o, err := receiveObject(scanner, limits)
		if err != nil {
			return nil, err
		}
		inflated += o.size + o.target
		if inflated > limits.Inflated {
			return nil, tooMany("inflated bytes", limits.Inflated, "bytes")
		}
		p.objects = append(p.objects, o)
	}
	if p.checksum, err = scanner.Checksum(); err != nil {
		return nil, fmt.Errorf("read the pack: %w", err)
	}
	return p, p.checkEnd(r, file)
}

// checkEnd refuses bytes behind the pack: the scanner reads ahead and would not
// notice them.
func (p *pack) checkEnd(r io.Reader, file *os.File) error {
	n, err := io.Copy(io.Discard, io.LimitReader(r, 1))
	if err != nil {
		return fmt.Errorf("read the end of the pack: %w", err)
	}
	size, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	var last plumbing.Hash
	if _, err := file.ReadAt(last[:], size-int64(len(last))); err != nil {
		return fmt.Errorf("read the end of the pack: %w", err)
	}
	if n != 0 || last != p.checksum {
		return fmt.Errorf("read the pack: bytes behind its %d objects", len(p.objects))
	}
	return nil
}

func receiveObject(scanner *packfile.Scanner, limits Limits) (packObject, error) {
	h, err := scanner.NextObjectHeader()
	if err != nil {
		return packObject{}, fmt.Errorf("read the pack: %w", err)
	}
	o := packObject{offset: h.Offset, kind: h.Type, size: h.Length, base: h.Reference, baseAt: h.OffsetReference}
	if o.size > limits.Object {
		return o, tooMany("object size", limits.Object, "bytes in one object")
	}
	hasher := plumbing.NewHasher(h.Type, h.Length)
	var head prefix
	var sink io.Writer = hasher
	switch h.Type {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
	case plumbing.OFSDeltaObject, plumbing.REFDeltaObject:
		sink = &head
	default:
		return o, fmt.Errorf("read the pack: object of type %d at %d", h.Type, h.Offset)
	}
	n, crc, err := scanner.NextObject(sink)
	if err != nil {
		return o, fmt.Errorf("read the pack: object at %d: %w", h.Offset, err)
	}
	if n != h.Length {
		return o, fmt.Errorf("read the pack: object at %d has %d bytes, not %d as announced", h.Offset, n, h.Length)
	}
	o.crc = crc
	if !h.Type.IsDelta() {
		o.hash, o.resolved = hasher.Sum(), true
		return o, nil
	}
	if o.target, err = deltaTarget(head.data); err != nil {
		return o, fmt.Errorf("read the pack: delta at %d: %w", h.Offset, err)
	}
	if o.target > limits.Object {
		return o, tooMany("object size", limits.Object, "bytes in one object")
	}
	return o, nil
}

// prefix keeps the first bytes of what is written.
type prefix struct{ data []byte }

func (p *prefix) Write(b []byte) (int, error) {
	const most = 20 // two sizes of at most 10 bytes
	p.data = append(p.data, b[:min(len(b), most-len(p.data))]...)
	return len(b), nil
}

// resolver finds the hashes of deltas.
type resolver struct {
	pack     *pack
	scanner  *packfile.Scanner
	limits   Limits
	byOffset map[int][]int           // OFS_DELTA, by index of the base
	byHash   map[plumbing.Hash][]int // REF_DELTA, by hash of the base
	held     int64                   // bytes of bases in memory
	check    func() error            // ends the work when the attempt is over
}

// resolve computes the hash of every delta. A base is held in memory only
// while one of its deltas is still to be made, and all of them together keep
// the limit.
func (p *pack) resolve(file io.ReadSeeker, limits Limits, check func() error) error {
	r := &resolver{
		pack: p, scanner: packfile.NewScanner(file), limits: limits, check: check,
		byOffset: map[int][]int{}, byHash: map[plumbing.Hash][]int{},
	}
	at := make(map[int64]int, len(p.objects))
	for i := range p.objects {
		o := &p.objects[i]
		at[o.offset] = i
		switch o.kind {
		case plumbing.OFSDeltaObject:
			base, ok := at[o.baseAt]
			if !ok {
				return fmt.Errorf("read the pack: the delta at %d names no object as its base", o.offset)
			}
			r.byOffset[base] = append(r.byOffset[base], i)
		case plumbing.REFDeltaObject:
			r.byHash[o.base] = append(r.byHash[o.base], i)
		}
	}
	for i := range p.objects {
		if p.objects[i].kind.IsDelta() {
			continue
		}
		if err := r.tree(i); err != nil {
			return err
		}
	}
	for i := range p.objects {
		if !p.objects[i].resolved {
			return fmt.Errorf("read the pack: the base of the delta at %d is not in the pack", p.objects[i].offset)
		}
	}
	return nil
}

// children takes the deltas that rest on an object whose hash is known.
func (r *resolver) children(i int) []int {
	hash := r.pack.objects[i].hash
	all := append(r.byOffset[i], r.byHash[hash]...)
	delete(r.byOffset, i)
	delete(r.byHash, hash)
	return all
}

// frame is a base with deltas that are still to be made.
type frame struct {
	content []byte
	todo    []int
}

// tree resolves everything that rests on one whole object, depth first.
func (r *resolver) tree(root int) error {
	kind := r.pack.objects[root].kind
	todo := r.children(root)
	if len(todo) == 0 {
		return nil
	}
	content, err := r.data(root)
	if err != nil {
		return err
	}
	r.held = int64(len(content))
	stack := []frame{{content, todo}}
	for len(stack) > 0 {
		top := &stack[len(stack)-1]
		child := top.todo[0]
		top.todo = top.todo[1:]
		base := top.content
		if len(top.todo) == 0 {
			r.held -= int64(len(base))
			stack = stack[:len(stack)-1]
		}
		made, err := r.make(kind, child, base)
		if err != nil {
			return err
		}
		if next := r.children(child); len(next) > 0 {
			r.held += int64(len(made))
			stack = append(stack, frame{made, next})
		}
	}
	return nil
}

// make applies one delta and notes the hash of what it makes, which is returned
// if anything can rest on it.
func (r *resolver) make(kind plumbing.ObjectType, i int, base []byte) ([]byte, error) {
	o := &r.pack.objects[i]
	if r.held+int64(len(base))+o.size+o.target > r.limits.Memory {
		return nil, tooMany("memory", r.limits.Memory, "bytes of objects at once")
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	delta, err := r.data(i)
	if err != nil {
		return nil, err
	}
	hasher := plumbing.NewHasher(kind, o.target)
	var content bytes.Buffer
	var sink io.Writer = hasher
	if len(r.byOffset[i]) > 0 || len(r.byHash) > 0 {
		content.Grow(int(o.target))
		sink = io.MultiWriter(hasher, &content)
	}
	if err := applyDelta(sink, base, delta); err != nil {
		return nil, fmt.Errorf("read the pack: the delta at %d does not fit its base: %w", o.offset, err)
	}
	o.hash, o.resolved = hasher.Sum(), true
	return content.Bytes(), nil
}

// data inflates one entry of the pack.
func (r *resolver) data(i int) ([]byte, error) {
	o := &r.pack.objects[i]
	if _, err := r.scanner.SeekObjectHeader(o.offset); err != nil {
		return nil, fmt.Errorf("read the pack again: %w", err)
	}
	var buf bytes.Buffer
	buf.Grow(int(o.size))
	if _, _, err := r.scanner.NextObject(&buf); err != nil {
		return nil, fmt.Errorf("read the pack again: %w", err)
	}
	return buf.Bytes(), nil
}
