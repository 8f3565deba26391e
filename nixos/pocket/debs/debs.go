// Package debs fetches Debian packages by name and unpacks them, without
// installing anything: apt-get download and dpkg-deb -x, as any user.
//
// A package that is there in the wanted version is used again. Every file is
// checked against the SHA-256 of apt's signed lists before it is unpacked; a
// folder of unpacked files appears whole or not at all. Where apt cannot name
// or fetch the packages (no network, no lists), the set that was fetched last
// for the same names is used, and that is said. Dependencies are not followed:
// whoever wants a package names it.
package debs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"xnodeos.org/internal/atomicfile"
	"xnodeos.org/internal/command"
)

// Deb is one package in one version.
type Deb struct {
	Name   string `json:"name"`   // as asked for, without the "@" of a meta package
	File   string `json:"file"`   // apt's file name: package_version_architecture.deb
	SHA256 string `json:"sha256"` // of the file, hex
	Size   int64  `json:"size"`   // of the file, bytes
}

// Cache is a folder of packages: debs/ holds the files, unpacked/ their
// contents, one folder per file name. Log gets a line for what takes time or
// is worth knowing; it must not be nil.
type Cache struct {
	Dir string
	Log func(line string)
}

// Folder is where the content of a fetched package lies.
func (c Cache) Folder(d Deb) string { return filepath.Join(c.Dir, "unpacked", d.File) }

// Fetch makes sure that the newest versions of the named packages that apt
// knows are unpacked, and returns them in the order of the names. "@NAME"
// stands for the one package that the meta package NAME depends on. Several
// processes may fetch into one folder: each waits for the other.
func (c Cache) Fetch(ctx context.Context, names ...string) ([]Deb, error) {
	for _, dir := range []string{"debs", "unpacked"} {
		if err := os.MkdirAll(filepath.Join(c.Dir, dir), 0o755); err != nil {
			return nil, fmt.Errorf("make package cache: %w", err)
		}
	}
	unlock, err := c.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	now := aptStamp("/")
	last, stamp := c.recall(names)
	if last != nil && stamp == now {
		return last, nil // apt would say the same again, which takes it a second
	}
	list, err := c.fetch(ctx, names)
	if err == nil {
		return list, c.remember(names, list, now)
	}
	if ctx.Err() != nil || last == nil {
		return nil, err
	}
	list = last
	c.Log(fmt.Sprintf("apt cannot fetch packages now, going on with those of last time (%v)", err))
	return list, nil
}

func (c Cache) fetch(ctx context.Context, names []string) ([]Deb, error) {
	list, err := resolve(ctx, names)
	if err != nil {
		return nil, err
	}
	var missing []Deb // to unpack
	var absent []Deb  // of these, to download
	var bytes int64
	for _, d := range list {
		if _, err := os.Stat(c.Folder(d)); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("look for unpacked package: %w", err)
		}
		missing = append(missing, d)
		if !c.sound(d) {
			absent = append(absent, d)
			bytes += d.Size
		}
	}
	if len(absent) > 0 {
		c.Log(fmt.Sprintf("fetching %d Debian packages, %.1f MB", len(absent), float64(bytes)/1e6))
		if err := c.download(ctx, absent); err != nil {
			return nil, err
		}
	}
	if len(missing) > 0 {
		c.Log(fmt.Sprintf("unpacking %d Debian packages", len(missing)))
		if err := c.unpack(ctx, missing); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (c Cache) file(d Deb) string { return filepath.Join(c.Dir, "debs", d.File) }

// sound says whether a package's file is there with the bytes that apt's lists name.
func (c Cache) sound(d Deb) bool {
	sum, err := hashFile(c.file(d))
	return err == nil && sum == d.SHA256
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (c Cache) download(ctx context.Context, list []Deb) error {
	temp, err := os.MkdirTemp(filepath.Join(c.Dir, "debs"), ".part-")
	if err != nil {
		return fmt.Errorf("make download folder: %w", err)
	}
	defer os.RemoveAll(temp)
	args := []string{"-q", "-o", "APT::Sandbox::User=root", "download"}
	for _, d := range list {
		args = append(args, packageOf(d.File))
	}
	if err := command.Run(ctx, command.Cmd{Name: "apt-get", Args: args, Dir: temp, Package: "apt", AddEnv: plainEnv()}); err != nil {
		return fmt.Errorf("download Debian packages: %w; if apt's lists are old, run: apt-get update", err)
	}
	for _, d := range list {
		from := filepath.Join(temp, d.File)
		sum, err := hashFile(from)
		if err != nil {
			return fmt.Errorf("package %s: apt-get did not leave its file: %w", d.Name, err)
		}
		if sum != d.SHA256 {
			return fmt.Errorf("package %s: %s has SHA-256 %s, apt's lists say %s; run: apt-get update", d.Name, d.File, sum, d.SHA256)
		}
		if err := os.Rename(from, c.file(d)); err != nil {
			return fmt.Errorf("keep package %s: %w", d.Name, err)
		}
	}
	return nil
}

// unpack unpacks all, has the disk take it, and only then gives the folders
// their names: a power cut leaves no half folder under a final name.
func (c Cache) unpack(ctx context.Context, list []Deb) error {
	temp, err := os.MkdirTemp(filepath.Join(c.Dir, "unpacked"), ".part-")
	if err != nil {
		return fmt.Errorf("make folder to unpack in: %w", err)
	}
	defer removeTree(temp)
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for _, d := range list {
		group.Go(func() error {
			err := command.Run(groupCtx, command.Cmd{
				Name: "dpkg-deb", Args: []string{"-x", c.file(d), filepath.Join(temp, d.File)}, Package: "dpkg", AddEnv: plainEnv(),
			})
			if err != nil {
				return fmt.Errorf("unpack package %s: %w", d.Name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := syncFilesystem(temp); err != nil {
		return err
	}
	for _, d := range list {
		if err := os.Rename(filepath.Join(temp, d.File), c.Folder(d)); err != nil {
			return fmt.Errorf("keep unpacked package %s: %w", d.Name, err)
		}
	}
	return nil
}

func syncFilesystem(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("write unpacked packages to disk: %w", err)
	}
	defer f.Close()
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		return fmt.Errorf("write unpacked packages to disk: %w", err)
	}
	return nil
}

// removeTree removes what a package unpacked, folders without the w bit included.
func removeTree(dir string) {
	_ = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err == nil && entry.IsDir() {
			_ = os.Chmod(path, 0o755)
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}

// memory is the file that keeps the set that was fetched last for some names.
func (c Cache) memory(names []string) string {
	sum := sha256.Sum256([]byte(strings.Join(names, "\n")))
	return filepath.Join(c.Dir, "last-"+hex.EncodeToString(sum[:8])+".json")
}

// lastSet is what is kept between runs.
type lastSet struct {
	Stamp    string `json:"stamp"` // aptStamp before apt was asked
	Packages []Deb  `json:"packages"`
}

func (c Cache) remember(names []string, list []Deb, stamp string) error {
	data, err := json.MarshalIndent(lastSet{stamp, list}, "", "  ")
	if err != nil {
		return fmt.Errorf("note fetched packages: %w", err)
	}
	return atomicfile.WriteBytes(c.memory(names), 0o644, append(data, '\n'))
}

// recall returns nil unless the whole set is still unpacked.
func (c Cache) recall(names []string) (list []Deb, stamp string) {
	data, err := os.ReadFile(c.memory(names))
	if err != nil {
		return nil, ""
	}
	var last lastSet
	if json.Unmarshal(data, &last) != nil || len(last.Packages) != len(names) {
		return nil, ""
	}
	for i, d := range last.Packages {
		if d.Name != strings.TrimPrefix(names[i], "@") || checkFile(d.File) != nil {
			return nil, ""
		}
		if _, err := os.Stat(c.Folder(d)); err != nil {
			return nil, ""
		}
	}
	return last.Packages, last.Stamp
}
