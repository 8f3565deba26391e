// Package iso lays out, streams and reads back the hybrid image: one file that
// BIOS and UEFI boot as a CD and as a disk or USB stick.
//
// It is ISO 9660 (ECMA-119) with Rock Ridge names, El Torito entries for
// isolinux and for a FAT image, an isohybrid MBR, and a GPT whose only
// partition is that FAT image. Kernel and initrd exist once: their ISO files
// are extents inside the FAT image. Layout is pure; the image is written in
// one pass with its size known before; the same Spec gives the same bytes.
//
// It neither makes the files (squashfs, initrd, loader configuration) nor
// judges their content, and writes no Joliet.
package iso

// MaxCommandLine is the longest kernel command line, in bytes, that both
// loaders hand over whole: Linux on x86 takes 2047, and the loaders put their
// own words (BOOT_IMAGE=, initrd=) before it.
const MaxCommandLine = 2000

const (
	sector = 2048
	// alignment of the EFI system partition and of the whole image, in bytes:
	// what partition tools expect.
	alignment = 1 << 20
	// endPadding lies behind the last file: drives that read ahead at the end
	// of a written disc report errors otherwise.
	endPadding = 300 << 10
	// maxExtent is the longest extent of one directory record: 32 bits, in
	// whole sectors.
	maxExtent = 1<<32 - sector
	// maxExtents is what Linux follows of one file (fs/isofs/inode.c,
	// isofs_read_level3_size).
	maxExtents = 100

	pvdSector        = 16
	bootRecordSector = 17
	terminatorSector = 18
	firstFreeSector  = 19
)
