// Package xzhead reads the head of an xz stream to tell how large a dictionary
// it wants, before a decoder allocates it: a few bytes can ask for 4 GiB. It
// decodes nothing.
//
// The format is that of xz-file-format.txt, version 1.2.1, sections 2.1.1, 3.1
// and 5.3.1.
package xzhead

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
)

// Size is how many bytes of a stream Dictionary needs at most: the stream
// header and the longest block header.
const Size = 12 + 1024

const filterLZMA2 = 0x21

var errHead = errors.New("damaged xz header")

// Dictionary returns the size in bytes of the dictionary of the first block of
// an xz stream, 0 if the stream has no block. head is the beginning of the
// stream, at least Size bytes or all of it.
func Dictionary(head []byte) (int64, error) {
	if len(head) < 13 || !bytes.HasPrefix(head, []byte("\xfd7zXZ\x00")) {
		return 0, errHead
	}
	if head[12] == 0 { // the index: no block
		return 0, nil
	}
	length := (int(head[12]) + 1) * 4
	if len(head) < 12+length {
		return 0, errHead
	}
	block := head[13 : 12+length-4] // without size byte and CRC
	if len(block) == 0 {
		return 0, errHead
	}
	flags := block[0]
	block = block[1:]
	for _, present := range []bool{flags&0x40 != 0, flags&0x80 != 0} { // compressed, uncompressed size
		if present {
			var err error
			if _, block, err = number(block); err != nil {
				return 0, err
			}
		}
	}
	for range int(flags&3) + 1 {
		id, rest, err := number(block)
		if err != nil {
			return 0, err
		}
		size, rest, err := number(rest)
		if err != nil {
			return 0, err
		}
		if size > uint64(len(rest)) {
			return 0, errHead
		}
		if id == filterLZMA2 {
			return dictionary(rest[:size])
		}
		block = rest[size:]
	}
	return 0, errors.New("xz stream without the LZMA2 filter")
}

func dictionary(properties []byte) (int64, error) {
	if len(properties) != 1 || properties[0] > 40 {
		return 0, errHead
	}
	b := properties[0]
	if b == 40 {
		return 1<<32 - 1, nil
	}
	return int64(2|b&1) << (b/2 + 11), nil
}

func number(in []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(in)
	if n <= 0 {
		return 0, nil, errHead
	}
	return v, in[n:], nil
}

// Check returns an error if the dictionary that head asks for is larger than
// limit bytes.
func Check(head []byte, limit int64) error {
	size, err := Dictionary(head)
	if err != nil {
		return err
	}
	if size > limit {
		return fmt.Errorf("xz dictionary of %d bytes; allowed are %d", size, limit)
	}
	return nil
}
