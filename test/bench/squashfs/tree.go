package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"xnodeos.org/internal/command"
)

const (
	mixedBytes   = 300 << 20
	programBytes = 100 << 20
	largeFile    = 64 << 10 // smallest file that is taken to fill a tree up
)

// makeMixed fills dir with Go's own tree, which is some 15,000 mostly small
// files, and then larger files of the host's /usr/share, in the order of their
// names, until there are mixedBytes.
func makeMixed(ctx context.Context, dir string) error {
	out, err := command.Output(ctx, command.Cmd{Name: "go", Args: []string{"env", "GOROOT"}, Package: "golang"})
	if err != nil {
		return err
	}
	room := int64(mixedBytes)
	goroot := string(bytes.TrimSpace(out))
	if err := copyFiles(ctx, goroot, filepath.Join(dir, "go"), 0, &room); err != nil {
		return err
	}
	return copyFiles(ctx, "/usr/share", filepath.Join(dir, "share"), largeFile, &room)
}

// makePrograms fills dir with programs and shared libraries of the host, as
// most of a system's payload is.
func makePrograms(ctx context.Context, dir string) error {
	room := int64(programBytes)
	return copyFiles(ctx, "/usr/lib", dir, largeFile, &room)
}

// copyFiles copies the regular files of at least smallest bytes from one
// folder to another for as long as there is room.
func copyFiles(ctx context.Context, from, to string, smallest int64, room *int64) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if *room <= 0 {
			return fs.SkipAll
		}
		if !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil || info.Size() < smallest {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		*room -= info.Size()
		return copyFile(path, filepath.Join(to, rel), info.Mode().Perm())
	})
}

func copyFile(from, to string, perm fs.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, perm|0o200)
}

// count returns how many regular files there are below dir, and their bytes.
func count(dir string) (files int, size int64, err error) {
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("count %q: %w", path, err)
		}
		files++
		size += info.Size()
		return nil
	})
	return files, size, err
}
