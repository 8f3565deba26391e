package imagebuild

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"xnodeos.org/internal/bootspec"
	"xnodeos.org/internal/kmod"
	"xnodeos.org/internal/nix"
)

// Load reads what a build needs of a system: its contract, closure, kernel and
// modules. The first stage, loaders and node config are the caller's to add.
// cache is a folder that keeps closure lists by system: a store path never
// changes, so its closure does not either; every path is still looked at.
func Load(ctx context.Context, store nix.Store, toplevel nix.StorePath, cache string, progress Progress) (Inputs, error) {
	in := Inputs{Store: store}
	system, err := bootspec.Read(store, toplevel)
	if err != nil {
		return in, err
	}
	// Refused before the closure is read: that may take minutes.
	if err := system.CheckLive(); err != nil {
		return in, err
	}
	in.System = system
	if in.Closure, err = loadClosure(ctx, store, toplevel, cache, progress); err != nil {
		return in, err
	}
	data, err := store.ReadFile(system.Kernel, maxBootFile)
	if err != nil {
		return in, fmt.Errorf("kernel of %s: %w", toplevel, err)
	}
	in.Kernel = Blob{Path: system.Kernel, Data: data}
	in.Modules, err = loadModules(store, system)
	return in, err
}

func loadModules(store nix.Store, system *bootspec.System) (ModuleSet, error) {
	set := ModuleSet{Version: system.KernelRelease, Source: system.ModulesDir}
	set.FS = system.ModulesFS()
	index, err := kmod.Open(set.FS)
	if err != nil {
		return set, fmt.Errorf("kernel modules of %s: %w", system.Path, err)
	}
	set.Index = index
	if set.Modules, err = index.FirstStage(); err != nil {
		return set, fmt.Errorf("kernel modules of %s: %w", system.Path, err)
	}
	if system.FirmwareDir != "" {
		set.Firmware = store.FS(system.FirmwareDir)
	}
	return set, nil
}

// loadClosure returns the closure from the cache, or computes and keeps it.
func loadClosure(ctx context.Context, store nix.Store, toplevel nix.StorePath, cache string, progress Progress) ([]nix.PathInfo, error) {
	file := filepath.Join(cache, cacheKey(store.Dir, string(toplevel)))
	if closure, err := readCachedClosure(store, file); err == nil {
		return closure, nil
	}
	stage := progress.Start("closure", 0)
	var read atomic.Int64
	closure, err := store.Closure(ctx, nix.ClosureOptions{
		Database: nix.Database{Store: store}.Closure,
		Progress: func(n int64) { stage.Set(read.Add(n)) },
	}, string(toplevel))
	stage.End(err)
	if err != nil {
		return nil, err
	}
	list, err := nix.NewClosureList(closure)
	if err != nil {
		return nil, err
	}
	return closure, writeSealed(file, list.Encode())
}

// readCachedClosure fails also where a path is gone, so that the computation
// finds it again and says who needs it.
func readCachedClosure(store nix.Store, file string) ([]nix.PathInfo, error) {
	data, ok := readSealed(file)
	if !ok {
		return nil, fs.ErrNotExist
	}
	list, err := nix.ParseClosureList(data)
	if err != nil {
		return nil, err
	}
	for _, info := range list.Paths {
		if _, err := os.Lstat(store.Physical(info.Path)); err != nil {
			return nil, err
		}
	}
	return list.Paths, nil
}
