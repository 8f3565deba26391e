package activate

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"xnodeos.org/internal/bootspec"
)

// lockFile is held by every switch-to-configuration while it works (flock(2)).
const lockFile = "/run/nixos/switch-to-configuration.lock"

// Locked tells whether a switch is at work on the machine whose file system
// begins at root, whoever started it.
func Locked(root string) (bool, error) {
	f, err := os.OpenFile(filepath.Join(root, lockFile), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("test the lock of switches: %w", err)
	}
	defer f.Close() // gives the lock back
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("test the lock of switches: flock %q: %w", f.Name(), err)
	}
	return false, nil
}

// Current is the store path of the system that was activated last; empty if
// none was.
func Current(root string) (string, error) { return link(root, "/run/current-system") }

// Booted is the store path of the system that the machine was started with.
func Booted(root string) (string, error) { return link(root, "/run/booted-system") }

func link(root, name string) (string, error) {
	target, err := os.Readlink(filepath.Join(root, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("look for the running system: %w", err)
	}
	return target, nil
}

// BootOnly tells whether a system has no switch-to-configuration
// (system.switch.enable = false on NixOS).
func BootOnly(root, system string) (bool, error) {
	if _, err := os.Stat(filepath.Join(root, system)); err != nil {
		return false, fmt.Errorf("look at the system: %w", err)
	}
	// Lstat: below another root an absolute link leads nowhere.
	_, err := os.Lstat(filepath.Join(root, system, program))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at the system: %w", err)
	}
	return false, nil
}

// Medium is what a system is made for: bootspec.MediumLive or
// bootspec.MediumInstalled; empty if it does not say.
func Medium(root, system string) (string, error) {
	data, err := os.ReadFile(filepath.Join(root, system, "boot.json"))
	if err != nil {
		return "", fmt.Errorf("read what the system is made for: %w", err)
	}
	spec, err := bootspec.Parse(data)
	if err != nil {
		return "", fmt.Errorf("read what the system %q is made for: %w", system, err)
	}
	return spec.Medium, nil
}
