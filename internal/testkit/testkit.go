// Package testkit is what tests of several packages share: where the
// repository is, the programs as a user gets them, and the tools that must be
// there. It is imported by tests and by test/ only, and never skips: what is
// missing fails with the remedy.
package testkit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// bootRecords are the files that scripts/setup puts into its boot folder.
var bootRecords = []string{
	"isolinux.bin", "isohdpfx.bin", "ldlinux.c32", "systemd-bootx64.efi",
	"linuxx64.efi.stub", "grub-boot.img", "grub-core.img",
}

// Root returns the absolute path of the repository that dir lies in.
func Root(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for at := dir; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return at, nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s lies in no Go module", dir)
		}
	}
}

// BuildPrograms builds xnodeos and xnode-init into dir/bin and lays the boot
// records into dir/libexec, the layout of an installed xnodeos. It returns the
// path of xnodeos.
func BuildPrograms(ctx context.Context, root, dir string) (string, error) {
	bin := filepath.Join(dir, "bin")
	if err := build(ctx, root, bin, "./cmd/xnodeos", "./cmd/xnode-init", "./cmd/xnode-takeover"); err != nil {
		return "", err
	}
	from := filepath.Join(root, "build", "libexec", "xnodeos", "boot")
	to := filepath.Join(dir, "libexec", "xnodeos", "boot")
	if err := os.MkdirAll(to, 0o755); err != nil {
		return "", err
	}
	for _, name := range bootRecords {
		data, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, fs.ErrNotExist) {
			return "", fmt.Errorf("boot record %s is missing in %s; run scripts/setup", name, from)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), data, 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	return filepath.Join(bin, "xnodeos"), nil
}

// BuildAgent builds xnode into dir and returns its path. It is not among
// BuildPrograms: what lies beside xnodeos ends up in its systems.
func BuildAgent(ctx context.Context, root, dir string) (string, error) {
	return filepath.Join(dir, "xnode"), build(ctx, root, dir, "./cmd/xnode")
}

// build builds commands as scripts/setup does.
func build(ctx context.Context, root, to string, packages ...string) error {
	args := append([]string{"build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", to + string(filepath.Separator)}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	return nil
}

// Programs builds the programs for one test and returns the path of xnodeos.
func Programs(t *testing.T) string {
	t.Helper()
	root, err := Root(".")
	if err != nil {
		t.Fatal(err)
	}
	program, err := BuildPrograms(t.Context(), root, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return program
}
