package kmod

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// LoadError says that the kernel refused a module. Err is what it answered, a
// syscall.Errno.
type LoadError struct {
	Module Module
	Err    error
}

func (e *LoadError) Unwrap() error { return e.Err }

func (e *LoadError) Error() string {
	text := fmt.Sprintf("load kernel module %q: %v", e.Module.Name, e.Err)
	if hint := loadHint(e.Err); hint != "" {
		text += " (" + hint + ")"
	}
	return text
}

// loadHint says in words what an error of init_module(2) means.
func loadHint(err error) string {
	switch {
	case errors.Is(err, unix.ENOENT):
		return "it wants a symbol of a module that is not loaded; dmesg names it"
	case errors.Is(err, unix.ENOEXEC):
		return "it is damaged or was not built for this kernel; dmesg says which"
	case errors.Is(err, unix.ENODEV):
		return "this machine has no such device"
	case errors.Is(err, unix.EKEYREJECTED), errors.Is(err, unix.ENOKEY):
		return "Secure Boot or lockdown wants a signature that it does not have"
	case errors.Is(err, unix.EPERM):
		return "not root, or loading is switched off"
	case errors.Is(err, unix.EINVAL):
		return "a parameter is wrong, or its symbols differ from this kernel's; dmesg says which"
	}
	return ""
}

// Load loads one module, whose dependencies must be loaded already, from fsys,
// whose root is lib/modules/<kver>. That it is loaded already is no error. The
// file must not be compressed, as in an initramfs of ours: what unpacks three
// formats is a megabyte that the first stage would carry for nothing.
func Load(fsys fs.FS, m Module) error { return LoadWith(fsys, m, "") }

// LoadWith is Load with parameters, as "a=1 b=2".
func LoadWith(fsys fs.FS, m Module, params string) error {
	if !strings.HasSuffix(m.Path, ".ko") {
		return fmt.Errorf("load kernel module %q: %q is compressed; unpack it where the initramfs is made", m.Name, m.Path)
	}
	f, err := fsys.Open(m.Path)
	if err != nil {
		return fmt.Errorf("load kernel module %q: %w", m.Name, err)
	}
	defer f.Close()
	if file, ok := f.(*os.File); ok {
		err := unix.FinitModule(int(file.Fd()), params, 0)
		if !errors.Is(err, unix.ENOSYS) {
			return loaded(m, err)
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxModuleSize+1))
	if err != nil {
		return fmt.Errorf("load kernel module %q: %w", m.Name, err)
	}
	if len(data) > MaxModuleSize {
		return fmt.Errorf("load kernel module %q: %w", m.Name, errTooLarge)
	}
	return loaded(m, unix.InitModule(data, params))
}

func loaded(m Module, err error) error {
	if err == nil || errors.Is(err, unix.EEXIST) {
		return nil
	}
	return &LoadError{Module: m, Err: err}
}
