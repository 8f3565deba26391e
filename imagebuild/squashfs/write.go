package squashfs

import (
	"context"
	"fmt"
	"io"
)

// Stats says what Write put into an image.
type Stats struct {
	// Size is the length of the image in bytes, a multiple of 4096.
	Size int64
	// Inodes counts everything: files, folders (the root too) and links.
	Inodes, Files, Dirs, Symlinks int
	// ContentBytes is the sum of the files' sizes.
	ContentBytes int64
	// Duplicates are files that share the blocks of an earlier, identical
	// file, and DuplicateBytes the sum of their sizes.
	Duplicates     int
	DuplicateBytes int64
	// Blocks counts the stored blocks, fragment blocks included; Fragments
	// the latter alone.
	Blocks, Fragments int
}

// Write writes an image of src to w, from offset 0 on. w is written in order,
// except for the superblock, which comes last: a cut-short image is not taken
// for a whole one. Nothing is written if the tree cannot be read or does not
// fit the format.
//
// When ctx ends, Write returns its error. An error about a file of the source
// names it; w then holds a broken image that the caller removes.
func Write(ctx context.Context, w io.WriterAt, src Source, opt Options) (Stats, error) {
	opt, err := opt.withDefaults()
	if err != nil {
		return Stats{}, fmt.Errorf("squashfs: %w", err)
	}
	t, err := walk(ctx, src, opt.Workers)
	if err != nil {
		return Stats{}, fmt.Errorf("squashfs: %w", err)
	}
	if err := checkLimits(t, opt.BlockSize); err != nil {
		return Stats{}, fmt.Errorf("squashfs: %w", err)
	}
	img := &image{sink: w, end: dataStart}
	p := newPipeline(opt, t, img)
	if err := p.run(ctx); err != nil {
		return Stats{}, fmt.Errorf("squashfs: %w", err)
	}
	if err := writeTables(img, t, p, opt); err != nil {
		return Stats{}, fmt.Errorf("squashfs: %w", err)
	}
	stats := p.stats
	stats.Size = img.end
	stats.Inodes, stats.Files, stats.Dirs, stats.Symlinks = t.nodes, len(t.files), t.dirs, t.links
	stats.ContentBytes = t.bytes
	stats.Fragments = int(p.fragments)
	return stats, nil
}

// writeTables writes all that comes after the data, and the superblock.
func writeTables(img *image, t *tree, p *pipeline, opt Options) error {
	encoder, err := newEncoder(opt.Level, metadataSize)
	if err != nil {
		return fmt.Errorf("set up zstd: %w", err)
	}
	tab := &tables{
		inodes: metadata{encoder: encoder}, dirs: metadata{encoder: encoder},
		mtime: opt.MTime, parentOfRoot: uint32(t.nodes) + 1, refs: make([]byte, 8*t.nodes),
	}
	tab.inode(t.root, tab.build(t.root))
	tab.inodes.flush()
	tab.dirs.flush()
	s := superblock{
		inodes: uint32(t.nodes), fragments: p.fragments, mtime: opt.MTime,
		blockSize: opt.BlockSize, root: t.root.ref, level: levels[opt.Level].zstd,
	}
	s.inodeTable = uint64(img.end)
	if err := img.append(tab.inodes.packed); err != nil {
		return err
	}
	s.dirTable = uint64(img.end)
	if err := img.append(tab.dirs.packed); err != nil {
		return err
	}
	for _, table := range []struct {
		at      *uint64
		entries []byte
	}{
		{&s.fragmentTable, p.table},
		{&s.export, tab.refs},
		{&s.ids, []byte{0, 0, 0, 0}}, // the only id: root's
	} {
		if *table.at, err = img.appendTable(encoder, table.entries); err != nil {
			return err
		}
	}
	s.used = uint64(img.end)
	if rest := img.end % padTo; rest > 0 {
		if err := img.append(make([]byte, padTo-rest)); err != nil {
			return err
		}
	}
	if _, err := img.sink.WriteAt(s.encode(), 0); err != nil {
		return fmt.Errorf("write image: superblock: %w", err)
	}
	return nil
}
