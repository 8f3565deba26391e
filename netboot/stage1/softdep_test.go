package stage1

import (
	"errors"
	"syscall"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"xnodeos.org/internal/kmod"
)

// TestSoftDependencyMayFail: the fast checksum is not for every processor, and
// the disk must come up without it.
func TestSoftDependencyMayFail(t *testing.T) {
	t.Parallel()
	index, err := kmod.Open(fstest.MapFS{
		"modules.dep":     {Data: []byte("sd_mod.ko: crc-t10dif.ko\ncrc-t10dif.ko:\ncrct10dif-pclmul.ko:\n")},
		"modules.alias":   {Data: []byte("alias crct10dif crct10dif_pclmul\n")},
		"modules.softdep": {Data: []byte("softdep crc_t10dif pre: crct10dif\n")},
	})
	if err != nil {
		t.Fatal(err)
	}
	k := &kernel{fails: map[string]error{"crct10dif_pclmul": syscall.ENODEV}}
	m := NewModules(index, k.load, NewStopwatch(fixedClock), NewConsole(fixedClock))
	if err := m.Load("sd_mod"); err != nil {
		t.Errorf("Load(sd_mod) = %v; want nil, only its soft dependency failed", err)
	}
	if diff := cmp.Diff([]string{"crct10dif_pclmul", "crc_t10dif", "sd_mod"}, k.seen()); diff != "" {
		t.Errorf("loaded, -want +got:\n%s", diff)
	}
	if err := m.Load("crct10dif_pclmul"); !errors.Is(err, syscall.ENODEV) {
		t.Errorf("Load(crct10dif_pclmul) = %v; want ENODEV where it was asked for by name", err)
	}
}
