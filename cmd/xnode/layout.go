package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"xnodeos.org/internal/agentconfig"
)

// layout is where a node's files lie. All of it stands in one place, because
// the first stage, the system and both halves of the agent have to agree.
type layout struct{ root string }

func (l layout) path(elem ...string) string {
	return filepath.Join(append([]string{l.root}, elem...)...)
}

func (l layout) etc(elem ...string) string   { return l.path("etc/xnode", filepath.Join(elem...)) }
func (l layout) node(elem ...string) string  { return l.path("run/xnode/node", filepath.Join(elem...)) }
func (l layout) run(elem ...string) string   { return l.path("run/xnode", filepath.Join(elem...)) }
func (l layout) state(elem ...string) string { return l.path("var/lib/xnode", filepath.Join(elem...)) }

// settings reads the system's agent.toml and the node config's over it. Either
// may be missing: a node without both follows nothing.
func (l layout) settings() (agentconfig.Config, error) {
	var sources []agentconfig.Source
	for _, name := range []string{l.etc("agent.toml"), l.node("agent.toml")} {
		data, err := os.ReadFile(name)
		switch {
		case err == nil:
			sources = append(sources, agentconfig.Source{Name: name, Data: data})
		case !errors.Is(err, fs.ErrNotExist):
			return agentconfig.Config{}, fmt.Errorf("read settings: %w", err)
		}
	}
	return agentconfig.Parse(sources...)
}
