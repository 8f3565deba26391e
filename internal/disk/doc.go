// Package disk holds the bytes that make a file or a block device a disk: the
// MBR, the GUID partition table (UEFI 2.10 section 5) and images described as
// segments that are streamed in one pass.
//
// It does not decide what lies in a partition, opens no device and knows no
// sector size but 512 bytes.
package disk

// SectorSize is the logical sector of every table of this package, in bytes.
const SectorSize = 512
