package squashfs

import (
	"fmt"
	"io"
	"slices"

	"github.com/klauspost/compress/zstd"
)

// image appends to the sink. Everything but the superblock is written in the
// order of its place.
type image struct {
	sink io.WriterAt
	end  int64
}

func (m *image) append(b []byte) error {
	if _, err := m.sink.WriteAt(b, m.end); err != nil {
		return fmt.Errorf("write image: %w", err)
	}
	m.end += int64(len(b))
	return nil
}

// metadata collects one table of metadata: a stream of bytes, cut into blocks
// that are compressed one by one.
type metadata struct {
	encoder *zstd.Encoder
	block   []byte // not yet full
	packed  []byte // the blocks before it, as in the image
	scratch []byte
}

// position returns where the next byte will lie: the offset of its block in
// the table and its own offset in that block.
func (m *metadata) position() (block int64, offset uint16) {
	return int64(len(m.packed)), uint16(len(m.block))
}

func (m *metadata) write(b []byte) {
	for len(b) > 0 {
		n := min(len(b), metadataSize-len(m.block))
		m.block = append(m.block, b[:n]...)
		b = b[n:]
		if len(m.block) == metadataSize {
			m.flush()
		}
	}
}

// flush ends the current block, if it has begun.
func (m *metadata) flush() {
	if len(m.block) == 0 {
		return
	}
	m.scratch = m.encoder.EncodeAll(m.block, m.scratch[:0])
	stored, header := m.scratch, uint16(len(m.scratch))
	if len(stored) >= len(m.block) {
		stored, header = m.block, uint16(len(m.block))|metadataRaw
	}
	m.packed = slices.Grow(m.packed, 2+len(stored))
	m.packed = little.AppendUint16(m.packed, header)
	m.packed = append(m.packed, stored...)
	m.block = m.block[:0]
}

// appendTable writes a table that is found by a list of its metadata blocks,
// and returns where that list lies. entry sizes divide metadataSize, so that
// no entry is cut.
func (m *image) appendTable(encoder *zstd.Encoder, entries []byte) (uint64, error) {
	var list []byte
	table := &metadata{encoder: encoder}
	for part := range slices.Chunk(entries, metadataSize) {
		list = little.AppendUint64(list, uint64(m.end)+uint64(len(table.packed)))
		table.write(part)
		table.flush()
	}
	if err := m.append(table.packed); err != nil {
		return 0, err
	}
	at := uint64(m.end)
	return at, m.append(list)
}
