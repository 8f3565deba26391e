package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"xnodeos.org/imagebuild"
)

// besideExecutable lists the folders that may hold what xnodeos needs: its
// own folder and its libexec folder. Nothing is compiled at run time.
func besideExecutable() ([]string, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find the program's own folder: %w", err)
	}
	if real, err := filepath.EvalSymlinks(exe); err == nil {
		exe = real
	}
	bin := filepath.Dir(exe)
	return []string{bin, filepath.Join(filepath.Dir(bin), "libexec", "xnodeos")}, nil
}

// findProgram reads one of our programs that goes into artifacts, from the
// flag's file or beside xnodeos.
func findProgram(name, flag, path string) (imagebuild.Blob, error) {
	if path != "" {
		return readBlob(path)
	}
	dirs, err := besideExecutable()
	if err != nil {
		return imagebuild.Blob{}, err
	}
	for _, dir := range dirs {
		blob, err := readBlob(filepath.Join(dir, name))
		if !errors.Is(err, fs.ErrNotExist) {
			return blob, err
		}
	}
	return imagebuild.Blob{}, fmt.Errorf("program %s not found in %s; run scripts/setup, or name it with %s", name, strings.Join(dirs, ", "), flag)
}

// findLoaders reads the boot loaders that the formats need.
func findLoaders(flag string, formats []imagebuild.Format) (map[string]imagebuild.Blob, error) {
	dirs := []string{flag}
	if flag == "" {
		beside, err := besideExecutable()
		if err != nil {
			return nil, err
		}
		dirs = nil
		for _, dir := range beside {
			dirs = append(dirs, filepath.Join(dir, "boot"))
		}
	}
	loaders := map[string]imagebuild.Blob{}
	for _, f := range formats {
		for _, name := range imagebuild.LoaderNames(f) {
			blob, err := findLoader(name, dirs)
			if err != nil {
				return nil, err
			}
			loaders[name] = blob
		}
	}
	return loaders, nil
}

func findLoader(name string, dirs []string) (imagebuild.Blob, error) {
	for _, dir := range dirs {
		blob, err := readBlob(filepath.Join(dir, name))
		if !errors.Is(err, fs.ErrNotExist) {
			return blob, err
		}
	}
	return imagebuild.Blob{}, imagebuild.MissingLoader(name, dirs)
}

func readBlob(path string) (imagebuild.Blob, error) {
	data, err := os.ReadFile(path)
	if err == nil && len(data) == 0 {
		err = fmt.Errorf("%s is empty; run scripts/setup again", path)
	}
	return imagebuild.Blob{Path: path, Data: data}, err
}

// cacheFolder is --cache or xnodeos's part of the user's cache folder.
func cacheFolder(flag string) (string, error) {
	if flag != "" {
		return filepath.Abs(flag)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no cache folder: %w; name one with --cache", err)
	}
	return filepath.Join(dir, "xnodeos"), nil
}
