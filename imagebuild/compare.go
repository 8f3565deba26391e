package imagebuild

import (
	"bytes"
	"errors"
	"fmt"
	"io"
)

// comparer is a writer that holds what it is given against an existing file.
// The writers of this package stream, so the same code that makes an artifact
// also says what every byte of it must be.
type comparer struct {
	have   io.Reader
	offset int64
	buf    []byte
}

// diffError is the first place where a file is not what its parts derive to.
type diffError struct {
	Offset int64
	Short  bool // the file ends here
	Long   bool // the file goes on where it should end
}

func (e *diffError) Error() string {
	switch {
	case e.Short:
		return fmt.Sprintf("ends at byte %d, which is too early", e.Offset)
	case e.Long:
		return fmt.Sprintf("goes on after byte %d, where it should end", e.Offset)
	default:
		return fmt.Sprintf("byte %d differs", e.Offset)
	}
}

// asDiff finds the difference in an error of whoever wrote to a comparer.
func asDiff(err error) (*diffError, bool) {
	var diff *diffError
	ok := errors.As(err, &diff)
	return diff, ok
}

func (c *comparer) Write(want []byte) (int, error) {
	if cap(c.buf) < len(want) {
		c.buf = make([]byte, len(want))
	}
	have := c.buf[:len(want)]
	n, err := io.ReadFull(c.have, have)
	if i := firstDifference(have[:n], want[:n]); i >= 0 {
		return i, &diffError{Offset: c.offset + int64(i)}
	}
	c.offset += int64(n)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return n, &diffError{Offset: c.offset, Short: true}
	}
	return n, err
}

// end says whether the file ends where the stream did.
func (c *comparer) end() error {
	var one [1]byte
	if n, err := io.ReadFull(c.have, one[:]); n > 0 {
		return &diffError{Offset: c.offset, Long: true}
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// firstDifference returns the index of the first byte that differs, the shorter
// length where one is the beginning of the other, and -1 where they are equal.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// compareStream holds what write makes against have.
func compareStream(have io.Reader, write func(io.Writer) error) error {
	c := &comparer{have: have}
	if err := write(c); err != nil {
		return err
	}
	return c.end()
}
