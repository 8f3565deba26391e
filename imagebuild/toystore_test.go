package imagebuild

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"xnodeos.org/internal/nix"
	"xnodeos.org/internal/nodeconfig"
	"xnodeos.org/internal/testkit"
)

// newToyStore returns a fresh store with testkit's toy system.
func newToyStore(t *testing.T) nix.Store {
	t.Helper()
	store := nix.Store{Dir: t.TempDir()}
	if err := testkit.WriteToyStore(store.Dir); err != nil {
		t.Fatal(err)
	}
	return store
}

// writeToy replaces a file of the toy store; an empty text removes it.
func writeToy(t *testing.T, store nix.Store, path, data string) {
	t.Helper()
	file := store.Physical(path)
	if data == "" {
		if err := os.RemoveAll(file); err != nil {
			t.Fatal(err)
		}
		return
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(data), 0o755); err != nil {
		t.Fatal(err)
	}
}

// toyInputs are complete inputs; kernel and loaders are not programs.
func toyInputs(t *testing.T, store nix.Store) Inputs {
	t.Helper()
	in, err := Load(t.Context(), store, testkit.ToySystem, t.TempDir(), NoProgress{})
	if err != nil {
		t.Fatal(err)
	}
	in.Init = Blob{Path: "xnode-init", Data: []byte(strings.Repeat("first stage ", 1000))}
	in.Loaders = map[string]Blob{}
	for name, data := range testkit.ToyLoaders() {
		in.Loaders[name] = Blob{Path: name, Data: data}
	}
	in.NodeConfig = &nodeconfig.Config{Files: map[string][]byte{
		"hostname": []byte("toy\n"),
		"network":  []byte("ip=10.0.2.15::10.0.2.2:24::52:54:00:12:34:56:none\n"),
	}}
	return in
}

var toyOptions = Options{Formats: []Format{ISO, Netboot}, EmbedPayload: true, Time: 1}
