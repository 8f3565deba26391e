package cpio

import (
	"bytes"
)

// signatures are the magics that the kernel looks for at the start of each
// part of an initrd (lib/decompress.c).
var signatures = []struct{ name, magic string }{
	{"gzip", "\x1f\x8b"},
	{"gzip", "\x1f\x9e"},
	{"bzip2", "BZh"},
	{"lzma", "\x5d\x00\x00"},
	{"xz", "\xfd7zXZ\x00"},
	{"lzo", "\x89LZO"},
	{"lz4", "\x02\x21\x4c\x18"},
	{"zstd", "\x28\xb5\x2f\xfd"},
}

// compression names the format whose magic begins head, or returns "".
func compression(head []byte) string {
	for _, s := range signatures {
		if bytes.HasPrefix(head, []byte(s.magic)) {
			return s.name
		}
	}
	return ""
}
