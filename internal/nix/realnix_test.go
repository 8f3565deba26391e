package nix_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nix/nar"
)

// realNix is a store of its own in a temporary folder, written by the real
// Nix. It needs neither /nix nor root, and no network.
type realNix struct {
	store nix.Store
	env   []string
}

func newRealNix(t *testing.T) *realNix {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() { // before TempDir's own, which cannot remove read-only folders
		if err := nar.RemoveTree(dir); err != nil {
			t.Error(err)
		}
	})
	conf := filepath.Join(dir, "conf")
	text := "build-users-group =\nsandbox = true\nsandbox-paths = /bin /usr /lib /lib64\nsubstitute = false\nsubstituters =\n"
	writeFile(t, filepath.Join(conf, "nix.conf"), text)
	return &realNix{
		store: nix.Store{Dir: filepath.Join(dir, "root")},
		env:   []string{"NIX_CONF_DIR=" + conf, "HOME=" + dir, "NIX_REMOTE=", "NIX_PATH="},
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run runs one of Nix's programs on the store and returns its trimmed output.
func (n *realNix) run(t *testing.T, program string, args ...string) string {
	t.Helper()
	args = append([]string{"--store", n.store.Dir}, args...)
	out, err := command.Output(t.Context(), command.Cmd{Name: program, Args: args, AddEnv: n.env, Package: "nix-bin"})
	if err != nil {
		t.Fatalf("%v (without Nix, run scripts/setup; an ordinary user needs user namespaces)", err)
	}
	return strings.TrimSpace(string(out))
}

// The expression has what closures are made of: a text with references, one
// that Nix knows of though no byte says so, a reference to itself, a link.
const expression = `
let
  lib = builtins.toFile "lib-text" "I am a library\n";
  hidden = builtins.toFile "hidden" "nobody names me\n";
  context = builtins.toFile "context" "${builtins.substring 0 5 hidden}";
  make = name: script: derivation {
    inherit name; system = "x86_64-linux"; builder = "/bin/sh"; PATH = "/usr/bin:/bin";
    args = [ "-c" "set -e; ${script}; exit 0" ];
  };
  a = make "a" "mkdir -p $out/bin; echo ${lib} >$out/bin/ref; chmod +x $out/bin/ref; echo $out >$out/self; ln -s ${lib} $out/link; : >$out/empty";
  b = make "b" "mkdir $out; ln -s ${a}/bin $out/bin; cat ${context} >$out/x; echo ${context} >>$out/x";
in { inherit a b; }
`

// build builds the attribute of expression and returns its store path.
func (n *realNix) build(t *testing.T, attribute string) string {
	t.Helper()
	file := filepath.Join(filepath.Dir(n.store.Dir), "test.nix")
	writeFile(t, file, expression)
	return n.run(t, "nix-build", file, "-A", attribute, "--no-out-link", "--quiet")
}

// database returns the options that make Closure ask the real Nix.
func (n *realNix) database() nix.ClosureOptions {
	return nix.ClosureOptions{Database: nix.Database{Store: n.store, Env: n.env}.Closure}
}

// loadDB registers paths that lie in the store folder already.
func (n *realNix) loadDB(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := command.Cmd{Name: "nix-store", Args: []string{"--store", n.store.Dir, "--load-db"}, Stdin: f, AddEnv: n.env}
	if err := command.Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// unpackFrom copies a tree through our own NAR writer and reader.
func unpackFrom(t *testing.T, from, to string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(nar.Write(w, from)) }()
	if err := nar.Unpack(r, to); err != nil {
		t.Fatal(err)
	}
}

func mkfifo(t *testing.T, path string) {
	t.Helper()
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
}
