// Package nixstore gives tests and measurements a store of their own in a
// folder, written and read by the machine's real Nix: it needs neither /nix nor
// root nor a network, and touches no configuration of the host.
package nixstore

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/nar"
)

// A Store is a Nix store of its own. Its database lies beside it.
type Store struct {
	nix.Store // Dir/root

	Dir string   // with conf/ and root/
	Env []string // what Nix's programs need to leave the host alone
}

// Make makes an empty store below dir. conf is added to its nix.conf.
func Make(dir, conf string) (*Store, error) {
	text := "build-users-group =\nsandbox = false\nsubstitute = false\nsubstituters =\nfsync-metadata = false\n" + conf
	if err := os.MkdirAll(filepath.Join(dir, "conf"), 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "conf", "nix.conf"), []byte(text), 0o644); err != nil {
		return nil, err
	}
	return &Store{
		Store: nix.Store{Dir: filepath.Join(dir, "root")}, Dir: dir,
		Env: []string{"NIX_CONF_DIR=" + filepath.Join(dir, "conf"), "HOME=" + dir, "NIX_REMOTE=", "NIX_PATH=", "NIX_USER_CONF_FILES="},
	}, nil
}

// New makes an empty store for one test, in a folder that other users can enter.
func New(t *testing.T, conf string) *Store {
	t.Helper()
	dir, err := os.MkdirTemp("", "nix") // short: a socket's name has 107 bytes
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := nar.RemoveTree(dir); err != nil {
			t.Error(err)
		}
	})
	s, err := Make(dir, conf)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// URL is how Nix's programs name the store.
func (s *Store) URL() string { return "local?root=" + s.Store.Dir }

// Run runs one of Nix's programs on the store and returns its trimmed output.
func (s *Store) Run(ctx context.Context, program string, args ...string) (string, error) {
	args = append([]string{"--store", s.URL(), "--extra-experimental-features", "nix-command"}, args...)
	out, err := command.Output(ctx, command.Cmd{Name: program, Args: args, AddEnv: s.Env, Package: "nix-bin"})
	if err != nil {
		return "", fmt.Errorf("%w (without Nix, run scripts/setup)", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// MustRun is Run for a test that cannot go on otherwise.
func (s *Store) MustRun(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, err := s.Run(t.Context(), program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// PathOf is the store path that Add gives a name.
func PathOf(name string) string {
	sum := sha256.Sum256([]byte(name))
	return nix.StoreDir + "/" + nix.EncodeBase32(sum[:20]) + "-" + name
}

// A Path is something to add: files by their names ("" for the path itself
// being a file; a name that ends in "!" is executable; a value that begins with
// "-> " is a symlink) and the names of other paths that it refers to.
type Path struct {
	Name  string
	Files map[string]string
	Refs  []string
}

// Add writes paths and registers them as if they were built, references first.
// Their names do not follow from their content: they count only by a signature.
func (s *Store) Add(ctx context.Context, paths ...Path) error {
	var infos []nix.PathInfo
	for _, p := range paths {
		full := PathOf(p.Name)
		if err := writeTree(s.Physical(full), p.Files); err != nil {
			return err
		}
		sum := sha256.New()
		size := new(count)
		if err := nar.Write(writers{sum, size}, s.Physical(full)); err != nil {
			return err
		}
		info := nix.PathInfo{Path: full, NarHash: nix.Hash(sum.Sum(nil)), NarSize: int64(*size), References: []string{}}
		for _, ref := range p.Refs {
			info.References = append(info.References, PathOf(ref))
		}
		slices.Sort(info.References)
		infos = append(infos, info)
	}
	var text strings.Builder
	if err := nix.WriteRegistration(&text, infos); err != nil {
		return err
	}
	return command.Run(ctx, command.Cmd{
		Name: "nix-store", Args: []string{"--store", s.URL(), "--load-db"}, Stdin: strings.NewReader(text.String()), AddEnv: s.Env, Package: "nix-bin",
	})
}

type count int64

func (c *count) Write(p []byte) (int, error) { *c += count(len(p)); return len(p), nil }

type writers []interface{ Write([]byte) (int, error) }

func (w writers) Write(p []byte) (int, error) {
	for _, one := range w {
		if n, err := one.Write(p); err != nil {
			return n, err
		}
	}
	return len(p), nil
}

// writeTree writes a path as it lies in a store: read-only.
func writeTree(root string, files map[string]string) error {
	if err := os.MkdirAll(filepath.Dir(root), 0o755); err != nil {
		return err
	}
	for _, name := range slices.Sorted(keys(files)) {
		perm := fs.FileMode(0o444)
		file, executable := strings.CutSuffix(name, "!")
		if executable {
			perm = 0o555
		}
		path := filepath.Join(root, file)
		if file != "" {
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				return err
			}
		}
		var err error
		if target, link := strings.CutPrefix(files[name], "-> "); link {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(files[name]), perm)
		}
		if err != nil {
			return err
		}
	}
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			return os.Chmod(path, 0o555)
		}
		return err
	})
}

func keys(m map[string]string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// List returns the closure list of paths that Add added, by their names.
func (s *Store) List(ctx context.Context, names ...string) (*nix.ClosureList, error) {
	roots := make([]string, len(names))
	for i, name := range names {
		roots[i] = PathOf(name)
	}
	infos, err := s.Closure(ctx, nix.ClosureOptions{Database: nix.Database{Store: s.Store, Env: s.Env}.Closure, TrustDatabase: true}, roots...)
	if err != nil {
		return nil, err
	}
	return nix.NewClosureList(infos)
}

// Sample is a small closure below "system": references in a chain, across and
// to itself, symlinks, an executable, an empty file, and one file of about size bytes
// that compresses by half.
func Sample(size int) []Path {
	var b strings.Builder
	sum := sha256.Sum256([]byte("sample"))
	for b.Len() < size {
		fmt.Fprintf(&b, "%x", sum[:16])
		b.Write(sum[16:])
		sum = sha256.Sum256(sum[:])
	}
	return []Path{
		{Name: "lib", Files: map[string]string{"": "I am a library\n"}},
		{Name: "big", Files: map[string]string{"data": b.String(), "self": PathOf("big"), "empty": ""}, Refs: []string{"big", "lib"}},
		{Name: "tool", Files: map[string]string{"bin/tool!": "#!/bin/sh\nexit 0\n", "lib": "-> " + PathOf("lib")}, Refs: []string{"lib"}},
		{Name: "link", Files: map[string]string{"": "-> " + PathOf("tool") + "/bin/tool"}, Refs: []string{"tool"}},
		{Name: "system", Files: map[string]string{"init!": "#!" + PathOf("tool") + "/bin/tool\n", "sw": "-> " + PathOf("link"), "etc/data": PathOf("big")}, Refs: []string{"big", "link", "tool"}},
	}
}

// Verify has Nix read and hash everything that is registered.
func (s *Store) Verify(ctx context.Context) error {
	_, err := s.Run(ctx, "nix-store", "--verify", "--check-contents")
	return err
}
