package disk

import "io"

// Run is a piece of a file that lies in one place, in bytes.
type Run struct{ Offset, Size int64 }

// OpenRuns reads runs of r one after another as one file.
func OpenRuns(r io.ReaderAt, runs []Run) *io.SectionReader {
	if len(runs) == 1 {
		return io.NewSectionReader(r, runs[0].Offset, runs[0].Size)
	}
	var size int64
	for _, run := range runs {
		size += run.Size
	}
	return io.NewSectionReader(runsReader{r, runs}, 0, size)
}

type runsReader struct {
	r    io.ReaderAt
	runs []Run
}

func (m runsReader) ReadAt(b []byte, off int64) (n int, err error) {
	for _, run := range m.runs {
		if n == len(b) {
			return n, nil
		}
		if off >= run.Size {
			off -= run.Size
			continue
		}
		part := b[n:min(int64(len(b)), int64(n)+run.Size-off)]
		got, err := m.r.ReadAt(part, run.Offset+off)
		n += got
		if got < len(part) {
			return n, err
		}
		off = 0
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
