package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"xnodeos.org/internal/command"
	"xnodeos.org/internal/vm"
)

// cominVersion is what is measured where nobody names a program.
const cominVersion = "github.com/nlewo/comin@v0.13.0"

// startComin starts comin on the fleet's repository, with a poll as often as
// the follower's. There is nothing that it could build: its evaluation fails at
// once, as little work as comin can have.
func startComin(ctx context.Context, o options, f *fleet) (*command.Process, error) {
	program := o.comin
	if program == "" {
		var err error
		if program, err = installComin(ctx, f.work); err != nil {
			return nil, err
		}
	}
	var ports [2]uint16
	for i := range ports {
		var err error
		if ports[i], err = vm.FreePort(ctx); err != nil {
			return nil, err
		}
	}
	state := filepath.Join(f.work, "comin-state")
	if err := os.Mkdir(state, 0o755); err != nil {
		return nil, err
	}
	config := fmt.Sprintf(`hostname: node
state_dir: %s
repository_type: nix
system_attr: node
remotes:
  - name: origin
    url: %s
    branches: {main: {name: main, operation: test}, testing: {name: testing, operation: test}}
    poller: {period: %.0f}
api_server: {listen_address: 127.0.0.1, port: %d}
exporter: {listen_address: 127.0.0.1, port: %d}
build_confirmer: {mode: without}
deploy_confirmer: {mode: without}
retention: {deployment_boot_entry_capacity: 1, deployment_successful_capacity: 1, deployment_any_capacity: 1}
`, state, f.site.Git.URL("fleet.git"), pollEvery.Seconds(), ports[0], ports[1])
	file := filepath.Join(f.work, "comin.yaml")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		return nil, err
	}
	p, err := f.start(ctx, command.Cmd{Name: program, Args: []string{"run", "--config", file}})
	if err != nil {
		return nil, err
	}
	// Its first poll comes with its first tick, and a failed evaluation behind it.
	log := filepath.Join(f.work, filepath.Base(program)+".log")
	for range 10 * int(2*pollEvery/time.Second) {
		if text, err := os.ReadFile(log); err == nil && strings.Contains(string(text), "New commits have been fetched") {
			return p, nil
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
	text, _ := os.ReadFile(log)
	return nil, fmt.Errorf("it did not fetch: %s", text)
}

// installComin asks the Go module proxy, and only that: what the machine is
// configured to trust.
func installComin(ctx context.Context, work string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", "-ldflags=-s -w", cominVersion)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOBIN="+work, "GOFLAGS=")
	cmd.Dir = work // outside of our module
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", errors.Join(fmt.Errorf("install %s: %w", cominVersion, err), errors.New(string(out)))
	}
	return filepath.Join(work, "comin"), nil
}
