// Package ext4 writes an empty ext4 file system with a journal, and reads the
// head of one: enough for a program without mke2fs to give a disk a file system
// that the kernel mounts and e2fsck finds nothing wrong with.
//
// What is made is what mke2fs makes of late, as far as an empty file system
// goes: blocks of 4 KiB, extents, 64-bit, a checksum on all metadata, and block
// groups that the kernel fills in when it comes to them, so that making one
// costs a second whatever the disk's size. Flexible groups, room for growing and
// everything that needs files are left out.
//
// It never changes or repairs a file system, opens no device, and has no clock
// or randomness of its own: the same options give the same bytes.
//
// The layout is that of the kernel's Documentation/filesystems/ext4.
package ext4
