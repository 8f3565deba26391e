// Package fat lays out a fresh FAT16 or FAT32 volume that is full and only
// read afterwards (an EFI system partition inside an image), and reads FAT
// volumes back. Source: Microsoft FAT specification, version 1.03.
//
// Every file is one run of clusters, its data at a multiple of ClusterSize, so
// that another file system (ISO 9660) can name the same bytes. The same input
// gives the same bytes. It neither changes a volume nor writes FAT12.
package fat

// ClusterSize is the cluster of every volume that this package writes, in
// bytes: the sector of an ISO 9660 volume.
const ClusterSize = sectorsPerCluster * sectorSize

const (
	sectorSize        = 512
	sectorsPerCluster = 4
	direntSize        = 32
	rootEntries16     = 512
	fats              = 2
	// The type of a FAT follows from its number of clusters alone (section
	// "FAT type determination"); drivers are known to be off by a few, so the
	// writer keeps away from the limits by margin.
	minClusters16 = 4085
	minClusters32 = 65525
	maxClusters32 = 0x0FFFFFF5 - 2 // Microsoft's FAT specification: larger numbers mean "end"
	margin        = 16
	maxClusters   = 1 << 26 // 128 GiB, far from where sector numbers end
	maxFileSize   = 1<<32 - 1
	alignUnit     = 1 << 20 // volumes are whole MiB
)
