package configs_test

import (
	"io/fs"
	"testing"

	"xnodeos.org/configs"
	"xnodeos.org/internal/fleet"
)

// TestScenarios reads each folder as xnodeos release reads it.
func TestScenarios(t *testing.T) {
	t.Parallel()
	entries, err := fs.ReadDir(configs.Files, ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		dir, err := fs.Sub(configs.Files, e.Name())
		if err != nil {
			t.Fatal(err)
		}
		c, err := fleet.Load(dir)
		if err != nil {
			t.Errorf("%s: %v", e.Name(), err)
			continue
		}
		if c.Fleet.Name != e.Name() {
			t.Errorf("%s: fleet.name = %q; want the folder's name", e.Name(), c.Fleet.Name)
		}
		if _, err := fs.Stat(dir, "README.md"); err != nil {
			t.Errorf("%s: %v", e.Name(), err)
		}
	}
}
