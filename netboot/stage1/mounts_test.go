package stage1

import (
	"slices"
	"strings"
	"testing"
)

// Everything that is mounted early goes into the new root, which must not lie in
// what is moved; /proc goes last, because errors are looked into with it.
func TestMountPlans(t *testing.T) {
	t.Parallel()
	var early, moved []string
	for _, m := range earlyMounts() {
		early = append(early, m.Target)
		if strings.HasPrefix(newRoot+"/", m.Target+"/") {
			t.Errorf("the new root %s lies below %s, which is moved into it", newRoot, m.Target)
		}
	}
	for _, m := range moveMounts() {
		moved = append(moved, m.Source)
		if m.Target != newRoot+m.Source {
			t.Errorf("%s is moved to %s; want its own place in the new root", m.Source, m.Target)
		}
	}
	if last := moved[len(moved)-1]; last != "/proc" {
		t.Errorf("moved last: %s; want /proc", last)
	}
	slices.Sort(early)
	slices.Sort(moved)
	if !slices.Equal(early, moved) {
		t.Errorf("mounted early: %q; moved: %q", early, moved)
	}
}

// The layers of the store exist before the overlay is mounted, and upper and
// work lie on one file system, as overlayfs wants it.
func TestRootMounts(t *testing.T) {
	t.Parallel()
	made := map[string]bool{}
	mounted := map[string]string{}
	for _, step := range rootMounts("/dev/loop0") {
		for _, dir := range step.Dirs {
			made[dir] = true
		}
		m := step.Mount
		if m.Target != newRoot && !made[m.Target] {
			t.Errorf("%v: nobody makes the folder", m)
		}
		if m.Type != "overlay" && strings.Contains(m.Data, "mode=") && !strings.Contains(m.Data, "size=") {
			t.Errorf("%v has no bound", m)
		}
		for option := range strings.SplitSeq(m.Data, ",") {
			key, dir, _ := strings.Cut(option, "=")
			if (key == "upperdir" || key == "workdir") && (!made[dir] || !strings.HasPrefix(dir, storeRW+"/")) {
				t.Errorf("%v: %s is not made on the layer in memory", m, option)
			}
			if key == "lowerdir" && !strings.HasPrefix(dir, payloadDir+"/") {
				t.Errorf("%v: %s is not in the payload", m, option)
			}
		}
		mounted[m.Target] = m.Type
	}
	if mounted[storeDir] != "overlay" || mounted[payloadDir] != "squashfs" {
		t.Errorf("mounted: %v; want the payload and the store over it", mounted)
	}
}
