package node

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"xnodeos.org/internal/testkit"
	"xnodeos.org/internal/testkit/nixstore"
)

// SystemOf is the store path of the system that AddSystem makes under a name.
func SystemOf(name string) string { return nixstore.PathOf(name) }

// AddSystem adds a live system to a store that releases are made from: the toy
// system under another name, and with what else it is to refer to.
func AddSystem(ctx context.Context, store *nixstore.Store, name string, more ...nixstore.Path) error {
	if err := testkit.WriteToyStore(store.Store.Dir); err != nil && !os.IsExist(err) {
		return err
	}
	boot, err := os.ReadFile(filepath.Join(store.Store.Dir, testkit.ToySystem, "boot.json"))
	if err != nil {
		return err
	}
	system := nixstore.Path{Name: name, Files: map[string]string{
		"boot.json": strings.ReplaceAll(string(boot), testkit.ToySystem, SystemOf(name)), "init!": "#!/bin/sh\n", "activate!": "#!/bin/sh\n",
		"bin/switch-to-configuration!": "#!/bin/sh\n", "kernel-params": "quiet", "nixos-version": name,
		"kernel": "-> " + testkit.ToyKernel + "/bzImage", "kernel-modules": "-> " + testkit.ToyModules,
	}}
	for i := range more {
		system.Refs = append(system.Refs, more[i].Name)
	}
	paths := append(more, system)
	// What refers to what has to be seen by whoever scans the files.
	for i := range paths {
		var refs strings.Builder
		for _, ref := range paths[i].Refs {
			refs.WriteString(SystemOf(ref) + "\n")
		}
		if refs.Len() > 0 {
			paths[i].Files["refs"] = refs.String()
		}
	}
	return store.Add(ctx, paths...)
}
