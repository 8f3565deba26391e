// Package repeat builds the same artifacts in different circumstances, as
// different people on different machines would, and compares the bytes.
//
// Every build gets its own cache, so that each one makes everything anew except
// the packages that pocket is made of. It looks at bytes only; whether they
// boot is test/qemu's question.
package repeat

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Circumstance is what differs between two builds of the same input.
type Circumstance struct {
	Name string
	Env  []string // added to the environment
	// Folder runs another copy of the program, in another folder, with
	// another home and another folder for temporary files.
	Folder bool
	// User runs all of that as another user.
	User bool
}

// Circumstances are those that must not change a byte.
func Circumstances() []Circumstance {
	return []Circumstance{
		{Name: "again"},
		{Name: "on one core", Env: []string{"GOMAXPROCS=1"}},
		{Name: "in another folder", Folder: true, Env: []string{"TZ=Asia/Kolkata", "LC_ALL=C.UTF-8"}},
		{Name: "as another user", Folder: true, User: true},
	}
}

// A Builder knows the program and the input.
type Builder struct {
	Program string   // xnodeos, in a bin folder beside libexec
	Cache   string   // xnodeos's cache folder, whose packages are used again
	Work    string   // an empty folder for everything that is made; others can enter it
	Args    []string // of `xnodeos image build`, without --out and --cache
}

// Build makes the artifacts and returns the folder they are in.
func (b Builder) Build(ctx context.Context, c Circumstance) (dir string, took time.Duration, err error) {
	home := filepath.Join(b.Work, strings.ReplaceAll(c.Name, " ", "-"))
	cache, out, program := filepath.Join(home, "cache"), filepath.Join(home, "out"), b.Program
	if err := os.MkdirAll(home, 0o755); err != nil {
		return "", 0, err
	}
	if err := seedCache(b.Cache, cache, c.User); err != nil {
		return "", 0, fmt.Errorf("make a cache: %w", err)
	}
	env := append(os.Environ(), c.Env...)
	if c.Folder {
		from := filepath.Dir(filepath.Dir(b.Program))
		if err := os.CopyFS(filepath.Join(home, "other place"), os.DirFS(from)); err != nil {
			return "", 0, err
		}
		program = filepath.Join(home, "other place", "bin", "xnodeos")
		tmp := filepath.Join(home, "tmp")
		if err := os.Mkdir(tmp, 0o755); err != nil {
			return "", 0, err
		}
		env = append(env, "HOME="+home, "TMPDIR="+tmp, "XDG_CACHE_HOME="+filepath.Join(home, "xdg"))
	}
	words := append([]string{program, "image", "build", "--out", out, "--cache", cache}, b.Args...)
	if c.User {
		if words, err = asAnotherUser(words, home); err != nil {
			return "", 0, err
		}
	}
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = env
	if c.Folder {
		cmd.Dir = home
	}
	begun := time.Now()
	if output, err := cmd.CombinedOutput(); err != nil {
		return "", 0, fmt.Errorf("build %s: %w\n%s", c.Name, err, output)
	}
	return out, time.Since(begun), nil
}

// RemoveAll removes a folder that may hold a store: a user who is not root
// builds into one in the cache, and nothing in a store can be written, not even
// its folders.
func RemoveAll(dir string) error {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.IsDir() {
			err = os.Chmod(path, 0o700)
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}

// otherUser is nobody: it owns nothing on a Debian system.
const otherUser = 65534

// asAnotherUser wraps a command line. Root becomes nobody; anyone else gets a
// user namespace in which they are nobody.
func asAnotherUser(words []string, home string) ([]string, error) {
	if os.Geteuid() != 0 {
		id := fmt.Sprint(otherUser)
		return append([]string{"unshare", "--user", "--map-user=" + id, "--map-group=" + id, "--"}, words...), nil
	}
	err := filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, otherUser, otherUser)
	})
	id := fmt.Sprint(otherUser)
	return append([]string{"setpriv", "--reuid", id, "--regid", id, "--clear-groups", "--"}, words...), err
}

// derived are the parts of the cache that a build must be able to make anew.
var derived = []string{"payload", "closure", "initrd"}

// seedCache makes a cache with the packages of an existing one: linked, or
// copied for another user, who may not be able to follow the link.
func seedCache(from, to string, copied bool) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for _, e := range entries {
		source, target := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		switch {
		case slices.Contains(derived, e.Name()):
		case !copied:
			err = os.Symlink(source, target)
		case e.IsDir() && e.Name() != "store":
			err = os.CopyFS(target, os.DirFS(source))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Sums returns the SHA-256 of every file below a folder, by its path in it.
func Sums(dir string) (map[string]string, error) {
	sums := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		sums[name] = hex.EncodeToString(h.Sum(nil))
		return err
	})
	if err == nil && len(sums) == 0 {
		err = fmt.Errorf("%s holds no files; nothing would be compared", dir)
	}
	return sums, err
}

// Differing returns the names that are not the same in both, sorted.
func Differing(a, b map[string]string) []string {
	var out []string
	for name, sum := range a {
		if b[name] != sum {
			out = append(out, name)
		}
	}
	for name := range b {
		if _, ok := a[name]; !ok {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
