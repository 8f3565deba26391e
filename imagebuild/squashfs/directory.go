package squashfs

import "math"

// tables builds the inode and the directory table. Children come before their
// folder, because a folder's listing names its children's places.
type tables struct {
	inodes, dirs metadata
	mtime        uint32
	parentOfRoot uint32
	refs         []byte // place of each inode, by number: the export table
	scratch      []byte
}

// build adds all that is below dir, and dir's listing.
func (t *tables) build(dir *node) *listing {
	lists := make(map[*node]*listing)
	for _, c := range dir.children {
		if c.kind == typeDir {
			lists[c] = t.build(c)
		}
	}
	for _, c := range dir.children {
		t.inode(c, lists[c])
	}
	list := t.list(dir)
	list.subdirs = uint32(len(lists))
	return list
}

// inode adds the inode of n.
func (t *tables) inode(n *node, list *listing) {
	parent := t.parentOfRoot
	if n.parent != nil {
		parent = n.parent.number
	}
	block, offset := t.inodes.position()
	n.ref = uint64(block)<<16 | uint64(offset)
	little.PutUint64(t.refs[8*(n.number-1):], n.ref)
	t.scratch = appendInode(t.scratch[:0], n, list, t.mtime, parent)
	t.inodes.write(t.scratch)
}

// list adds the listing of dir: runs of entries behind headers. A run ends
// after maxRun entries, where the inodes of the next entry lie in another
// metadata block, where its inode number is too far away, and where the
// listing itself enters a new metadata block: the kernel enters the listing
// there when it searches for a name.
func (t *tables) list(dir *node) *listing {
	block, offset := t.dirs.position()
	list := &listing{start: uint32(block), offset: offset}
	entered := int64(0) // metadata block of the listing that has an index last
	for rest := dir.children; len(rest) > 0; {
		run, size := t.run(rest, int64(offset)+list.size)
		at := (int64(offset) + list.size) / metadataSize
		if at > entered && len(list.indexes) < maxIndexes {
			entered = at
			block, _ := t.dirs.position()
			list.indexes = append(list.indexes, dirIndex{uint32(list.size), uint32(block), rest[0].name})
		}
		t.dirs.write(t.appendRun(rest[:run]))
		list.size += size
		rest = rest[run:]
	}
	return list
}

// headerSize and entrySize are the lengths of a header and of an entry without
// its name.
const (
	headerSize = 12
	entrySize  = 8
)

// run returns how many of the nodes go behind one header that is written at
// the given distance from the start of the listing's first metadata block, and
// how many bytes they take with it.
func (t *tables) run(nodes []*node, at int64) (count int, size int64) {
	first := nodes[0]
	size = headerSize
	for _, n := range nodes {
		delta := int64(n.number) - int64(first.number)
		if count > 0 && (count == maxRun || n.ref>>16 != first.ref>>16 ||
			delta > math.MaxInt16 || delta < math.MinInt16 ||
			(at+size)/metadataSize != at/metadataSize) {
			break
		}
		size += entrySize + int64(len(n.name))
		count++
	}
	return count, size
}

func (t *tables) appendRun(nodes []*node) []byte {
	first := nodes[0]
	b := t.scratch[:0]
	b = little.AppendUint32(b, uint32(len(nodes)-1))
	b = little.AppendUint32(b, uint32(first.ref>>16))
	b = little.AppendUint32(b, first.number)
	for _, n := range nodes {
		b = little.AppendUint16(b, uint16(n.ref))
		b = little.AppendUint16(b, uint16(int64(n.number)-int64(first.number)))
		b = little.AppendUint16(b, n.kind)
		b = little.AppendUint16(b, uint16(len(n.name)-1))
		b = append(b, n.name...)
	}
	t.scratch = b
	return b
}
