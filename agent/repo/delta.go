package repo

import (
	"errors"
	"io"
)

// errDelta is a delta that does not fit its base or its own announcement.
var errDelta = errors.New("malformed delta")

// deltaTarget reads the size of the object that a delta makes from the delta's
// first bytes: sizes of base and target, 7 bits a byte, lowest first
// (gitformat-pack(5), "Deltified representation").
func deltaTarget(head []byte) (int64, error) {
	_, rest, err := deltaSize(head)
	if err != nil {
		return 0, err
	}
	size, _, err := deltaSize(rest)
	return size, err
}

func deltaSize(b []byte) (size int64, rest []byte, err error) {
	const most = 8 // bytes; more would be a size of petabytes
	for i := 0; i < min(len(b), most); i++ {
		size |= int64(b[i]&0x7f) << (7 * i)
		if b[i]&0x80 == 0 {
			return size, b[i+1:], nil
		}
	}
	return 0, nil, errDelta
}

// applyDelta writes the object that a delta makes of its base. It goes out in
// pieces, so that an object that nothing rests on is hashed and never held.
func applyDelta(w io.Writer, base, delta []byte) error {
	from, delta, err := deltaSize(delta)
	if err != nil || from != int64(len(base)) {
		return errDelta
	}
	left, delta, err := deltaSize(delta)
	if err != nil {
		return err
	}
	for len(delta) > 0 {
		var piece []byte
		if piece, delta, err = deltaStep(base, delta); err != nil {
			return err
		}
		if left -= int64(len(piece)); left < 0 {
			return errDelta
		}
		if _, err := w.Write(piece); err != nil {
			return err
		}
	}
	if left != 0 {
		return errDelta
	}
	return nil
}

// deltaStep takes one instruction off a delta: bytes of its own, or bytes of
// the base by offset and size, whose zero bytes are left out.
func deltaStep(base, delta []byte) (piece, rest []byte, err error) {
	command := delta[0]
	delta = delta[1:]
	if command&0x80 == 0 {
		n := int(command)
		if n == 0 || n > len(delta) {
			return nil, nil, errDelta
		}
		return delta[:n], delta[n:], nil
	}
	var offset, size uint64
	for bit := range 7 {
		if command&(1<<bit) == 0 {
			continue
		}
		if len(delta) == 0 {
			return nil, nil, errDelta
		}
		if bit < 4 {
			offset |= uint64(delta[0]) << (8 * bit)
		} else {
			size |= uint64(delta[0]) << (8 * (bit - 4))
		}
		delta = delta[1:]
	}
	if size == 0 {
		size = 0x10000
	}
	if offset+size > uint64(len(base)) {
		return nil, nil, errDelta
	}
	return base[offset : offset+size], delta, nil
}
