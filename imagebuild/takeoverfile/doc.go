// Package takeoverfile puts the takeover program's file together and takes it
// apart: one static ELF program, behind it an archive of what it starts, and a
// trailer at the very end by which it finds the archive in itself.
//
//	program | zeros to a multiple of 4096 | newc cpio | trailer of 64 bytes
//
// The archive holds vmlinuz, initrd, manifest.json, cmdline and, last and only
// if the payload is embedded, system.squashfs. The trailer is, in this order:
// the magic "XNODE-TAKEOVER-1", the archive's offset and its length in bytes
// (little-endian, 64 bits each), and the SHA-256 of the file from its first
// byte up to the content of system.squashfs (without one: up to the trailer).
// The payload is not hashed once more: the manifest has the hash of each of
// its chunks.
//
// The same parts give the same bytes, and Open takes no other: whatever is not
// a part is compared with what Layout makes. The package does not know what a
// manifest says and starts nothing.
package takeoverfile
