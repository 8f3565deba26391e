// Package squashfs writes squashfs 4.0 images, compressed with zstd, for the
// payload of an XnodeOS artifact. It streams host trees into the image without
// a staging copy.
//
// The same source gives the same bytes on any host: names are sorted by their
// bytes, every inode belongs to uid and gid 0 and carries one fixed mtime, and
// blocks are placed in the order of the walk however many cores compress them.
// Sorting by bytes also means that names need not be UTF-8.
//
// Files with identical content are stored once but keep an inode each, so hard
// links of the source become separate files that share their blocks. A block of
// zeros takes no space. The tail of a file (what is left after its last full
// block) is packed with other tails in a fragment block.
//
// Left out on purpose: extended attributes (they are neither read nor written,
// because a Nix store has none and an SELinux build host would add its own),
// device nodes, fifos and sockets (an error that names the path), reading of
// images, and appending to them.
//
// Memory: a pool of read buffers and one of compression buffers, both of fixed
// length, together (96 + 16 x workers) block sizes, plus about 2 MB a worker
// for its encoder, plus about half a kB an inode and 4 bytes a block of the
// source. It does not grow with the size of the files.
//
// The format is described in the Linux kernel's
// Documentation/filesystems/squashfs.rst and fs/squashfs/squashfs_fs.h.
package squashfs
