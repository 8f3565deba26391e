package debs

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"xnodeos.org/internal/command"
)

// plainEnv keeps apt's and dpkg's words English and their behaviour plain.
func plainEnv() []string {
	return []string{"LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
}

// aptStamp changes whenever apt could name other versions: its lists, sources
// and pins.
func aptStamp(root string) string {
	var b strings.Builder
	for _, path := range []string{
		"var/lib/apt/lists", "etc/apt", "etc/apt/sources.list", "etc/apt/sources.list.d", "etc/apt/preferences", "etc/apt/preferences.d",
		"etc/apt/apt.conf", "etc/apt/apt.conf.d",
	} {
		info, err := os.Stat(filepath.Join(root, path))
		if err != nil {
			if path == "var/lib/apt/lists" {
				return fmt.Sprintf("no lists: %v", err)
			}
			continue
		}
		fmt.Fprintf(&b, "%s %d %d\n", path, info.ModTime().UnixNano(), info.Size())
	}
	return b.String()
}

// resolve asks apt which files bring the named packages.
func resolve(ctx context.Context, names []string) ([]Deb, error) {
	packages := make([]string, len(names))
	for i, name := range names {
		real, meta := strings.CutPrefix(name, "@")
		if meta {
			var err error
			if real, err = dependency(ctx, real); err != nil {
				return nil, err
			}
		}
		packages[i] = real
	}
	out, err := command.Output(ctx, command.Cmd{
		Name: "apt-get", Args: append([]string{"-q", "--print-uris", "download"}, packages...), Package: "apt", AddEnv: plainEnv(),
	})
	if err != nil {
		return nil, fmt.Errorf("ask apt for Debian packages: %w; if apt has no lists, run: apt-get update", err)
	}
	files, err := parseURIs(string(out))
	if err != nil {
		return nil, err
	}
	list := make([]Deb, len(names))
	for i, name := range packages {
		d, ok := files[name]
		if !ok {
			return nil, fmt.Errorf("apt-get names no file for package %s; run: apt-get update", name)
		}
		d.Name = strings.TrimPrefix(names[i], "@")
		list[i] = d
	}
	return list, nil
}

// dependency is the one package that a meta package stands for.
func dependency(ctx context.Context, meta string) (string, error) {
	out, err := command.Output(ctx, command.Cmd{
		Name: "apt-cache", Args: []string{"depends", "--important", meta}, Package: "apt", AddEnv: plainEnv(),
	})
	if err != nil {
		return "", fmt.Errorf("ask apt for package %s: %w; if apt has no lists, run: apt-get update", meta, err)
	}
	found := parseDepends(string(out))
	if len(found) != 1 {
		return "", fmt.Errorf("package %s depends on %d packages (%s), a meta package depends on one; run: apt-get update",
			meta, len(found), strings.Join(found, ", "))
	}
	return found[0], nil
}

// parseDepends reads "Depends:" and "PreDepends:" lines of apt-cache depends.
func parseDepends(text string) []string {
	var found []string
	for line := range strings.Lines(text) {
		kind, name, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if ok && (kind == "Depends" || kind == "PreDepends") {
			found = append(found, name)
		}
	}
	return found
}

// parseURIs reads apt-get --print-uris: one line 'URI' FILE SIZE SHA256:HEX
// for each file, in apt's order. The result is by package name.
func parseURIs(text string) (map[string]Deb, error) {
	files := make(map[string]Deb)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "'") {
			continue // apt's notes
		}
		words := strings.Fields(line)
		if len(words) != 4 {
			return nil, fmt.Errorf("read what apt-get prints: %q is not 'URI' FILE SIZE HASH", line)
		}
		d := Deb{File: words[1]}
		if err := checkFile(d.File); err != nil {
			return nil, fmt.Errorf("read what apt-get prints: %q: %w", line, err)
		}
		var err error
		if d.Size, err = strconv.ParseInt(words[2], 10, 64); err != nil || d.Size <= 0 {
			return nil, fmt.Errorf("read what apt-get prints: %q: %q is not a size", line, words[2])
		}
		sum, ok := strings.CutPrefix(words[3], "SHA256:")
		if raw, err := hex.DecodeString(sum); !ok || err != nil || len(raw) != 32 {
			return nil, fmt.Errorf("read what apt-get prints: %q: %q is not a SHA-256", line, words[3])
		}
		d.SHA256 = strings.ToLower(sum)
		files[packageOf(d.File)] = d
	}
	return files, nil
}

// checkFile makes sure that a file name of apt's names a package and stays in
// the folder that it is put into.
func checkFile(file string) error {
	if !strings.HasSuffix(file, ".deb") || strings.Count(file, "_") < 2 || filepath.Base(file) != file || strings.HasPrefix(file, ".") {
		return errors.New("the file name is not PACKAGE_VERSION_ARCHITECTURE.deb")
	}
	return nil
}

// packageOf is the package's name in its file name.
func packageOf(file string) string {
	name, _, _ := strings.Cut(file, "_")
	return name
}
