package fat

import "testing"

func TestPlanHoldsWhatItMust(t *testing.T) {
	t.Parallel()
	for used := uint32(0); used < 300_000; used += 7 {
		g := plan(used)
		perSector := uint32(sectorSize * 8 / g.bits)
		switch {
		case g.clusters < used:
			t.Fatalf("plan(%d) has %d clusters", used, g.clusters)
		case g.fatSectors*perSector < g.clusters+2:
			t.Fatalf("plan(%d): FAT of %d sectors is too short for %d clusters", used, g.fatSectors, g.clusters)
		case g.dataSector()%sectorsPerCluster != 0, g.sectors()%(alignUnit/sectorSize) != 0:
			t.Fatalf("plan(%d): data at sector %d of %d is not aligned", used, g.dataSector(), g.sectors())
		case g.bits == 16 && (g.clusters < minClusters16+margin || g.clusters >= minClusters32-margin):
			t.Fatalf("plan(%d): %d clusters in FAT16", used, g.clusters)
		case g.bits == 32 && g.clusters < minClusters32+margin:
			t.Fatalf("plan(%d): %d clusters in FAT32", used, g.clusters)
		}
	}
}
