package main

import (
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"xnodeos.org/internal/testkit"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"xnodeos": main})
}

// TestScripts runs the program as a user does. Each script finds a toy store
// in store/, toy loaders in boot/ and a first stage in xnode-init.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_CACHE_HOME", filepath.Join(env.WorkDir, "cache"))
			env.Setenv("SOURCE_DATE_EPOCH", "")
			env.Setenv("SYSTEM", testkit.ToySystem)
			if err := testkit.WriteToyStore(filepath.Join(env.WorkDir, "store")); err != nil {
				return err
			}
			return testkit.WriteToyLoaders(filepath.Join(env.WorkDir, "boot"))
		},
	})
}
